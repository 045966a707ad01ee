# SPDX-License-Identifier: Apache-2.0
"""Real controllers, a real disruption budget and real addresses: running pods move to the pools of their assignment."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from e2e.demo import SITE, is_ready
from support.kind import ROOT, Story, wait_for

HERE = Path(__file__).resolve().parent / "rollout"
NETWORKS = {
    "payments": ipaddress.ip_network("10.244.128.0/20"),
    "legacy-firewall": ipaddress.ip_network("10.244.144.0/24"),
}
EXPECTED = {"web": ("payments", 3), "store": ("payments", 2), "probe": ("legacy-firewall", 2)}


@pytest.fixture
def story():
    """The cluster with the node plugin and the demo's pools, and workloads that run in a namespace of their own."""
    story = Story(ROOT / ".cache/rollout")
    story.join()
    story.have_site(SITE)
    story.kubectl("create", "namespace", "rollout")
    try:
        story.kubectl("apply", "--filename", str(HERE / "workloads.yml"))
        yield story
    finally:
        story.kubectl("delete", "namespace", "rollout", "--wait=true", "--timeout=120s")


def addresses(story):
    """{app: {pod: address}} of the pods in the namespace, once they are as many as wanted and all of them ready."""

    def settled():
        pods = [pod for pod in story.get("pods", "-n", "rollout") if not pod["metadata"].get("deletionTimestamp")]
        return pods if len(pods) == 7 and all(map(is_ready, pods)) else None

    found = {app: {} for app in EXPECTED}
    for pod in wait_for("seven pods ready", settled):
        found[pod["metadata"]["labels"]["app"]][pod["metadata"]["name"]] = pod["status"]["podIP"]
    return found


def test_stale_pods_of_every_kind_are_replaced_and_the_module_returns_when_they_are(story):
    before = addresses(story)
    result = story.play_quietly(HERE / "move.yml")
    _namespace, (_host, _task, workloads) = result["tasks"]
    evictions = [{"verb": "evict", "kind": "Pod", "namespace": "rollout", "name": f"store-{index}"} for index in (0, 1)]
    assert workloads["operations"] == [
        {"verb": "patch", "kind": "DaemonSet", "namespace": "rollout", "name": "probe"},
        {"verb": "restart", "kind": "Deployment", "namespace": "rollout", "name": "web"},
        *evictions,
    ]
    pods = [pod for pod in story.get("pods", "-n", "rollout") if not pod["metadata"].get("deletionTimestamp")]
    assert all(map(is_ready, pods)), "the module waited for the new pods"
    for app, (pool, count) in EXPECTED.items():
        own = [pod["status"]["podIP"] for pod in pods if pod["metadata"]["labels"]["app"] == app]
        assert len(own) == count
        assert all(ipaddress.ip_address(address) in NETWORKS[pool] for address in own), f"{app}: {own} not in {pool}"
        assert not set(own) & set(before[app].values())
    again = story.play_quietly(HERE / "move.yml")
    assert again["tasks"] == []
