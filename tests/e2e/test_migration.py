# SPDX-License-Identifier: Apache-2.0
"""Pods of real controllers move from pool to pool within their budgets, although the move is killed on the way."""

from __future__ import annotations

import ipaddress
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from e2e.demo import SITE, is_ready
from support.kind import BIN, ROOT, Story, wait_for

HERE = Path(__file__).resolve().parent / "migration"
MIGRATE = Path("podnet.ipam.migrate")
VARIABLES = ("--extra-vars", f"@{HERE / 'variables.yml'}")
OLD, NEW = ipaddress.ip_network("10.244.160.0/24"), ipaddress.ip_network("10.244.161.0/24")
WANTED = {"web": 4, "store": 3}
# What the Deployment's strategy and the StatefulSet's budget leave ready at any time.
AT_LEAST = {"web": 3, "store": 2}


@pytest.fixture
def story():
    """The cluster with the node plugin and the demo's pools, and two workloads that draw from pool tenants-a."""
    story = Story(ROOT / ".cache/migration")
    story.join()
    story.have_site(SITE)
    story.kubectl("create", "namespace", "migration")
    try:
        story.play_quietly(HERE / "begin.yml")
        story.kubectl("apply", "--filename", str(HERE / "workloads.yml"))
        wait_for("all pods ready in tenants-a", lambda: ready_in(story, OLD) == WANTED)
        yield story
    finally:
        story.kubectl("delete", "namespace", "migration", "--wait=true", "--timeout=120s")
        story.have_site(SITE)  # its purge takes the pools away


def ready_in(story, network):
    """How many pods of each app are ready, with an address of this network."""
    counts = dict.fromkeys(WANTED, 0)
    for pod in story.get("pods", "-n", "migration"):
        address = pod["status"].get("podIP")
        if address and ipaddress.ip_address(address) in network and is_ready(pod):
            counts[pod["metadata"]["labels"]["app"]] += 1
    return counts


class Watch:
    """Looks how many pods of each app are ready, for as long as the `with` block lasts. `fewest` is the least seen."""

    def __init__(self, story):
        self._story, self._end = story, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.fewest, self.looks = dict(WANTED), 0

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_error):
        self._end.set()
        self._thread.join()

    def _look(self):
        while not self._end.wait(0.3):
            now = ready_in(self._story, ipaddress.ip_network("10.244.160.0/23"))
            self.fewest = {app: min(count, now[app]) for app, count in self.fewest.items()}
            self.looks += 1


def kill_midway(story):
    """Start the move, and kill it as soon as one pod has arrived and others have not."""
    command = [BIN / "ansible-playbook", "--inventory", story.inventory, MIGRATE, *VARIABLES]
    process = subprocess.Popen(
        command, env=story.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_for("the first pod to arrive", lambda: any(ready_in(story, NEW).values()))
        assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_move_that_is_killed_goes_on_and_enough_pods_are_ready_all_the_time(story):
    with Watch(story) as watch:
        kill_midway(story)
        assert ready_in(story, NEW) != WANTED
        story.play_quietly(MIGRATE, *VARIABLES)
        assert ready_in(story, NEW) == WANTED
    assert watch.looks > 10
    assert all(watch.fewest[app] >= count for app, count in AT_LEAST.items()), watch.fewest
    pools = [pool["metadata"]["name"] for pool in story.get("ippools.crd.projectcalico.org")]
    assert "tenants-b" in pools and "tenants-a" not in pools
    blocks = [ipaddress.ip_network(each["spec"]["cidr"]) for each in story.get("ipamblocks.crd.projectcalico.org")]
    assert not [block for block in blocks if block.overlaps(OLD)]
    assert story.play_quietly(MIGRATE, *VARIABLES)["tasks"] == []
