# SPDX-License-Identifier: Apache-2.0
"""What is said beforehand about a pod's pool is what happens: said by the agent, and by the module from outside."""

from __future__ import annotations

import ipaddress
import json
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path

from ansible_collections.podnet.ipam.plugins.module_utils._core import pool as module_pool
from ansible_collections.podnet.ipam.plugins.module_utils._plan import explain, usage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from podnet_ipam._core.assignment import Subject
from podnet_ipam._core.block import Block
from podnet_ipam._core.explanation import explain as explain_by_agent
from podnet_ipam._core.names import POOLS_ANNOTATIONS, cidr_name
from podnet_ipam._kube.calico import CONFIG_NAME, V1
from podnet_ipam.agent import claims
from podnet_ipam.agent.errors import CniError
from support.simulated_cluster import SimulatedCluster

NODE, OTHER = "node-1", "node-2"
CIDRS = {"a": "10.0.0.0/30", "b": "10.0.1.0/29", "c": "10.0.2.0/28"}
POOLS = "".join(f'[[pools]]\nname = "{name}"\ncidr = "{cidr}"\nblock_size = 30\n' for name, cidr in CIDRS.items())
BLOCKS = [str(block) for cidr in CIDRS.values() for block in ipaddress.ip_network(cidr).subnets(new_prefix=30)]
LONG_AGO = "2026-01-01T00:00:00Z"
# Whose a block is, by what it says and by a claim in a state; None for neither.
BLOCK = st.fixed_dictionaries(
    {
        "affinity": st.sampled_from([None, f"host:{NODE}", f"host:{OTHER}", "virtual:load-balancer"]),
        "used": st.sampled_from([0, 1, 4, 4, 4]),
        "young": st.booleans(),
    }
)
PLACE = st.fixed_dictionaries(
    {
        "block": st.none() | BLOCK,
        "claims": st.dictionaries(
            st.sampled_from([NODE, OTHER]),
            st.sampled_from(["confirmed", "confirmed", "pending", "pendingDeletion"]),
            max_size=2,
        ),
    }
)
FULL = {"block": {"affinity": f"host:{OTHER}", "used": 4, "young": False}, "claims": {OTHER: "confirmed"}}
PLACES = st.fixed_dictionaries({cidr: st.just(FULL) | PLACE for cidr in BLOCKS})
CONFIG = st.fixed_dictionaries(
    {
        "strictAffinity": st.booleans(),
        "autoAllocateBlocks": st.sampled_from([True, True, True, False]),
        "maxBlocksPerHost": st.sampled_from([0, 0, 1, 2]),
    }
)
RESERVED = st.lists(st.sampled_from([*BLOCKS, *(cidr.replace("/30", "/31") for cidr in BLOCKS)]), max_size=3)


def now(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


async def create(datastore, kind, name, spec):
    await datastore.create(V1.path(kind), V1.new(kind, name, spec))


async def store(datastore, places, config, reserved):
    for cidr, place in places.items():
        if place["block"]:
            claimed = now(time.time()) if place["block"]["young"] else LONG_AGO
            block = Block.empty(cidr, 4, place["block"]["affinity"], time.time_ns(), claimed)
            for _address in range(place["block"]["used"]):
                block.assign("net.someone", {"node": OTHER, "namespace": "default", "pod": "someone"})
            await create(datastore, "IPAMBlock", cidr_name(cidr), block.spec())
        for node, state in place["claims"].items():
            affinity = V1.new_affinity(node, cidr, state)
            await datastore.create(V1.path("BlockAffinity"), affinity)
    await create(datastore, "IPReservation", "kept", {"reservedCIDRs": reserved})
    path = V1.path(V1.config_kind, CONFIG_NAME)
    await datastore.replace(path, V1.changed(await datastore.get(path), config))


@asynccontextmanager
async def node_in(places, config, reserved):
    with tempfile.TemporaryDirectory() as folder:
        async with SimulatedCluster(Path(folder), [NODE], POOLS) as cluster:
            await store(cluster.datastore, places, config, reserved)
            await cluster.start_all()
            yield cluster.nodes[NODE]


async def told_by_the_module(datastore, annotations):
    """The answer of the module, from what is stored."""

    async def stored(kind):
        return (await datastore.list(V1.path(kind)))[0]

    pools = map(module_pool.Pool.from_object, await stored("IPPool"))
    observed = explain.Observed(
        namespaces={"default": {"metadata": {}}},
        nodes={NODE: {"metadata": {}}},
        pools={pool.name: pool for pool in pools},
        blocks=tuple(await stored("IPAMBlock")),
        affinities=tuple(await stored("BlockAffinity")),
        reserved=usage.reserved_ranges(await stored("IPReservation")),
        config=(await stored(V1.config_kind))[0],
        now=time.time(),
    )
    question = {"namespace": "default", "node": NODE, "pod": "new", "annotations": annotations, "families": ["IPv4"]}
    return explain.explain(question, observed)["ipv4"]


async def outcome(node, subject):
    """The address that a pod gets, None when it gets none."""
    try:
        given = await node.ipam.assign("net.new", subject, [4], {"namespace": "default", "pod": "new"})
    except CniError:
        return None
    return given.addresses[0].address


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(places=PLACES, config=CONFIG, reserved=RESERVED, order=st.permutations(list(CIDRS)))
async def test_a_pod_gets_its_address_from_the_pool_that_was_named(
    hurried, monkeypatch, places, config, reserved, order
):
    monkeypatch.setattr(claims, "RECLAIM_SECONDS", 60.0)
    annotations = {POOLS_ANNOTATIONS[4]: json.dumps(order)}
    subject = Subject("default", "new", NODE, pod_annotations=annotations)
    async with node_in(places, config, reserved) as node:
        view = await node.ipam.blocks.view([])
        told = explain_by_agent(subject, [4], [*node.cluster.pools], view)["ipv4"]
        assert await told_by_the_module(node.datastore, annotations) == told
        address = await outcome(node, subject)
        names = [
            name
            for name, cidr in CIDRS.items()
            if address and ipaddress.ip_address(address) in ipaddress.ip_network(cidr)
        ]
        assert [told["pool"]] == (names or [None]), told
        for room in told["room"]:
            if room["reason"] is None and room["way"] != "borrowed":
                assert ipaddress.ip_address(address) in ipaddress.ip_network(room["block"]), told
