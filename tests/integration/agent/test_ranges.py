# SPDX-License-Identifier: Apache-2.0
"""Pools named as ranges of addresses: by the runtime, or by a configuration that was made for host-local."""

from __future__ import annotations

import pytest
from support.plane import allocated, create_pool

V4 = "cni.projectcalico.org/ipv4pools"
MAIN, SECOND, SIX = ({"subnet": cidr} for cidr in ("10.244.0.0/24", "10.245.0.0/24", "fd00:10:244::/64"))


@pytest.fixture
async def node(client, start_node):
    await create_pool(client, "main", "10.244.0.0/24")
    await create_pool(client, "second", "10.245.0.0/24", assignmentMode="Manual")
    await create_pool(client, "six", "fd00:10:244::/64")
    await create_pool(client, "closed", "10.246.0.0/24", disabled=True)
    return await start_node("node-1")


def asked(*sets, **annotations):
    """What a runtime says: the capability, beside the pod's annotations."""
    return {"runtimeConfig": {"ipRanges": list(sets), "io.kubernetes.cri.pod-annotations": annotations}}


def configured(*sets, **keys):
    return {"ipam": {"ranges": list(sets), **keys}}


def pools(reply):
    """The pools of the addresses that were given."""
    assert reply.status == 0, reply.body
    names = {"10.244.0.": "main", "10.245.0.": "second", "fd00:10:244:": "six"}
    return [name for entry in reply.body["ips"] for text, name in names.items() if entry["address"].startswith(text)]


@pytest.mark.parametrize("say", (asked, configured))
async def test_each_set_of_ranges_gives_an_address_of_one_of_its_pools(node, say):
    assert pools(await node.add("c1", **say([SECOND]))) == ["second"]
    assert pools(await node.add("c2", **say([SIX]))) == ["six"]
    assert pools(await node.add("c3", **say([SIX], [MAIN]))) == ["main", "six"]
    assert pools(await node.add("c4", **say([SECOND, MAIN]))) == ["second"]


@pytest.mark.parametrize("say", (asked, configured))
async def test_the_gateway_of_a_range_is_that_of_its_pods_and_given_to_none(node, say):
    ranges = say([{**SECOND, "gateway": "10.245.0.1"}])
    replies = [await node.add(f"c{number}", **ranges) for number in range(2)]
    assert {reply.body["ips"][0]["gateway"] for reply in replies} == {"10.245.0.1"}
    other = await node.add("other", **say([{**SECOND, "gateway": "10.245.0.1"}, MAIN]))
    assert "10.245.0.1" not in {reply.address for reply in (*replies, other)}


async def test_an_annotation_wins_over_the_configured_ranges_and_what_the_runtime_asks_for_over_both(node):
    annotations = {V4: '["main"]'}
    assert pools(await node.add("c1", annotations=annotations, **configured([SECOND]))) == ["main"]
    assert pools(await node.add("c2", **asked([SECOND], **annotations), **configured([MAIN]))) == ["second"]


async def test_what_the_runtime_asks_for_comes_beside_the_configured_ranges_of_the_other_family(node):
    assert pools(await node.add("c1", **asked([SECOND]), **configured([MAIN], [SIX]))) == ["second", "six"]


REFUSED = (
    (asked, {"subnet": "10.9.0.0/24"}, "capability ipRanges names pool '10.9.0.0/24', which does not exist"),
    (configured, {"subnet": "10.9.0.0/24"}, "the plugin's configuration names pool '10.9.0.0/24', which"),
    (asked, {"subnet": "10.244.0.0/25"}, "pools of this family: closed (10.246.0.0/24), main (10.244.0.0/24)"),
    (asked, {"subnet": "10.246.0.0/24"}, "but it is disabled"),
    (configured, {**MAIN, "rangeStart": "10.244.0.10"}, "is a part of 10.244.0.0/24 only"),
)


async def test_ranges_that_no_pool_can_stand_for_are_refused_with_the_reason(node, client):
    replies = [await node.add("c1", **say([entry])) for say, entry, _message in REFUSED]
    for reply, (_say, _entry, message) in zip(replies, REFUSED, strict=True):
        assert reply.body["code"] == 7 and message in reply.body["msg"]
    assert await allocated(client) == {}
