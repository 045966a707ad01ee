# SPDX-License-Identifier: Apache-2.0
"""What the role puts onto a node that nothing compiled is wanted for, and what the play says of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cluster.paths import cache_folder

# The role's own steps; the node is this machine, with folders of the test's.
PLAY = [
    {
        "hosts": "node",
        "gather_facts": False,
        "vars": {"cni_ipam_cache_dir": str(cache_folder("cross-wheelhouse")), "cni_ipam_present": {"files": {}}},
        "tasks": [
            {"include_role": {"name": "podnet.ipam.cni_ipam", "tasks_from": step}}
            for step in ("facts", "wheelhouse", "install")
        ],
    }
]


@pytest.mark.slow
def test_a_node_gets_python_alone_and_the_play_says_what_it_costs(tmp_path):
    # A Python of which the wheel cannot know where it is.
    python = tmp_path / "python3"
    python.symlink_to(sys.executable)
    node = {
        "ansible_connection": "local",
        "ansible_python_interpreter": str(python),
        "cni_ipam_pure": True,
        "cni_ipam_install_dir": str(tmp_path / "installed"),
    }
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump({"all": {"hosts": {"node": node}}}))
    (tmp_path / "play.yml").write_text(yaml.safe_dump(PLAY))
    ansible = [Path(sys.executable).with_name("ansible-playbook"), "--inventory", tmp_path / "inventory.yml"]
    done = subprocess.run([*ansible, tmp_path / "play.yml"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "on any machine get the plugin in Python alone: each call of the CNI executable starts" in done.stdout
    assert "on any machine do without msgspec: a block of 10 kB is read in 50 us" in done.stdout
    [shim] = (tmp_path / "installed").glob("*/lib/python3*/site-packages/podnet_ipam/agent/bin/podnet-ipam")
    assert shim.read_text().startswith(f"#!{python} -IS\n") and os.access(shim, os.X_OK)
    answer = subprocess.run([shim], env={"CNI_COMMAND": "VERSION"}, capture_output=True, check=True)
    assert "1.0.0" in json.loads(answer.stdout)["supportedVersions"]
    assert not list((tmp_path / "installed").rglob("*.so"))
