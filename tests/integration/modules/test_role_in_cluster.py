# SPDX-License-Identifier: Apache-2.0
"""What the role cni_ipam does in the cluster: with the rights that it asks for, and once for however many hosts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from cluster.apiserver import ControlPlane
from support.cluster_objects import Objects

ROLE = Path(__file__).resolve().parents[3] / "roles/cni_ipam"
HOSTS, BATCH = 12, 4
INSTALLER = "installer"
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "users": ["admin"]}, {"level": "None"}],
}
HOST = {"node": "{{ inventory_hostname }}", "platform": "3.12-x86_64"}
PLAY = {
    "hosts": "all",
    "gather_facts": False,
    "serial": BATCH,
    "tasks": [
        {"ansible.builtin.set_fact": {"cni_ipam_host": HOST}},
        {
            "ansible.builtin.include_role": {"name": "podnet.ipam.cni_ipam", "tasks_from": "{{ item }}"},
            "loop": ["{{ tasks_from }}"],
        },
    ],
}


@pytest.fixture
def plane(tmp_path):
    """A cluster that has nodes and nothing of the collection, and writes down what the installer asks for."""
    policy = tmp_path / "policy.yml"
    policy.write_text(yaml.safe_dump(AUDIT))
    flags = [f"--audit-policy-file={policy}", f"--audit-log-path={tmp_path / 'audit.log'}"]
    with ControlPlane(apiserver_flags=flags) as plane:
        objects = Objects(plane)
        for number in range(HOSTS):
            objects.create("/api/v1/nodes", {"metadata": {"name": f"node-{number}"}})
        if not objects.exists("/api/v1/namespaces/kube-system"):
            objects.create("/api/v1/namespaces", {"metadata": {"name": "kube-system"}})
        certificate = {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": Path(plane.ca).read_text()}}
        objects.create("/api/v1/namespaces/kube-system/configmaps", certificate)
        yield plane


@pytest.fixture
def play(plane, tmp_path):
    """Run tasks of the role for all hosts as the installer; the exit status, and what was said."""

    def play(tasks_from, *arguments):
        file = tmp_path / f"{tasks_from}.yml"
        file.write_text(yaml.safe_dump([{**PLAY, "vars": {"tasks_from": tasks_from}}]))
        inventory = tmp_path / "hosts.yml"
        hosts = {f"node-{number}": {"ansible_connection": "local"} for number in range(HOSTS)}
        inventory.write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
        environment = {
            **os.environ,
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "K8S_AUTH_KUBECONFIG": str(plane.kubeconfig),
            "K8S_AUTH_IMPERSONATE_USER": INSTALLER,
        }
        command = [Path(sys.executable).with_name("ansible-playbook"), "--inventory", inventory, *arguments, file]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return play


@pytest.fixture
def grant(plane):
    """Give the installer rights, as rules of the role's variable `cni_ipam_access`."""

    def grant(access):
        rules = [
            {"apiGroups": [each.get("group", "")], "resources": each["resources"], "verbs": each["verbs"]}
            for each in access
        ]
        objects, rbac = Objects(plane), "/apis/rbac.authorization.k8s.io/v1"
        objects.create(f"{rbac}/clusterroles", {"metadata": {"name": INSTALLER}, "rules": rules})
        subject = {"kind": "User", "name": INSTALLER, "apiGroup": "rbac.authorization.k8s.io"}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": INSTALLER}
        binding = {"metadata": {"name": INSTALLER}, "roleRef": role, "subjects": [subject]}
        objects.create(f"{rbac}/clusterrolebindings", binding)

    return grant


@pytest.fixture
def access():
    return yaml.safe_load((ROLE / "vars/main.yml").read_text())["cni_ipam_access"]


def written(folder):
    """How often the installer wrote objects of each resource."""
    events = map(json.loads, (folder / "audit.log").read_text().splitlines())
    return Counter(
        event["objectRef"]["resource"]
        for event in events
        if event.get("impersonatedUser", {}).get("username") == INSTALLER
        and event["verb"] in ("create", "patch", "update", "delete")
        and event["responseStatus"]["code"] < 400
    )


def test_a_user_with_the_rights_that_are_asked_for_prepares_the_cluster_once_for_all_hosts(
    play, grant, access, plane, tmp_path
):
    grant(access)
    status, said = play("cluster")
    assert status == 0, said
    accounts = Objects(plane).names("/api/v1/namespaces/podnet-ipam/serviceaccounts")
    assert {f"podnet-ipam-agent-node-{number}" for number in range(HOSTS)} <= set(accounts)
    counts = written(tmp_path)
    assert (counts["customresourcedefinitions"], counts["namespaces"], counts["clusterroles"]) == (6, 1, 1)
    assert counts["validatingadmissionpolicies"] == 2
    assert counts["serviceaccounts"] == HOSTS


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["create", "escalate"])
def test_a_user_who_lacks_one_of_these_rights_cannot(play, grant, access, verb):
    less = [{**each, "verbs": [other for other in each["verbs"] if other != verb]} for each in access]
    grant([each for each in less if each["verbs"]])
    status, said = play("cluster", "--limit", "node-0")
    assert status != 0 and "forbidden" in said


def test_what_nodes_are_installed_from_is_made_once_for_all_hosts_of_a_kind(play, tmp_path):
    status, said = play("wheelhouse", "--check", "--extra-vars", f"cni_ipam_cache_dir={tmp_path / 'cache'}")
    batches = [task for task in said.split("\nTASK [") if "Make the archives" in task.partition("]")[0]]
    made = [batch for batch in batches if "\nchanged: " in batch]
    assert (status, len(batches), len(made)) == (0, HOSTS // BATCH, 1), said
