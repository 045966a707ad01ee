# SPDX-License-Identifier: Apache-2.0
"""What the agent makes of objects that nobody should have stored."""

from __future__ import annotations

import asyncio

import pytest
from podnet_ipam._kube.calico import V1
from support.simulated_cluster import SimulatedCluster

POOL = '[[pools]]\nname = "main"\ncidr = "10.0.0.0/30"\nblock_size = 30\n'
MALFORMED = {
    "no spec": {},
    "spec of another type": {"spec": "10.0.0.1"},
    "entries of another type": {"spec": {"reservedCIDRs": [{"cidr": "10.0.0.1"}]}},
}


@pytest.mark.parametrize("malformed", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_object_is_ignored_and_the_others_count(hurried, tmp_path, malformed):
    async with asyncio.timeout(20), SimulatedCluster(tmp_path, ("node-1",), POOL) as cluster:
        path = V1.path("IPReservation")
        await cluster.datastore.create(path, {**V1.new("IPReservation", "bad", {}), "spec": None} | malformed)
        await cluster.start_all()
        await cluster.datastore.create(path, {**V1.new("IPReservation", "worse", {}), "spec": None} | malformed)
        await cluster.datastore.create(path, V1.new("IPReservation", "good", {"reservedCIDRs": ["10.0.0.0/31"]}))
        await asyncio.sleep(0.02)
        assert await cluster.nodes["node-1"].add("a") == {"10.0.0.2"}
