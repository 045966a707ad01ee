# SPDX-License-Identifier: Apache-2.0
"""Whatever comes in, the agent answers with a CNI error or hangs up, and serves the next one who asks properly."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from podnet_ipam._core.names import ADDRESSES_ANNOTATION, FAMILIES_ANNOTATION, POOLS_ANNOTATIONS, STICKY_ANNOTATION
from podnet_ipam.agent.errors import INTERNAL, INVALID_CONFIGURATION, UNDECODABLE
from podnet_ipam.agent.network_config import POD_ANNOTATIONS
from podnet_ipam.agent.protocol import LARGEST_REQUEST, Request, encode_request
from support.conversation import ask, exchange, parse

POOLS = '[[pools]]\nname = "main"\ncidr = "10.88.0.0/16"\n'
VERBS = ("ADD", "DEL", "CHECK", "GC", "STATUS")
ANNOTATIONS = (*POOLS_ANNOTATIONS.values(), ADDRESSES_ANNOTATION, FAMILIES_ANNOTATION, STICKY_ANNOTATION)
GOOD = encode_request(
    Request(
        {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "fuzzed", "CNI_IFNAME": "eth0", "CNI_NETNS": "/proc/self"},
        b'{"cniVersion": "1.1.0", "name": "podnet", "type": "ptp", "ipam": {"type": "podnet-ipam"}}',
    )
)

texts = st.text(max_size=20) | st.sampled_from(("10.88.0.7", "10.88.0.0/16", "main", "fd00::1", "0.0.0.0/0", "true"))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def a_few(examples):
    return settings(max_examples=examples, suppress_health_check=list(HealthCheck))


def still_serves(machine):
    reply = ask(machine.socket, "ADD", "good", {})
    assert reply.status == 0, reply.body
    return True


def judge(reply):
    """Success, or an error as the specification has it, and for a reason that the agent knows."""
    if reply.status:
        assert reply.status == 1 and isinstance(reply.body["msg"], str) and reply.body["msg"]
        assert reply.body["cniVersion"] and isinstance(reply.body["code"], int)
        assert reply.body["code"] != INTERNAL, reply.body


def mutations():
    """A good request in which some bytes are missing, doubled or replaced by others."""
    places = st.integers(0, len(GOOD))
    return st.builds(
        lambda start, end, middle: GOOD[:start] + middle + GOOD[end:], places, places, st.binary(max_size=8)
    )


async def test_bytes_that_are_no_request_disturb_nobody(start_machine):
    machine = await start_machine(POOLS)

    @a_few(100)
    @given(st.binary(max_size=200) | st.binary(max_size=200).map(b"P1".__add__) | mutations())
    def talk(data):
        answer = exchange(machine.socket, data)
        if answer:
            judge(parse(answer))
        assert still_serves(machine)

    talk()
    deep = GOOD.partition(b"{")[0] + b"[" * 100_000
    assert parse(exchange(machine.socket, deep)).body["code"] == UNDECODABLE
    assert exchange(machine.socket, GOOD + b" " * LARGEST_REQUEST) == b""
    assert still_serves(machine)


async def test_a_configuration_of_any_values_is_served_or_refused_with_the_reason(start_machine):
    machine = await start_machine(POOLS)
    top = [
        "cniVersion",
        "name",
        "type",
        "ipam",
        "runtimeConfig",
        "args",
        "prevResult",
        "isGateway",
        "isDefaultGateway",
        "mode",
        "cni.dev/valid-attachments",
        "cni.dev/attachments",
    ]
    below = {
        "ipam": ["type", "assign_ipv4", "assign_ipv6", "ipv4_pools", "ipv6_pools", "subnets", "gateway", "routes"],
        "runtimeConfig": ("ips", "io.kubernetes.cri.pod-annotations"),
        "args": ("cni",),
        "prevResult": ("ips", "cniVersion"),
    }
    nested = {key: st.dictionaries(st.sampled_from(names), values, max_size=3) for key, names in below.items()}
    configs = st.sampled_from(top).flatmap(lambda key: st.fixed_dictionaries({key: nested.get(key, values) | values}))

    @a_few(200)
    @given(st.sampled_from(VERBS), configs)
    def talk(verb, config):
        judge(ask(machine.socket, verb, "fuzzed", config))
        ask(machine.socket, "DEL", "fuzzed", {})

    talk()
    assert still_serves(machine)


async def test_a_value_of_a_wrong_type_is_named(start_machine):
    machine = await start_machine(POOLS)
    for verb, config, said in (
        ("ADD", {"ipam": []}, "expected object, got array at $.ipam"),
        ("ADD", {"ipam": {"ipv4_pools": "main"}}, "expected array, got str at $.ipam.ipv4_pools"),
        ("ADD", {"runtimeConfig": {"ips": [1]}}, "expected str, got int at $.runtimeConfig.ips[0]"),
        ("ADD", {"runtimeConfig": {POD_ANNOTATIONS: {"a": None}}}, f"got null at $.runtimeConfig.{POD_ANNOTATIONS}.a"),
        ("CHECK", {"prevResult": {"ips": [{}]}}, "prevResult.ips: None does not appear to be"),
        ("CHECK", {"prevResult": {"ips": [{"address": "x"}]}}, "prevResult.ips: 'x' does not appear to be"),
    ):
        reply = ask(machine.socket, verb, "c1", config)
        assert reply.body["code"] == INVALID_CONFIGURATION and said in reply.body["msg"]


async def test_annotations_of_any_text_are_served_or_refused_with_the_reason(start_machine):
    machine = await start_machine(POOLS)
    written = st.text(max_size=30) | values.map(json.dumps) | st.lists(texts, max_size=3).map(json.dumps)

    @a_few(100)
    @given(st.dictionaries(st.sampled_from(ANNOTATIONS), written, min_size=1))
    def talk(annotations):
        config = {"runtimeConfig": {"io.kubernetes.cri.pod-annotations": annotations}}
        pod = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=fuzzed"
        judge(ask(machine.socket, "ADD", "fuzzed", config, CNI_ARGS=pod))
        ask(machine.socket, "DEL", "fuzzed", {})

    talk()
    assert still_serves(machine)
