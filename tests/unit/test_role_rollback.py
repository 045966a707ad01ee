# SPDX-License-Identifier: Apache-2.0
"""What the role makes of a node on which a step fails, and what it says.

The role's own tasks run, with the modules for files; the paths that it writes to lie below a folder of the test's.
Modules that ask an API server or an agent are replaced by one that notes what it is asked and answers as a test wants.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

COLLECTION = Path(__file__).resolve().parents[2]
FORMER, NEW = "a" * 16, "b" * 16
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
ELSEWHERE = ("lease", "manifests", "node_probe", "node_release", "ipam_info", "service_account_tokens")
# Without `AnsibleModule`, so that it takes whatever options a task gives; Ansible looks for the word WANT_JSON.
MODULE = """#!/usr/bin/python
# WANT_JSON
import json, sys
from pathlib import Path

ROOT, NAME = Path({root!r}), {name!r}
given = json.loads(Path(sys.argv[1]).read_text())
with (ROOT / "asked.jsonl").open("a") as asked:
    asked.write(json.dumps(dict(given, module=NAME)) + "\\n")
answers = json.loads((ROOT / "answers.json").read_text())
resources = [dict(each, **answers.get(each["kind"], {{}})) for each in given.get("manifests", [])]
calls = [NAME, f"{{NAME}} {{given.get('executable')}}", *[each["kind"] for each in resources]]
broken = [each for each in answers["broken"] if each in calls]
answer = {{"changed": False, "resources": resources, "tokens": [], "engine": "podnet", "addresses": ["192.0.2.9"]}}
print(json.dumps({{"failed": True, "msg": f"{{broken[0]}} is broken"}} if broken else answer))
"""
SYSTEMCTL = """#!/bin/sh
echo "$*" >> {root}/systemctl
case $1 in
  show) echo LoadState=loaded; echo ActiveState=active ;;
  start|restart) ! grep --quiet --line-regexp "$1 $2" {root}/systemctl-fails ;;
esac
"""


class Nodes:
    """Hosts of a play, each with folders of its own, all of them on this machine."""

    def __init__(self, root, *names):
        self.root, self.variables = root, {}
        self.answers = {"broken": [], "ConfigMap": {"data": {"ca.crt": "certificate"}}}
        role = root / "ansible_collections/podnet/ipam/roles/cni_ipam"
        shutil.copytree(COLLECTION / "roles/cni_ipam", role)
        for file in [*role.glob("*/*.yml")]:
            paths = r"""(?<=[\s'"\[])/(?=(etc/systemd|etc/sysctl.d|var/lib|run|usr/local/bin|proc/sys)/)"""
            file.write_text(re.sub(paths, f"{root}/", file.read_text()))
        modules = role.parents[1] / "plugins/modules"
        shutil.copytree(COLLECTION / "plugins", modules.parent, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(COLLECTION / "meta", role.parents[1] / "meta")
        for name in ELSEWHERE:
            (modules / f"{name}.py").write_text(MODULE.format(root=str(root), name=name))
        for folder in ("bin", "etc/systemd/system", "etc/sysctl.d", "usr/local/bin", "run", "var/lib"):
            (root / folder).mkdir(parents=True)
        for name in ("journalctl", "ip", "sysctl"):
            self.executable(name, "#!/bin/sh\n")
        self.executable("systemctl", SYSTEMCTL.format(root=root))
        (root / "systemctl-fails").touch()
        for sysctl in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
            self.write(root / "proc/sys" / sysctl, "1\n")
        for name in names:
            self.add(name)

    def executable(self, name, text):
        (self.root / "bin" / name).write_text(text)
        (self.root / "bin" / name).chmod(0o755)

    def write(self, path, text=""):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def add(self, name):
        """A node with a runtime, on which the new version lies ready."""
        folders = {each: str(self.root / name / each) for each in ("install_dir", "config_dir", "bin_dir", "net_dir")}
        self.variables[name] = {f"cni_ipam_{each}": path for each, path in folders.items()}
        for each in ("bin_dir", "net_dir"):
            (self.root / name / each).mkdir(parents=True)
        version = self.root / name / "install_dir" / NEW
        self.write(version / ".complete")
        self.write(version / f"lib/python{PYTHON}/site-packages/podnet_ipam/agent/bin/podnet-ipam", "executable")

    def play(self, *arguments, **variables):
        """Run the role for all hosts as one batch; the exit status, and what was said."""
        archive = {"version": NEW, "path": "", "script": False}
        common = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "ansible_facts": {},
            "cni_ipam_findings": [],
            "cni_ipam_api_url": "https://192.0.2.1",
            "cni_ipam_archives": {f"{PYTHON}-{os.uname().machine}": archive},
            "cni_ipam_replace_network": True,
            **variables,
        }
        (self.root / "answers.json").write_text(json.dumps(self.answers))
        inventory = self.root / "inventory.json"
        inventory.write_text(json.dumps({"all": {"vars": common, "hosts": self.variables}}))
        play = self.root / "play.yml"
        # As in podnet.ipam.deploy: a role that a task imports has its blocks in another one, where rescues differ.
        role = {"hosts": "all", "gather_facts": False, "max_fail_percentage": 0, "roles": ["podnet.ipam.cni_ipam"]}
        play.write_text(yaml.safe_dump([role]))
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(self.root),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
        }
        command = [Path(sys.executable).with_name("ansible-playbook"), "--inventory", inventory, *arguments, play]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def asked(self, module):
        """The options that a module was called with, one after the other."""
        lines = (self.root / "asked.jsonl").read_text().splitlines()
        return [call for call in map(json.loads, lines) if call["module"] == module]

    def files(self, name, *folders):
        """{path below the node's folder: the text, or the target of a link} of what lies in some folders."""
        here = self.root / name
        found = [
            path
            for folder in folders
            for path in sorted((here / folder).glob("*"))
            if path.is_symlink() or not path.is_dir()
        ]
        return {
            str(path.relative_to(here)): path.readlink().name if path.is_symlink() else path.read_text()
            for path in found
        }


@pytest.fixture
def nodes(tmp_path):
    return Nodes(tmp_path, "a")


def install_former(nodes, name="a", conflist="10-podnet.conflist"):
    """Give a node another version, as an earlier run did."""
    here = nodes.root / name
    (here / "install_dir" / FORMER).mkdir()
    (here / "install_dir/current").symlink_to(FORMER)
    nodes.write(here / "bin_dir/podnet-ipam", "former executable")
    for folder in ("config_dir", "net_dir") if conflist else ():
        nodes.write(here / folder / conflist, "former network")


def let_no_pod_start(nodes):
    """Have the pod that is tried out after an installation wait for its image."""
    waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image pause"}
    nodes.answers["Pod"] = {"status": {"phase": "Pending", "containerStatuses": [{"state": {"waiting": waiting}}]}}


NETWORK = ("net_dir", "bin_dir", "config_dir/displaced")


@pytest.mark.parametrize(("conflist", "kept"), [("10-podnet.conflist", "from long ago"), (None, None)])
def test_a_failed_upgrade_gives_the_configuration_back_that_it_had_set_aside(nodes, conflist, kept):
    install_former(nodes, conflist=conflist)
    nodes.write(nodes.root / "a/net_dir/05-other.conflist", "theirs")
    if kept:
        nodes.write(nodes.root / "a/config_dir/displaced/05-other.conflist", kept)
    before = nodes.files("a", *NETWORK)
    let_no_pod_start(nodes)
    status, said = nodes.play(cni_ipam_test_image="pause", cni_ipam_test_seconds=0)
    assert status != 0 and f"The node is back on version {FORMER}." in said, said
    assert nodes.files("a", *NETWORK) == before


@pytest.mark.slow
def test_a_failed_first_installation_leaves_the_node_as_it_was(nodes):
    nodes.write(nodes.root / "a/net_dir/05-other.conflist", "theirs")
    let_no_pod_start(nodes)
    status, said = nodes.play("--tags=node", cni_ipam_test_image="pause", cni_ipam_test_seconds=0)
    assert status != 0 and "What was installed is removed again." in said, said
    assert nodes.files("a", *NETWORK, "config_dir", "install_dir") == {"net_dir/05-other.conflist": "theirs"}


@pytest.mark.slow
@pytest.mark.parametrize("theirs", [None, "Calico's"])
def test_a_failed_upgrade_gives_the_place_of_calicos_plugin_back(nodes, theirs):
    install_former(nodes)
    if theirs:
        nodes.write(nodes.root / "a/bin_dir/calico-ipam", theirs)
    before = nodes.files("a", *NETWORK)
    let_no_pod_start(nodes)
    status, said = nodes.play(cni_ipam_main_plugin="calico", cni_ipam_test_image="pause", cni_ipam_test_seconds=0)
    assert status != 0 and f"The node is back on version {FORMER}." in said, said
    assert nodes.files("a", *NETWORK) == before


def test_a_failed_upgrade_says_what_keeps_a_pod_from_starting(nodes):
    install_former(nodes)
    let_no_pod_start(nodes)
    status, said = nodes.play(cni_ipam_test_image="pause", cni_ipam_test_seconds=2)
    assert status != 0 and re.search(
        r"a: task 'Have a pod that has started' failed: Pod podnet-ipam/podnet-ipam-test-\w+ of image pause did not "
        r"start on node a within 2 s: phase Pending; ImagePullBackOff; Back-off pulling image pause\. ",
        said,
    ), said
    assert [call.get("state") for call in nodes.asked("manifests") if call["manifests"][0]["kind"] == "Pod"][
        -1
    ] == "absent"


@pytest.mark.slow
def test_a_pod_that_runs_completes_an_installation(nodes):
    install_former(nodes)
    nodes.answers["Pod"] = {"status": {"phase": "Running", "podIP": "192.0.2.9"}}
    status, said = nodes.play(cni_ipam_test_image="pause", cni_ipam_test_seconds=5)
    assert status == 0, said
    assert nodes.files("a", "install_dir")["install_dir/current"] == NEW


def test_an_agent_that_does_not_start_is_named_as_what_failed(nodes):
    install_former(nodes)
    (nodes.root / "systemctl-fails").write_text("restart podnet-ipam.service\n")
    status, said = nodes.play()
    assert status != 0 and "a: task 'Restart the agent" in said and "is back on version" in said, said


def test_a_node_that_cannot_be_put_back_keeps_no_other_one_from_it(nodes):
    nodes.add("b")
    for name in "ab":
        install_former(nodes, name)
    nodes.answers["broken"] = [f"node_probe {nodes.root}/a/bin_dir/podnet-ipam"]
    let_no_pod_start(nodes)
    status, said = nodes.play(cni_ipam_test_image="pause", cni_ipam_test_seconds=0)
    assert status != 0, said
    [of_a] = re.findall(r"fatal: \[a\].* task 'Ask for an address, .*' failed: node_probe .* is broken .*", said)
    [of_b] = re.findall(r"fatal: \[b\].* task 'Have a pod that has started' failed: .*", said)
    assert "The node could not be put back, either: task 'Ask for an address, " in of_a
    assert f"The node is back on version {FORMER}." in of_b
    assert all(nodes.files(name, "install_dir")["install_dir/current"] == FORMER for name in "ab")


def test_what_fails_in_the_cluster_is_reported_for_each_host_and_ends_the_play(nodes):
    nodes.add("b")
    nodes.answers["broken"] = ["IPAMConfig"]
    status, said = nodes.play()
    reports = said.split("TASK [podnet.ipam.cni_ipam : Report the failure]")[1]
    assert status != 0 and all(
        f"{name}: task 'Have a cluster that is prepared' failed: IPAMConfig is broken" in reports for name in "ab"
    )
    written = [each["kind"] for call in nodes.asked("manifests") for each in call["manifests"]]
    assert written[-1] == "IPAMConfig" and nodes.asked("lease")[-1]["state"] == "absent"


def test_a_node_that_could_not_be_removed_keeps_its_account(nodes):
    nodes.add("b")
    for name in "ab":
        install_former(nodes, name)
    nodes.write(nodes.root / "a/config_dir/displaced/05-other.conflist", "theirs")
    shutil.rmtree(nodes.root / "a/net_dir")
    status, said = nodes.play(cni_ipam_state="absent")
    assert status != 0 and "a: task 'Give the former configurations back to the runtime' failed" in said, said
    written = [each for call in nodes.asked("manifests") for each in call["manifests"]]
    assert {each["metadata"]["name"] for each in written if each["kind"] == "Node"} == {"b"}
    assert {each["metadata"]["name"] for each in written if each["kind"] == "ServiceAccount"} == {"podnet-ipam-agent-b"}


@pytest.mark.slow
@pytest.mark.parametrize(("others", "left"), [(("20-mine.conflist",), False), (("99-loopback.conf",), True)])
def test_the_roles_configuration_goes_when_another_one_can_take_over(nodes, others, left):
    install_former(nodes)
    for name in others:
        nodes.write(nodes.root / "a/net_dir" / name, "theirs")
    status, said = nodes.play(cni_ipam_main_plugin="none")
    assert status == 0, said
    names = set(nodes.files("a", "net_dir", "config_dir"))
    assert {"net_dir/10-podnet.conflist" in names, "config_dir/10-podnet.conflist" in names} == {left}
    assert ("which stays in force although cni_ipam_main_plugin is none" in said) == left


@pytest.mark.slow
@pytest.mark.parametrize("forwards", ["1\n", "0\n"])
def test_forwarding_is_kept_on_over_a_restart_of_the_node_whoever_switched_it_on(nodes, forwards):
    nodes.write(nodes.root / "proc/sys/net/ipv4/ip_forward", forwards)
    status, said = nodes.play()
    assert status == 0, said
    assert "net.ipv4.ip_forward = 1" in (nodes.root / "etc/sysctl.d/60-podnet-ipam.conf").read_text()
