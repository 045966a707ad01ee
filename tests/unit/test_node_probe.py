# SPDX-License-Identifier: Apache-2.0
"""The module node_probe: whether an IPAM plugin gives an address, and takes it back whatever happens."""

from __future__ import annotations

import json
import sys

import pytest
from support.modules import run_module

# Stands in for the plugin, which is probed for real where the role runs: only so can each of its calls fail.
PLUGIN = """\
#!{python}
import json, os, sys
verb = os.environ["CNI_COMMAND"]
config = {{}} if verb == "VERSION" else json.load(sys.stdin)
with open("{log}", "a") as log:
    log.write(json.dumps([verb, os.environ["CNI_CONTAINERID"], "prevResult" in config]) + "\\n")
status, answer = json.loads({answers!r})[verb]
print(answer if isinstance(answer, str) else json.dumps(answer))
sys.exit(status)
"""
CONFIG = {"cniVersion": "1.0.0", "name": "k8s-pod-network", "type": "ptp", "ipam": {"type": "podnet-ipam"}}
GOOD = {
    "VERSION": [0, {"cniVersion": "1.0.0", "supportedVersions": ["0.4.0", "1.0.0"]}],
    "ADD": [0, {"cniVersion": "1.0.0", "ips": [{"address": "10.244.1.7/32"}]}],
    "CHECK": [0, ""],
    "DEL": [0, ""],
}


@pytest.fixture
def probe(tmp_path):
    """Probe a plugin with these answers; the module's result, with the plugin's calls as `calls`."""
    log, program = tmp_path / "log", tmp_path / "podnet-ipam"

    def probe(_ansible_check_mode=False, version=CONFIG["cniVersion"], **answers):
        text = PLUGIN.format(python=sys.executable, log=log, answers=json.dumps({**GOOD, **answers}))
        program.write_text(text)
        program.chmod(0o755)
        config = {**CONFIG, "cniVersion": version}
        options = {"executable": str(program), "config": config, "container_id": "probe"}
        result = run_module("node_probe", _ansible_check_mode=_ansible_check_mode, **options)
        calls = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return {**result, "calls": [verb for verb, _container, _result in calls], "log": calls}

    return probe


def test_a_plugin_that_gives_addresses_is_asked_for_one_and_gets_it_back(probe):
    proved = probe()
    assert not proved.get("failed") and not proved["changed"]
    assert (proved["addresses"], proved["refused"], proved["versions"]) == (["10.244.1.7/32"], "", ["0.4.0", "1.0.0"])
    assert proved["log"] == [
        ["VERSION", "probe", False],
        ["ADD", "probe", False],
        ["CHECK", "probe", True],
        ["DEL", "probe", False],
    ]


def test_that_no_pool_serves_the_node_is_told_and_is_no_failure(probe):
    told = probe(ADD=[1, {"code": 7, "msg": "no pool", "details": "none selects node-1", "reason": "NoPool"}])
    assert not told.get("failed")
    assert (told["addresses"], told["refused"]) == ([], "no pool: none selects node-1")
    assert told["calls"] == ["VERSION", "ADD", "DEL"]


def test_a_configuration_that_is_wrong_is_a_failure_although_it_has_the_same_code(probe):
    failed = probe(ADD=[1, {"code": 7, "msg": "ipam.gateway: 192.0.2.1 does not lie in 10.244.1.0/24"}])
    assert failed["failed"] and "192.0.2.1 does not lie in" in failed["msg"]
    assert failed["calls"][-1] == "DEL"


@pytest.mark.parametrize("code", [7, 11])
def test_an_address_that_is_not_held_is_a_failure_and_is_given_back_all_the_same(probe, code):
    failed = probe(CHECK=[1, {"code": code, "msg": "10.244.1.7 is not held"}])
    assert failed["failed"] and "CNI CHECK: exit status 1: 10.244.1.7 is not held" in failed["msg"]
    assert failed["calls"][-1] == "DEL"


def test_an_agent_that_gives_none_is_a_failure_with_its_reason(probe):
    failed = probe(ADD=[1, {"code": 11, "msg": "the agent is away"}])
    assert failed["failed"] and "CNI ADD: exit status 1: the agent is away" in failed["msg"]
    assert failed["calls"][-1] == "DEL"


def test_what_failed_first_is_told_also_when_nothing_can_be_given_back(probe):
    failed = probe(ADD=[1, {"code": 11, "msg": "no address"}], DEL=[1, {"code": 11, "msg": "no release"}])
    assert "no address" in failed["msg"] and "no release" in failed["msg"]


@pytest.mark.parametrize("answer", [[1, "Segmentation fault"], [0, "what?"]])
def test_an_answer_that_is_none_is_shown(probe, answer):
    failed = probe(ADD=answer)
    assert failed["failed"] and answer[1] in failed["msg"]


def test_a_version_that_the_plugin_does_not_support_is_named_before_an_address_is_asked_for(probe):
    failed = probe(version="2.0.0")
    assert failed["failed"] and "0.4.0, 1.0.0, not 2.0.0" in failed["msg"]
    assert failed["calls"] == ["VERSION"]


def test_an_executable_that_is_not_there_is_named(tmp_path):
    options = {"executable": str(tmp_path / "none"), "config": CONFIG, "container_id": "probe"}
    failed = run_module("node_probe", **options)
    assert failed["failed"] and str(tmp_path / "none") in failed["msg"]
    assert not run_module("node_probe", _ansible_check_mode=True, **options).get("failed")


def test_a_dry_run_asks_for_no_address(probe):
    assert probe(_ansible_check_mode=True)["calls"] == ["VERSION"]
