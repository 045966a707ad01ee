# SPDX-License-Identifier: Apache-2.0
"""The role on the three nodes of a fresh kind cluster, and how soon many pods run on one node, beside host-local.

The nodes share this machine's cores with each other and with what installs them. The pods are those of one Deployment,
from its creation until all of them are Ready; both plugins serve the same node, in turn, below the same main plugin.
"""

from __future__ import annotations

import json
import statistics
import time
from ipaddress import ip_address, ip_network

from cluster.engine import engine
from support.kind import ROOT, Story

SITE = ROOT / "tests/bench/nodes.yml"
NODE, PODS, TURNS = "podnet-worker", 60, 5
OURS, PEER = "podnet-ipam", "host-local"
FOLDER = "/etc/cni/net.d"
# Before the role's own file, so that the runtime takes it.
PEERS_FILE = f"{FOLDER}/00-bench.conflist"
RELOAD_SECONDS = 3  # until the runtime has read the folder again
DEPLOYMENT = ROOT / "tests/bench/nodes-deployment.yml"
RANGES = {OURS: "10.244.0.0/17", PEER: "10.244.250.0/24"}  # of which the first is the pool that SITE declares


def report() -> dict:
    """Print the figures and return them."""
    story = Story(ROOT / ".cache/bench")
    story.begin()
    story.play_quietly(SITE, "--tags", "wheel")
    figures = {"fresh": _play(story), "unchanged": _play(story)}
    print("The role on three nodes, the wheel being there")
    print(f"  fresh nodes {figures['fresh']:.0f} s, unchanged {figures['unchanged']:.0f} s")
    seconds = {OURS: [], PEER: []}
    for turn in range(TURNS):
        for plugin, times in seconds.items():
            times.append(_burst(story, plugin))
            print(f"... turn {turn + 1} of {TURNS}: {PODS} pods with {plugin} in {times[-1]:.1f} s", flush=True)
    figures["pods"] = {plugin: statistics.median(times) for plugin, times in seconds.items()}
    for plugin, median in figures["pods"].items():
        print(f"  {PODS} pods on one node Ready after {median:.1f} s with {plugin}")
    print()
    return figures


def _play(story: Story) -> float:
    started = time.perf_counter()
    story.play_quietly(SITE)
    return time.perf_counter() - started


def _burst(story: Story, plugin: str) -> float:
    """Seconds until all pods are Ready. Afterwards there are none, and the node is as before."""
    if plugin == PEER:
        _have_peer()
    started = time.perf_counter()
    story.kubectl("create", "--filename", str(DEPLOYMENT))
    story.kubectl("rollout", "status", "deployment/burst", "--timeout=300s")
    seconds = time.perf_counter() - started
    addresses = [pod["status"]["podIP"] for pod in story.get("pods")]
    assert len(addresses) == PODS and all(map(ip_network(RANGES[plugin]).__contains__, map(ip_address, addresses)))
    story.kubectl("delete", "deployment", "burst", "--cascade=foreground", "--timeout=300s")
    story.kubectl("wait", "pods", "--all", "--for=delete", "--timeout=300s")
    if plugin == PEER:
        engine().output("exec", NODE, "rm", PEERS_FILE)
        time.sleep(RELOAD_SECONDS)
    return seconds


def _have_peer() -> None:
    """Have the node's runtime use host-local from here on: the role's network, but for its IPAM."""
    [path] = engine().output("exec", NODE, "find", FOLDER, "-name", "*.conflist").split()
    network = json.loads(engine().output("exec", NODE, "cat", path))
    network["plugins"][0]["ipam"] = {
        "type": PEER,
        "ranges": [[{"subnet": RANGES[PEER]}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    text = json.dumps({**network, "name": "bench"})
    # Written within the folder: the runtime does not notice a file that comes from another one.
    engine().output("exec", NODE, "sh", "-c", f"printf %s '{text}' > {PEERS_FILE}")
    time.sleep(RELOAD_SECONDS)
