# SPDX-License-Identifier: Apache-2.0
"""Dry runs, and bad luck while the role is at work: what is named, what still works, that the next run completes."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from cluster.engine import engine
from e2e.demo import SITE, is_ready
from support.kind import ROOT, Story, wait_for

pytestmark = pytest.mark.slow
# In the order in which the role takes them, one at a time.
NODES = ("podnet-control-plane", "podnet-worker", "podnet-worker2")
# Those that a pool of the demo serves.
RACKS = NODES[1:]
CONFIGURATION = "/etc/podnet-ipam/agent.toml"


@pytest.fixture
def story():
    """The cluster with the node plugin and the demo's pools."""
    story = Story(ROOT / ".cache/mishaps")
    story.join()
    story.have_site(SITE)
    return story


# Nobody may write into a Node object who makes the pods' network.
NO_RECORDS = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-records}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [UPDATE], resources: [nodes]}]
  variables:
    - {name: now, expression: "'ipam.podnet.io/cni' in object.metadata.annotations"}
    - {name: before, expression: "'ipam.podnet.io/cni' in oldObject.metadata.annotations"}
  validations: [{expression: "!variables.now || variables.before", message: no records today}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-records}
spec: {policyName: no-records, validationActions: [Deny]}
"""


def change(seconds, batch=1):
    """A playbook's arguments for a change that every agent has to be restarted for."""
    return SITE, "--tags", "node", "--extra-vars", json.dumps({"cni_ipam_cooldown": seconds, "cni_ipam_batch": batch})


def has_change(node, seconds):
    return f"cooldown = {seconds}\n" in engine().output("exec", node, "cat", CONFIGURATION)


def gets_an_address(story, node):
    """Run a pod on the node until it is ready."""
    name = f"on-{node}"
    container = {"name": "main", "image": "localhost/podnet-workload:1", "imagePullPolicy": "IfNotPresent"}
    tolerations = [{"operator": "Exists"}]
    spec = {"nodeName": node, "tolerations": tolerations, "containers": [container]}
    overrides = json.dumps({"spec": {**spec, "terminationGracePeriodSeconds": 0}})
    story.kubectl("run", name, "--image", container["image"], "--overrides", overrides)
    try:
        wait_for(f"pod {name} ready", lambda: is_ready_pod(story, name))
    finally:
        story.kubectl("delete", "pod", name, "--timeout=60s")


def is_ready_pod(story, name):
    return any(pod["metadata"]["name"] == name and is_ready(pod) for pod in story.get("pods"))


def completes(story, seconds):
    """The next run brings all nodes to where they should be, and the one after it changes nothing."""
    story.play_quietly(*change(seconds))
    assert all(has_change(node, seconds) for node in NODES)
    again = story.play_quietly(*change(seconds))
    assert again["tasks"] == []
    for node in RACKS:
        gets_an_address(story, node)


def test_a_dry_run_says_what_the_run_changes_and_changes_nothing(story):
    story.play_quietly(*change(39))
    dry = story.play_quietly(*change(40), "--check")
    assert not any(has_change(node, 40) for node in NODES)
    real = story.play_quietly(*change(40))
    assert named(dry) == named(real) != set()
    assert all(has_change(node, 40) for node in NODES)
    assert story.play_quietly(*change(40), "--check")["tasks"] == []


def named(report):
    return {(host, task) for host, task, _result in report["tasks"]}


def test_a_node_that_goes_down_in_the_middle_stops_the_roll_out_there(story):
    first, second, down = NODES
    process = story.start(*change(41))
    wait_for("the first node changed", lambda: has_change(first, 41), 300)
    engine().output("pause", down)
    try:
        output, _errors = process.communicate(timeout=600)
        assert process.returncode != 0
        assert down in output.partition("PLAY RECAP")[2]
        gets_an_address(story, second)
    finally:
        engine().output("unpause", down)
    wait_for("all nodes ready", lambda: all(map(is_ready, story.get("nodes"))), 300)
    assert not has_change(down, 41)
    completes(story, 41)


def test_an_api_server_that_goes_away_in_the_middle_leaves_the_nodes_with_their_network(story):
    api_server, first, second = NODES
    process = story.start(*change(42), "--limit", f"{first},{second}")
    wait_for("the first node changed", lambda: has_change(first, 42), 300)
    engine().output("pause", api_server)
    try:
        output, _errors = process.communicate(timeout=600)
        assert process.returncode != 0 and "API server" in output, output[-3000:]
    finally:
        engine().output("unpause", api_server)
    wait_for("all nodes ready", lambda: all(map(is_ready, story.get("nodes"))), 300)
    for node in RACKS:
        gets_an_address(story, node)
    completes(story, 42)


def test_of_two_operators_at_once_one_completes_and_the_other_one_is_told_before_it_changes_anything(story):
    processes = [story.start(*change(43)) for _operator in range(2)]
    outputs = [process.communicate(timeout=900)[0] for process in processes]
    [refused] = [output for process, output in zip(processes, outputs, strict=True) if process.returncode]
    assert "Lease kube-system/podnet-ipam-role is held by" in refused, refused[-3000:]
    assert not re.search(r"changed=[1-9]", refused.partition("PLAY RECAP")[2]), refused[-3000:]
    assert all(has_change(node, 43) for node in NODES)
    completes(story, 43)


def test_a_run_that_is_broken_off_keeps_the_next_one_on_this_machine_from_nothing(story):
    first, second, last = NODES
    process = story.start(*change(44))
    wait_for("the first node changed", lambda: has_change(first, 44), 300)
    process.kill()
    process.communicate()
    assert not has_change(last, 44)
    gets_an_address(story, second)
    completes(story, 44)


def test_what_fails_for_a_whole_batch_puts_each_node_of_it_back(story, tmp_path):
    policy = tmp_path / "policy.yml"
    policy.write_text(NO_RECORDS)
    story.kubectl("annotate", "nodes", "--all", "ipam.podnet.io/cni-")
    story.kubectl("apply", "--filename", str(policy))
    try:
        wait_for("the policy in force", lambda: is_refused(story), 60)
        output, _errors = story.start(*change(45, batch=3)).communicate(timeout=600)
    finally:
        story.kubectl("delete", "--filename", str(policy))
    told = [line for line in output.splitlines() if "no records today" in line]
    for node in NODES:
        assert any(f"{node}: task 'Be recorded' failed" in line and "is back on version" in line for line in told), told
        assert not has_change(node, 45)
    for node in RACKS:
        gets_an_address(story, node)
    completes(story, 45)


def is_refused(story):
    try:
        story.kubectl("annotate", "node", NODES[0], "ipam.podnet.io/cni=tried", "--dry-run=server")
    except subprocess.CalledProcessError as error:
        return "no records today" in error.stderr
    return False
