# SPDX-License-Identifier: Apache-2.0
"""How far the deploy playbook goes when nodes are lost on the way. What it does on a node stands elsewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "playbooks/deploy.yml"
# A node that answers no more.
LOST = """
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import ConnectionBase

class Connection(ConnectionBase):
    transport = "lost"

    def _connect(self, *arguments, **options):
        raise AnsibleConnectionFailure("no route to host")

    exec_command = put_file = fetch_file = close = _connect
"""
LOST_LATER = {"ansible_connection": "lost"}
VISIT = {"name": "Visit the node", "ansible.builtin.raw": "true", "tags": ["node"]}


@pytest.fixture
def roll_out(tmp_path):
    """Run the playbook with a visit in place of the role; exit status, nodes that were visited, what was said."""
    (tmp_path / "connection_plugins").mkdir()
    (tmp_path / "connection_plugins/lost.py").write_text(LOST)
    look, install = yaml.safe_load(DEPLOY.read_text())
    look["tasks"] = [{"ansible.builtin.raw": "true", "vars": {"ansible_connection": "{{ first | default('local') }}"}}]
    install["tasks"] = [VISIT]
    del install["roles"]
    for play in look, install:
        play["become"] = False
    (tmp_path / "play.json").write_text(json.dumps([look, install]))

    def roll_out(*arguments, **nodes):
        hosts = {name.replace("_", "-"): {"ansible_connection": "local", **node} for name, node in nodes.items()}
        (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"k8s_nodes": {"hosts": hosts}}))
        command = [Path(sys.executable).with_name("ansible-playbook"), "-i", tmp_path / "hosts.yml"]
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1"}
        done = subprocess.run(
            [*command, "-e", "cni_ipam_batch=2", *arguments, tmp_path / "play.json"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout + done.stderr
        visits = said.split("PLAY [Install the CNI IPAM plugin]", 1)[-1] if "PLAY [Install" in said else ""
        return done.returncode, re.findall(r"(?m)^changed: \[(.*?)\]", visits), said

    return roll_out


@pytest.mark.parametrize("arguments", [(), ("--tags=node",)])
def test_a_node_that_is_lost_stops_it_at_the_end_of_its_batch(roll_out, arguments):
    status, visited, said = roll_out(*arguments, node_1=LOST_LATER, node_2={}, node_3={}, node_4={})
    assert status != 0 and visited == ["node-2"]
    assert "could not be reached any more: node-1. " in said


def test_a_node_that_is_lost_before_the_first_change_stops_it_before_that(roll_out):
    status, visited, _said = roll_out(node_1={"first": "lost"}, node_2={}, node_3={})
    assert status != 0 and visited == []


def test_nodes_that_are_left_out_are_not_lost(roll_out):
    status, visited, said = roll_out("--limit=node-2,node-3,node-4", node_1=LOST_LATER, node_2={}, node_3={}, node_4={})
    assert (status, sorted(visited)) == (0, ["node-2", "node-3", "node-4"]), said
