# SPDX-License-Identifier: Apache-2.0
"""Pods that ask for one particular address."""

from __future__ import annotations

import asyncio
import json

import pytest
from podnet_ipam._kube.calico import V1
from support.plane import allocated, create_pool, settled

ADDRESSES = "cni.projectcalico.org/ipAddrs"


@pytest.fixture
async def node(client, start_node):
    await create_pool(client, "main", "10.244.0.0/20")
    await create_pool(client, "six", "fd00:10:244::/64")
    await create_pool(client, "closed", "10.244.64.0/20", disabled=True)
    return await start_node("node-1")


def asks(*addresses):
    return {"annotations": {ADDRESSES: json.dumps(addresses)}}


async def test_a_pod_gets_the_addresses_that_it_asks_for_and_no_others(node, client):
    reply = await node.add("c1", **asks("10.244.3.7", "fd00:10:244::77"))
    assert [ip["address"].split("/")[0] for ip in reply.body["ips"]] == ["10.244.3.7", "fd00:10:244::77"]
    await settled(client, ["10.244.3.7", "fd00:10:244::77"])


async def test_an_address_can_be_asked_for_in_cni_args(node):
    arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=c1;IP=10.244.3.8"
    assert (await node.call("ADD", "c1", arguments=arguments)).address == "10.244.3.8"


@pytest.mark.parametrize(
    "config",
    (
        {"runtimeConfig": {"ips": ["10.244.3.8/20", "fd00:10:244::88"]}},
        {"args": {"cni": {"ips": ["10.244.3.8", "fd00:10:244::88/64"]}}},
    ),
    ids=("the capability", "the arguments"),
)
async def test_addresses_can_be_asked_for_by_the_conventions_of_cni(node, config):
    arguments = "IgnoreUnknown=1;IP=10.244.3.9"
    reply = await node.add("c1", arguments=arguments, **config)
    assert [ip["address"] for ip in reply.body["ips"]] == ["10.244.3.8/20", "fd00:10:244::88/64"]


async def test_an_address_that_someone_holds_is_refused_with_the_holder(node):
    await node.add("first", **asks("10.244.3.7"))
    reply = await node.add("second", **asks("10.244.3.7"))
    assert reply.body["code"] == 102
    assert "pod default/second asks for address 10.244.3.7, which pod default/first holds already" in reply.body["msg"]


async def test_of_many_who_ask_for_one_address_at_once_one_gets_it(node, client):
    replies = await asyncio.gather(*(node.add(f"c{number}", **asks("10.244.3.7")) for number in range(8)))
    assert sorted(reply.status for reply in replies) == [0] + [1] * 7
    await settled(client, ["10.244.3.7"])


@pytest.mark.parametrize("strict", [True, False])
async def test_an_address_in_the_block_of_another_node_is_lent_unless_affinity_is_strict(
    node, client, start_node, strict
):
    spec = {"strictAffinity": strict, "autoAllocateBlocks": True}
    await client.create(V1.path("IPAMConfig"), V1.new("IPAMConfig", "default", spec))
    other = await start_node("node-2")
    taken = await other.add("theirs", **asks("10.244.3.7"))
    assert taken.status == 0
    await asyncio.sleep(0.3)
    reply = await node.add("ours", **asks("10.244.3.9"))
    if strict:
        assert "belongs to another node than node-1" in reply.body["msg"]
        assert await allocated(client) == {"10.244.3.7": "podnet.theirs"}
    else:
        assert await allocated(client) == {"10.244.3.7": "podnet.theirs", "10.244.3.9": "podnet.ours"}
        assert (await node.delete("ours")).status == 0
        await settled(client, ["10.244.3.7"])


async def test_a_reserved_address_is_given_to_who_asks_for_it(node, client):
    spec = {"reservedCIDRs": ["10.244.3.0/24"]}
    await client.create(V1.path("IPReservation"), V1.new("IPReservation", "keep", spec))
    await asyncio.sleep(0.3)
    assert (await node.add("c1", **asks("10.244.3.7"))).address == "10.244.3.7"


@pytest.mark.parametrize(
    ("value", "message"),
    (
        ('["10.244.3.7", "10.244.3.8"]', "has more than one IPv4 address"),
        ('["10.244.3"]', "'10.244.3' is no IP address"),
        ("[]", "it must list at least one address"),
        ("10.244.3.7", "is not JSON"),
        ('["10.9.9.9"]', "asks for address 10.9.9.9, which lies in no pool"),
        ('["10.244.64.1"]', "of pool closed, but it is disabled"),
    ),
)
async def test_what_cannot_be_honoured_is_refused_with_the_reason(node, client, value, message):
    reply = await node.add("c1", annotations={ADDRESSES: value})
    assert reply.body["code"] == 7 and message in reply.body["msg"]
    assert await allocated(client) == {}
