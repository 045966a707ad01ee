# SPDX-License-Identifier: Apache-2.0
"""The guide "Restrict a pod to a range of addresses", followed to the letter on a real cluster."""

from __future__ import annotations

import ipaddress
import json
import re
import textwrap
from pathlib import Path

import pytest
import yaml
from cluster import kind
from support.kind import ROOT, Story, wait_for

GUIDE = ROOT / "docs/docsite/rst/guide_restrict_pod.rst"
PLAYBOOK = re.compile(r"^\.\. code-block:: yaml\n   :caption: (\S+)\n\n((?:   .*\n|\n)+)", re.MULTILINE)
# What a reader puts in for his own cluster.
RACKS = {"podnet-worker": "1", "podnet-worker2": "2"}
OWN = {"image": "localhost/podnet-workload:1", "racks": RACKS}
V4 = "cni.projectcalico.org/ipv4pools"


class Reader:
    """Somebody who follows the guide, and looks at the pods with kubectl after each step."""

    def __init__(self, story: Story):
        self.story = story
        self.playbooks = {name: textwrap.dedent(text) for name, text in PLAYBOOK.findall(GUIDE.read_text())}
        self.done: list[str] = []
        story.begin()
        (story.folder / "own.json").write_text(json.dumps(OWN))
        story.play_quietly(Path("podnet.ipam.deploy"), "--extra-vars", "cni_ipam_batch=100%")

    def follow(self, *names: str) -> dict:
        """Save the next playbooks of the guide and run them; what the last one changed."""
        for name in names:
            file = self.story.folder / name
            file.write_text(self.playbooks[name])
            report = self.story.play_quietly(file, "--extra-vars", f"@{self.story.folder}/own.json")
            self.done.append(name)
        return report

    def pods(self, namespace: str, name: str) -> dict[str, dict]:
        """The pods whose name starts so, by name, once all of them run and none is about to go."""

        def settled() -> dict[str, dict]:
            found = [pod for pod in self.story.get("pods", "-n", namespace) if pod["metadata"]["name"].startswith(name)]
            steady = all(pod["status"].get("podIP") and "deletionTimestamp" not in pod["metadata"] for pod in found)
            return {pod["metadata"]["name"]: pod for pod in found} if steady else {}

        return wait_for(f"{namespace}/{name} to run", settled)

    def addresses(self, namespace: str, name: str) -> dict[str, ipaddress.IPv4Address]:
        pods = self.pods(namespace, name)
        return {pod: ipaddress.ip_address(each["status"]["podIP"]) for pod, each in pods.items()}


@pytest.fixture(scope="module")
def reader():
    yield Reader(Story(ROOT / ".cache/guide"))
    kind.down()  # its pools are in the place of those that other stories declare


def lie_in(cidr, addresses, count):
    network = ipaddress.ip_network(cidr)
    return len(addresses) == count and all(address in network for address in addresses.values())


def test_a_reader_of_the_guide_gets_what_it_says(reader):
    reader.follow("engine.yml", "default-pool.yml", "pools.yml")

    reader.follow("pod.yml", "pod-address.yml")
    assert lie_in("10.244.128.0/20", reader.addresses("shop", "probe"), 1)

    reader.follow("deployment.yml")
    assert lie_in("10.244.128.0/20", reader.addresses("shop", "web-"), 2)

    reader.follow("namespace.yml", "pod-wins.yml")
    assert lie_in("10.244.128.0/20", reader.addresses("payments", "ledger"), 1)
    assert lie_in("10.244.0.0/17", reader.addresses("payments", "visitor"), 1)

    reader.follow("before.yml")
    before = reader.addresses("billing", "invoices-")
    assert lie_in("10.244.0.0/17", before, 2)
    reader.follow("too-late.yml")
    assert reader.addresses("billing", "invoices-") == before
    reader.follow("rollout.yml")
    after = reader.addresses("billing", "invoices-")
    assert lie_in("10.244.128.0/20", after, 2) and not before.keys() & after.keys()

    reader.follow("racks.yml")
    for name, pod in reader.pods("shop", "monitor-").items():
        pool = {"podnet-worker": "10.244.144.0/20", "podnet-worker2": "10.244.160.0/20"}[pod["spec"]["nodeName"]]
        assert lie_in(pool, {name: ipaddress.ip_address(pod["status"]["podIP"])}, 1)

    reader.follow("picture.yml")
    picture = (reader.story.folder / "addresses.svg").read_text()
    assert all(f": {node}, " in picture for node in RACKS), "the picture shows blocks of both nodes"

    report = reader.follow("declaration.yml")
    assert not report["tasks"], "the declaration at the end says what the steps before have made"
    assert reader.done == list(reader.playbooks), "every playbook of the guide was run, in its order"


def test_an_annotation_on_a_pod_that_runs_has_no_effect(reader):
    before = reader.addresses("payments", "ledger")
    reader.story.kubectl("annotate", "pod", "ledger", "-n", "payments", f'{V4}=["general"]')
    assert reader.addresses("payments", "ledger") == before


def test_the_drift_playbook_finds_what_the_guide_left_and_nothing_else(reader):
    [play] = yaml.safe_load(reader.playbooks["declaration.yml"])
    report = reader.story.folder / "drift.json"
    variables = {**play["roles"][0]["vars"], "drift_report": str(report), "drift_fail": False}
    (reader.story.folder / "variables.json").write_text(json.dumps(variables))
    reader.story.play_quietly(Path("podnet.ipam.drift"), "--extra-vars", f"@{reader.story.folder}/variables.json")
    found = json.loads(report.read_text())
    assert found["error"] is None and not any(found["operations"].values()) and not found["differences"]
    # Pods that run since before their nodes were in a rack, and the one whose annotation the test above changed.
    assert {each["check"] for each in found["findings"]} == {"stale"}
    assert "ledger" in [each["pod"] for each in found["findings"]]
