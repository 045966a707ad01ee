# SPDX-License-Identifier: Apache-2.0
"""What the role cni_ipam does in the cluster: with the rights that it asks for, and once for however many hosts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
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
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
PLAY = {
    "hosts": "all",
    "gather_facts": False,
    "serial": BATCH,
    "max_fail_percentage": 0,
    # Nodes are looked at elsewhere.
    "tasks": [{"ansible.builtin.set_fact": {"cni_ipam_host": HOST, "cni_ipam_findings": []}, "tags": ["always"]}],
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
        role = {"name": "podnet.ipam.cni_ipam", "tasks_from": tasks_from}
        tasks = [*PLAY["tasks"], {"ansible.builtin.import_role": role}]
        file.write_text(yaml.safe_dump([{**PLAY, "tasks": tasks}]))
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


def writes(folder):
    """The verb and the resource of each of the installer's writes, in their order."""
    for line in (folder / "audit.log").read_text().splitlines():
        event = json.loads(line)
        if (
            event.get("impersonatedUser", {}).get("username") == INSTALLER
            and event["verb"] in ("create", "patch", "update", "delete")
            and event["responseStatus"]["code"] < 400
        ):
            yield event["verb"], event.get("objectRef", {}).get("resource")


def written(folder):
    """How often the installer wrote objects of each resource."""
    return Counter(resource for _verb, resource in writes(folder))


def leases(folder):
    """What the installer did with Leases."""
    return [verb for verb, resource in writes(folder) if resource == "leases"]


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


@pytest.fixture
def cluster_part(play):
    """Run what the role does in the cluster, from the role's beginning to its end."""
    return lambda *arguments: play("main", "--tags", "cluster", *arguments)


def hold(plane, seconds_ago=0):
    """Take the role's Lease as somebody else."""
    objects = Objects(plane)
    renewed = (datetime.now(timezone.utc) - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": "bob@elsewhere, process 7", "leaseDurationSeconds": 240}
    spec = {**spec, "acquireTime": renewed, "renewTime": renewed}
    objects.create(LEASE, {"metadata": {"name": "podnet-ipam-role"}, "spec": spec})


def test_a_run_holds_its_lease_from_the_first_batch_of_hosts_to_the_last(cluster_part, grant, access, plane, tmp_path):
    grant(access)
    status, said = cluster_part()
    assert status == 0, said
    assert leases(tmp_path) == ["create", *["update"] * (HOSTS // BATCH - 1), "delete"]
    assert not Objects(plane).exists(f"{LEASE}/podnet-ipam-role")


def test_another_runs_lease_stops_a_run_before_it_changes_anything(cluster_part, grant, access, plane, tmp_path):
    grant(access)
    hold(plane)
    status, said = cluster_part()
    assert status != 0 and "is held by bob@elsewhere, process 7 since" in said
    assert not written(tmp_path)
    assert Objects(plane).exists(f"{LEASE}/podnet-ipam-role")


def test_a_lease_that_has_lapsed_stops_nobody(cluster_part, grant, access, plane):
    grant(access)
    hold(plane, seconds_ago=250)
    status, said = cluster_part("--limit", "node-0")
    assert status == 0, said
    assert not Objects(plane).exists(f"{LEASE}/podnet-ipam-role")


@pytest.mark.parametrize("limit", ["all", "node-0"])
def test_a_run_that_fails_stops_where_it_is_and_gives_its_lease_back(cluster_part, grant, access, limit, tmp_path):
    grant([each for each in access if each.get("group") != "admissionregistration.k8s.io"])
    status, said = cluster_part("--limit", limit)
    assert status != 0 and "validatingadmissionpolicies.admissionregistration.k8s.io" in said and "is forbidden" in said
    assert leases(tmp_path) == ["create", "delete"]


@pytest.mark.slow
def test_a_dry_run_needs_no_lease(cluster_part, grant, access, plane, tmp_path):
    grant(access)
    hold(plane)
    status, said = cluster_part("--check")
    assert status == 0, said
    assert leases(tmp_path) == []


@pytest.mark.slow
def test_of_two_runs_at_the_same_time_one_completes_and_the_other_one_completes_or_names_it(
    cluster_part, grant, access, plane
):
    grant(access)
    with ThreadPoolExecutor(2) as pool:
        outcomes = [each.result() for each in [pool.submit(cluster_part) for _operator in range(2)]]
    refused = [said for status, said in outcomes if status]
    assert len(refused) < 2, refused
    assert all("is held by" in said and "process" in said for said in refused), refused
    assert not Objects(plane).exists(f"{LEASE}/podnet-ipam-role")
