# SPDX-License-Identifier: Apache-2.0
"""The modules as an operator runs them: one playbook, ansible-playbook, the action group's defaults."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

TASKS = """
- hosts: localhost
  gather_facts: false
  module_defaults:
    group/podnet.ipam.ipam:
      kubeconfig: KUBECONFIG_PATH
  tasks:
    - name: Pools
      podnet.ipam.ip_pools:
        pools:
          - name: rack-1
            cidr: 10.244.0.0/18
            node_selector: rack == '1'
          - name: payments
            cidr: 10.244.64.0/24
            assignment_mode: Manual
    - name: Namespaces
      podnet.ipam.namespace_pools:
        namespaces:
          - name: NAMESPACE
            ipv4_pools: [payments]
    - name: Workloads
      podnet.ipam.workload_pools:
        workloads:
          - kind: Deployment
            namespace: NAMESPACE
            name: web
            ipv4_pools: [rack-1]
    - name: Look
      podnet.ipam.ipam_info:
      register: ipam
    - name: Show
      ansible.builtin.debug:
        msg: "pools: {{ ipam.pools | map(attribute='name') | join(', ') }}"
"""


@pytest.fixture
def playbook(cluster):
    """Run the playbook; its output, and how many tasks changed something."""
    namespace = cluster.create_namespace()
    cluster.create_workload("Deployment", namespace, "web")
    file = cluster.folder / "playbook.yml"
    file.write_text(TASKS.replace("KUBECONFIG_PATH", str(cluster.plane.kubeconfig)).replace("NAMESPACE", namespace))

    def run(*flags):
        done = subprocess.run(
            [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", "-c", "local", *flags, file],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(cluster.folder),
                "LC_ALL": "C.UTF-8",
                "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
                "ANSIBLE_NOCOLOR": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout, int(done.stdout.rpartition("changed=")[2].split()[0])

    run.namespace = namespace
    return run


def test_a_playbook_predicts_writes_corrects_drift_and_then_changes_nothing(cluster, playbook):
    assert playbook()[1] == 3
    output, changed = playbook()
    assert changed == 0 and "pools: payments, rack-1" in output

    cluster.objects.patch(cluster.path("ippools", "rack-1"), {"spec": {"nodeSelector": "all()"}})
    path = f"/api/v1/namespaces/{playbook.namespace}"
    cluster.objects.patch(path, {"metadata": {"annotations": {"cni.projectcalico.org/ipv4pools": None}}})
    versions = cluster.versions()
    output, changed = playbook("--check", "--diff")
    assert changed == 2 and cluster.versions() == versions
    removed = [line.strip("-+ ,") for line in output.splitlines() if line.startswith("-")]
    added = [line.strip("-+ ,") for line in output.splitlines() if line.startswith("+") and not line.startswith("+++")]
    assert [line for line in removed if line.startswith('"')] == ['"node_selector": "all()"', '"ipv4_pools": null']
    assert '"node_selector": "rack == \'1\'"' in added

    assert playbook()[1] == 2
    assert playbook()[1] == 0


def test_examples_in_the_documentation_are_valid_tasks(cluster):
    modules = (
        "ip_pools",
        "ip_reservations",
        "ipam_config",
        "namespace_pools",
        "workload_pools",
        "ipam_info",
    )
    tasks = []
    for module in modules:
        done = subprocess.run(
            [Path(sys.executable).with_name("ansible-doc"), "--json", "-t", "module", f"podnet.ipam.{module}"],
            env={"PATH": os.environ["PATH"], "HOME": str(cluster.folder), "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            check=True,
        )
        doc = json.loads(done.stdout)[f"podnet.ipam.{module}"]
        assert doc["return"] and doc["doc"]["attributes"]["action_group"]["membership"] == ["podnet.ipam.ipam"]
        tasks += yaml.safe_load(doc["examples"])
    file = cluster.folder / "examples.yml"
    file.write_text(yaml.safe_dump([{"hosts": "localhost", "tasks": tasks}]))
    subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", "--syntax-check", file],
        env={"PATH": os.environ["PATH"], "HOME": str(cluster.folder), "LC_ALL": "C.UTF-8"},
        check=True,
        capture_output=True,
    )
