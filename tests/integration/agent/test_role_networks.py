# SPDX-License-Identifier: Apache-2.0
"""The CNI configurations that the role writes, given to the real main plugins and a real agent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.netns import exchange, kernel_has, namespace, run
from support.node_network import NodeNetwork
from support.plane import create_pool

ROLE = Path(__file__).resolve().parents[3] / "roles/cni_ipam"
SEGMENT = "seg0"
VARIABLES = {
    "ptp": {"cni_ipam_main_plugin": "ptp"},
    "bridge": {"cni_ipam_main_plugin": "bridge", "cni_ipam_subnets": ["10.77.0.0/16"], "cni_ipam_mtu": 1400},
    "macvlan": {
        "cni_ipam_main_plugin": "macvlan",
        "cni_ipam_master": SEGMENT,
        "cni_ipam_mode": "bridge",
        "cni_ipam_gateways": ["10.77.0.1"],
    },
    "ipvlan": {"cni_ipam_main_plugin": "ipvlan", "cni_ipam_master": SEGMENT, "cni_ipam_mode": "l3"},
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """{main plugin: the conflist that the role writes for it}."""
    folder = tmp_path_factory.mktemp("conflists")
    plays = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "vars_files": [str(ROLE / "defaults/main.yml"), str(ROLE / "vars/main.yml")],
            # Over what the files say.
            "tasks": [
                {
                    "podnet.ipam.node_files": {
                        "files": [{"path": str(folder / name), "content": "{{ cni_ipam_conflist_content }}"}]
                    },
                    "vars": variables,
                }
            ],
        }
        for name, variables in VARIABLES.items()
    ]
    (folder / "play.json").write_text(json.dumps(plays))
    command = [Path(sys.executable).parent / "ansible-playbook", "--connection=local", folder / "play.json"]
    environment = {**os.environ, "ANSIBLE_LOCALHOST_WARNING": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: json.loads((folder / name).read_text()) for name in VARIABLES}


@pytest.fixture
def netns():
    with ExitStack() as stack:
        yield lambda role: stack.enter_context(namespace(role))


@pytest.mark.parametrize("plugin", VARIABLES)
async def test_two_pods_reach_each_other_in_the_network_that_the_role_writes(
    written, client, start_node, netns, plugin
):
    if plugin == "ipvlan" and not kernel_has("ipvlan"):
        pytest.skip("this kernel has no ipvlan")
    await create_pool(client, "four", "10.77.0.0/24", blockSize=28)
    node = NodeNetwork(await start_node("node-1"), netns("node"))
    run("ip", "-n", node.netns, "link", "add", SEGMENT, "type", "veth", "peer", "name", "other")
    run("ip", "-n", node.netns, "link", "set", SEGMENT, "up")
    run("ip", "-n", node.netns, "link", "set", "other", "up")
    # Without portmap, which would write into the machine's own packet filter.
    node.configure("k8s-pod-network", written[plugin]["plugins"][0], written[plugin]["cniVersion"])
    pods = [netns("pod") for _number in range(2)]
    results = [await node.cni("add", "k8s-pod-network", pod) for pod in pods]
    one, two = (result["ips"][0]["address"].partition("/")[0] for result in results)
    assert exchange(*pods, two) == one


def test_host_ports_are_offered_where_packets_pass_through_the_node(written):
    types = {name: [plugin["type"] for plugin in conflist["plugins"]] for name, conflist in written.items()}
    assert types == {
        "ptp": ["ptp", "portmap"],
        "bridge": ["bridge", "portmap"],
        "macvlan": ["macvlan"],
        "ipvlan": ["ipvlan"],
    }
