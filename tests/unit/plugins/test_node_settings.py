# SPDX-License-Identifier: Apache-2.0
"""Values of the role's variables that no node could use are told before anything changes, all at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.podnet.ipam.plugins.module_utils import _settings
from ansible_collections.podnet.ipam.plugins.modules import node_preflight
from support.netns import namespace, run

ROLE = Path(__file__).resolve().parents[3] / "roles/cni_ipam"
GOOD = {
    **{name: option.get("default") for name, option in node_preflight.OPTIONS.items()},
    "conflist": "10-podnet.conflist",
    "network": "k8s-pod-network",
}


@pytest.fixture
def interfaces(tmp_path):
    for name in ("eth0", "lo"):
        (tmp_path / name).mkdir()
    return tmp_path


def complaints(interfaces, **given):
    return _settings.complaints({**GOOD, **given}, interfaces)


def test_the_defaults_of_role_and_module_are_the_same_and_good(interfaces):
    role = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    shared = {name for name in node_preflight.OPTIONS if f"cni_ipam_{name}" in role} - {"conflist", "api_server"}
    assert {name: GOOD[name] for name in shared} == {name: role[f"cni_ipam_{name}"] for name in shared}
    assert complaints(interfaces) == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"cooldown": -1}, "cni_ipam_cooldown is -1; a number of seconds is expected, not below 0"),
        ({"spare_blocks": -2}, "cni_ipam_spare_blocks is -2; a number of blocks is expected, not below 0"),
        (
            {"token_lifetime": 599},
            "cni_ipam_token_lifetime is 599; 600 seconds are the least that the API server grants",
        ),
        (
            {"mtu": 1279, "families": ["IPv4", "IPv6"]},
            "cni_ipam_mtu is 1279; expected is 0 for the plugin's own, or 1280 to 65535 for IPv4 and IPv6",
        ),
        ({"families": []}, "cni_ipam_families is empty; pods need IPv4, IPv6 or both"),
        ({"gateways": ["10.0.0.1/24"]}, "cni_ipam_gateways has '10.0.0.1/24'; an address is expected"),
        ({"subnets": ["10.0.0.1/24"]}, "cni_ipam_subnets has '10.0.0.1/24'; a CIDR without host bits is expected"),
        (
            {"metrics": "0.0.0.0:9764"},
            "cni_ipam_metrics is '0.0.0.0:9764'; a loopback address with a port is expected: '127.0.0.1:9764',"
            " or an empty text for none",
        ),
        (
            {"network": "pod_network"},
            "cni_ipam_network_name is 'pod_network'; letters, digits, '-' and '.' are allowed, as it becomes a part of"
            " objects' names",
        ),
        (
            {"conflist": "10-podnet.conf"},
            "cni_ipam_conflist is '10-podnet.conf'; the name of a file in /etc/cni/net.d that ends in .conflist is"
            " expected",
        ),
        ({"bin_dir": "bin"}, "cni_ipam_bin_dir is 'bin'; an absolute path is expected"),
        (
            {"main_plugin": "bridge", "bridge": "a-name-that-is-too-long"},
            "cni_ipam_bridge is 'a-name-that-is-too-long'; the name of a network interface is expected: 15 characters"
            " at most, none of them '/', ':' or a space, and not '.' or '..'",
        ),
        ({"main_plugin": "ipvlan", "mode": "bridge"}, "cni_ipam_mode is 'bridge'; ipvlan has l2, l3, l3s"),
        (
            {"main_plugin": "macvlan", "master": "eth9"},
            "cni_ipam_master is 'eth9', and the node has no such interface; it has eth0, lo",
        ),
        (
            {"main_plugin": "macvlan", "master": ".."},
            "cni_ipam_master is '..', and the node has no such interface; it has eth0, lo",
        ),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)
def test_a_value_that_no_node_could_use_is_told_with_what_would_be_right(interfaces, given, told):
    assert complaints(interfaces, **given) == [told]


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "a:b", "sixteen-letters-"])
def test_what_the_kernel_takes_for_no_name_is_no_name_of_a_bridge(interfaces, name):
    [told] = complaints(interfaces, main_plugin="bridge", bridge=name)
    assert told.startswith(f"cni_ipam_bridge is {name!r}; ")


def test_all_bad_values_are_told_at_once(interfaces):
    assert len(complaints(interfaces, cooldown=-1, gateways=["here", "there"], metrics="all")) == 4


@pytest.mark.parametrize(
    "given",
    [
        {"main_plugin": "macvlan", "mode": "vepa", "master": "eth0", "gateways": ["10.0.0.1", "fd00::1"]},
        {"main_plugin": "ipvlan", "mode": "l3s", "subnets": ["10.0.0.0/8"], "families": ["IPv6"], "mtu": 1280},
        {"main_plugin": "ptp", "mode": "any", "master": "gone", "bridge": "used by bridge alone"},
        {"main_plugin": "calico", "conflist": "10-calico.conf"},
        {"main_plugin": "none", "conflist": ""},
        {"cooldown": 0, "metrics": "[::1]:9764", "token_lifetime": 600, "mtu": 68},
    ],
    ids=str,
)
def test_values_that_a_node_can_use_or_that_its_main_plugin_does_not_use_are_no_findings(interfaces, given):
    assert complaints(interfaces, **given) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces")
@pytest.mark.parametrize("name", ["uplink", "an-alternative-name-of-any-length"])
def test_an_interface_is_there_under_its_alternative_names_too(name):
    given = {**GOOD, "main_plugin": "macvlan", "master": name}
    program = f"from {_settings.__name__} import complaints; print(complaints({given!r}))"
    with namespace("node") as node:
        run("ip", "-n", node, "link", "add", "eth7", "type", "veth", "peer", "name", "other")
        run("ip", "-n", node, "link", "property", "add", "dev", "eth7", "altname", name)
        assert run("ip", "netns", "exec", node, sys.executable, "-c", program) == "[]\n"
