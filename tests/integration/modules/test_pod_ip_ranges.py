# SPDX-License-Identifier: Apache-2.0
"""The role pod_ip_ranges and the playbooks site and drift, as an operator runs them, on a cluster of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.cluster_objects import GROUPS, Objects, install
from support.controllers import Controllers
from support.faulty_proxy import Fault, FaultyProxy

from .conftest import emptied, record_pod_cidrs

README = Path(__file__).resolve().parents[3] / "roles/pod_ip_ranges/README.md"
EVERY_KIND = ("ippools", "ipreservations", "ipamconfigs", "ipamblocks", "blockaffinities", "ipamhandles")
V4 = "cni.projectcalico.org/ipv4pools"
OWNED = {"app.kubernetes.io/managed-by": "podnet.ipam"}
PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - block:
        - ansible.builtin.include_role:
            name: podnet.ipam.pod_ip_ranges
      always:
        - ansible.builtin.copy:
            content: "{{ pod_ip_ranges_result | default({}) | to_json }}"
            dest: RESULT
            mode: "0644"
          check_mode: false
          diff: false
          changed_when: false
"""


class Site:
    """A cluster with the namespaces `payments` and `shop` and a Deployment in each, and playbooks run against it."""

    def __init__(self, cluster):
        self.cluster, self.objects, self.folder = cluster, cluster.objects, cluster.folder
        for kind in EVERY_KIND:
            for name in self.objects.names(cluster.path(kind)):
                self.objects.delete(cluster.path(kind, name))
        for namespace, name in (("payments", "settlement"), ("shop", "web")):
            self._namespace(namespace)
            for collection in (
                f"/apis/apps/v1/namespaces/{namespace}/replicasets",
                f"/api/v1/namespaces/{namespace}/pods",
            ):
                for left in self.objects.names(collection):
                    self.objects.delete(f"{collection}/{left}")
            self._deployment(namespace, name)

    def _namespace(self, name):
        path = f"/api/v1/namespaces/{name}"
        if not self.objects.exists(path):
            self.objects.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": {"site": "yes"}}})
        self.assign(name, None)

    def _deployment(self, namespace, name):
        collection = f"/apis/apps/v1/namespaces/{namespace}/deployments"
        if self.objects.exists(f"{collection}/{name}"):
            self.objects.delete(f"{collection}/{name}")
        self.cluster.create_workload("Deployment", namespace, name)

    def assign(self, namespace, text):
        """Write the annotation of a namespace as somebody else would."""
        patch = {"metadata": {"annotations": {V4: text}}}
        self.objects.patch(f"/api/v1/namespaces/{namespace}", patch)

    def create(self, kind, name, spec, **labels):
        """An object of Calico's kinds, with the label of this collection unless it gets others."""
        path = self.cluster.path(f"{kind.lower()}s")
        metadata = {"name": name, "labels": labels or OWNED}
        self.objects.create(path, {"apiVersion": self.cluster.group, "kind": kind, "metadata": metadata, "spec": spec})

    def create_declared_pools(self, **labels):
        self.create("IPPool", "rack-1", {"cidr": "10.244.0.0/18", "nodeSelector": "rack == '1'"}, **labels)
        self.create("IPPool", "payments", {"cidr": "10.244.64.0/24", "assignmentMode": "Manual"})
        self.create("IPPool", "firewall", {"cidr": "10.244.65.0/24", "assignmentMode": "Manual"})

    def versions(self):
        paths = [self.cluster.path(kind) for kind in EVERY_KIND]
        return self.objects.versions([*paths, "/api/v1/namespaces", "/apis/apps/v1/deployments", "/api/v1/pods"])

    def run(self, playbook, *flags, environ=None, **variables):
        """A finished ansible-playbook; `changed` is how many of its tasks changed something."""
        file = self.folder / "variables.json"
        file.write_text(json.dumps(variables))
        ansible = Path(sys.executable).with_name("ansible-playbook")
        done = subprocess.run(
            [ansible, "-i", "localhost,", "-c", "local", *flags, "--extra-vars", f"@{file}", playbook],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "LC_ALL": "C.UTF-8",
                "K8S_AUTH_KUBECONFIG": str(self.cluster.plane.kubeconfig),
                "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
                "ANSIBLE_PIPELINING": "1",
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_LOCALHOST_WARNING": "0",
                **(environ or {}),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        done.changed = int(done.stdout.rpartition("changed=")[2].split()[0]) if "changed=" in done.stdout else None
        return done

    def role(self, declaration, *flags, **variables):
        """What the role set for its caller, with the exit status, and how many tasks changed something."""
        kept = self.folder / "result.json"
        kept.unlink(missing_ok=True)
        play = self.folder / "play.yml"
        play.write_text(PLAY.replace("RESULT", str(kept)))
        done = self.run(play, *flags, pod_ip_ranges_declaration=declaration, **variables)
        assert kept.exists(), done.stdout + done.stderr
        said = {"status": done.returncode, "tasks": done.changed, "output": done.stdout + done.stderr}
        return {**json.loads(kept.read_text()), **said}

    def apply(self, declaration, **variables):
        """A run that check mode predicts exactly and without writing, and that a second run finds unchanged."""
        before = self.versions()
        predicted = self.role(declaration, "--check", "--diff", **variables)
        assert self.versions() == before, "check mode wrote"
        result = self.role(declaration, "--diff", **variables)
        assert result["status"] == 0, result["output"]
        for key in ("changed", "operations", "diff", "tasks", "status"):
            assert predicted[key] == result[key], key
        again = self.role(declaration, **variables)
        assert not again["changed"] and again["tasks"] == 0 and not any(again["operations"].values())
        return result

    def refused(self, declaration, **variables):
        """What the role says about a declaration that it does not apply; nothing was written."""
        before = self.versions()
        result = self.role(declaration, **variables)
        assert result["status"] == 2, result["output"]
        assert self.versions() == before, "something was written"
        return result["output"]

    def drift(self, declaration, **variables):
        """The exit status of the playbook drift, its report, and what it printed; it wrote nothing to the cluster."""
        report, before = self.folder / "drift.json", self.versions()
        done = self.run(
            "podnet.ipam.drift", pod_ip_ranges_declaration=declaration, drift_report=str(report), **variables
        )
        assert self.versions() == before, "the cluster was written to"
        assert report.exists(), done.stdout + done.stderr
        return done.returncode, json.loads(report.read_text()), done.stdout


@pytest.fixture
def site(planes, tmp_path, server):
    plane = planes("pod_ip_ranges")
    objects = Objects(plane)
    if not objects.exists(f"/apis/{GROUPS['v1']}/ippools"):
        install(objects, "v1")
        record_pod_cidrs(objects)
    return Site(emptied(plane, GROUPS["v1"], tmp_path, server))


DECLARATION = {
    "config": {"strict_affinity": True, "max_blocks_per_host": 40},
    "reservations": [{"name": "printers", "reserved_cidrs": ["10.244.0.0/28"]}],
    "pools": [
        {"name": "rack-1", "cidr": "10.244.0.0/18", "node_selector": "rack == '1'"},
        {"name": "payments", "cidr": "10.244.64.0/24", "assignment_mode": "Manual"},
        {"name": "firewall", "cidr": "10.244.65.0/24", "assignment_mode": "Manual"},
    ],
    "namespaces": [{"name": "payments", "ipv4_pools": ["payments"]}],
    "workloads": [{"kind": "Deployment", "namespace": "payments", "name": "settlement", "ipv4_pools": ["firewall"]}],
}
RACK, PAYMENTS, FIREWALL = DECLARATION["pools"]


def operations(result):
    """The writes of each part that has any, as text."""
    return {
        part: [f"{each['verb']} {each['kind']} {each['name']}" for each in done]
        for part, done in result["operations"].items()
        if done
    }


def test_one_declaration_brings_a_cluster_from_nothing_to_all_of_it(site):
    result = site.apply(DECLARATION)
    assert operations(result) == {
        "config": ["create IPAMConfig default"],
        "reservations": ["create IPReservation printers"],
        "pools": ["create IPPool firewall", "create IPPool payments", "create IPPool rack-1"],
        "namespaces": ["patch Namespace payments"],
        "workloads": ["patch Deployment settlement"],
    }
    assert result["tasks"] == 5 and "WARNING" not in result["output"]
    assert site.cluster.pools() == ["firewall", "payments", "rack-1"]
    assert site.cluster.annotations("/api/v1/namespaces/payments") == {V4: '["payments"]'}


def test_what_is_wrong_anywhere_is_reported_together_before_the_first_write(site):
    output = site.refused(
        {
            "config": {"auto_allocate_blocks": False, "strict_affinity": False},
            "reservations": [{"name": "printers", "reserved_cidrs": ["10.244.0.1/28"]}],
            "pools": [{"name": "a", "cidr": "10.244.0.0/18"}, {"name": "b", "cidr": "10.244.0.0/20"}],
            "namespaces": [{"name": "payments", "ipv4_pools": ["paymets"], "ipv6_pool": []}],
            "workloads": [{"kind": "Deployment", "namespace": "payments", "name": "setlement", "ipv4_pools": ["a"]}],
        },
        pod_ip_ranges_wait_timeout=-1,
    )
    for said in (
        "auto_allocate_blocks",
        "10.244.0.1/28",
        "10.244.0.0/20 overlaps pool a (10.244.0.0/18)",
        "namespaces.ipv6_pool",
        "Deployment payments/setlement: name: ",
        "option wait_timeout: wait_timeout: -1 is too short",
    ):
        assert said in output, said


@pytest.mark.slow
def test_what_is_not_declared_any_more_goes_and_pools_go_last(site):
    site.create_declared_pools()
    site.create("IPPool", "foreign", {"cidr": "10.244.96.0/24"}, team="other")
    site.create("IPReservation", "printers", {"reservedCIDRs": ["10.244.0.0/28"]})
    site.assign("shop", '["firewall"]')
    result = site.apply(
        {
            "reservations": [],
            "pools": [RACK, {"name": "billing", "cidr": "10.244.66.0/24"}],
            "namespaces": [{"name": "payments", "ipv4_pools": ["billing"]}],
        },
        pod_ip_ranges_purge=True,
        pod_ip_ranges_namespace_label_selectors=["site=yes"],
    )
    assert operations(result) == {
        "reservations": ["delete IPReservation printers"],
        "pools": ["create IPPool billing"],
        "namespaces": ["patch Namespace payments", "patch Namespace shop"],
        "removal": [
            "patch IPPool firewall",
            "patch IPPool payments",
            "delete IPPool firewall",
            "delete IPPool payments",
        ],
    }
    assert site.cluster.pools() == ["billing", "foreign", "rack-1"]


def test_label_selectors_say_which_pools_a_purge_is_about_and_parts_left_out_are_left_alone(site):
    site.create_declared_pools(team="a")
    site.assign("shop", '["payments"]')
    result = site.role({"pools": []}, pod_ip_ranges_purge=True, pod_ip_ranges_label_selectors=["team in (a,b)"])
    assert operations(result) == {"removal": ["patch IPPool rack-1", "delete IPPool rack-1"]}


def test_a_pool_that_would_go_while_the_declaration_asks_for_it_is_refused(site):
    site.create_declared_pools()
    output = site.refused(
        {
            "pools": [RACK],
            "namespaces": [{"name": "payments", "ipv4_pools": ["payments"]}],
            "workloads": [{"kind": "Deployment", "namespace": "shop", "name": "web", "ipv4_pools": ["10.244.65.0/24"]}],
        },
        pod_ip_ranges_purge=True,
    )
    asking = ("Deployment shop/web asks for 10.244.65.0/24", "namespace payments asks for payments")
    assert f"pools would be purged that are asked for: {'; '.join(asking)}; declare them, or assign others" in output


def test_a_pool_that_would_go_while_anything_in_the_cluster_asks_for_it_is_refused_unless_by_force(site):
    site.create_declared_pools()
    site.assign("shop", '["payments"]')
    fixed = {"cni.projectcalico.org/ipAddrs": '["10.244.65.7"]'}
    for workload, written in (
        ("payments/deployments/settlement", fixed),
        ("shop/deployments/web", {V4: "[malformed"}),
    ):
        template = {"metadata": {"annotations": written}}
        site.objects.patch(f"/apis/apps/v1/namespaces/{workload}", {"spec": {"template": template}})
    output = site.refused({"pools": [RACK]}, pod_ip_ranges_purge=True)
    asking = ("Deployment payments/settlement asks for 10.244.65.7", "namespace shop asks for payments")
    assert all(text in output for text in asking) and "malformed" not in output

    result = site.role({"pools": [RACK]}, pod_ip_ranges_purge=True, pod_ip_ranges_force=True)
    assert result["status"] == 0 and site.cluster.pools() == ["rack-1"]


def test_what_ended_long_ago_keeps_no_pool(site):
    site.create_declared_pools()
    site.cluster.create_workload("Job", "shop", "once", {V4: '["payments"]'})
    result = site.role({"pools": [RACK, FIREWALL]}, pod_ip_ranges_purge=True)
    site.objects.delete("/apis/batch/v1/namespaces/shop/jobs/once")
    assert operations(result) == {"removal": ["patch IPPool payments", "delete IPPool payments"]}


def test_what_keeps_every_module_from_working_is_told_once_and_with_its_cause(site):
    python = site.folder / "python"
    python.write_text("#!/bin/sh\necho no python today >&2; exit 1\n")
    python.chmod(0o755)
    done = site.run("podnet.ipam.site", pod_ip_ranges_declaration=DECLARATION, ansible_python_interpreter=str(python))
    [failure] = [line for line in done.stdout.splitlines() if line.startswith("fatal: ")]
    assert done.returncode == 2 and failure.count("no python today") == 1 and failure.count("No start of json") == 1


def test_a_declaration_that_is_refused_leaves_no_result_of_an_earlier_one(site):
    kept, play = site.folder / "result.json", site.folder / "twice.yml"
    role = "            name: podnet.ipam.pod_ip_ranges\n"
    each = '          vars: {pod_ip_ranges_declaration: "{{ item }}"}\n          loop: "{{ declarations }}"\n'
    play.write_text(PLAY.replace("RESULT", str(kept)).replace(role, role + each))
    site.run(play, declarations=[{"pools": [RACK]}, {"pools": [{**RACK, "cidr": "10.244.0.0/33"}]}])
    assert site.cluster.pools() == ["rack-1"]
    result = json.loads(kept.read_text())
    assert not result["changed"] and operations(result) == {}


def test_a_pool_in_the_place_of_one_that_is_to_go_is_refused(site):
    site.create_declared_pools()
    output = site.refused({"pools": [{"name": "successor", "cidr": "10.244.0.0/16"}]}, pod_ip_ranges_purge=True)
    assert "10.244.0.0/16 overlaps pool" in output or "overlaps pool successor" in output


def test_addresses_in_use_keep_a_pool_when_everything_else_is_done(site):
    site.create_declared_pools()
    site.cluster.create_block("10.244.65.0/26", ["payments/settlement-1"])
    without = {"pools": [RACK, PAYMENTS], "namespaces": [{"name": "shop", "ipv4_pools": ["payments"]}]}
    result = site.role(without, pod_ip_ranges_purge=True)
    assert result["status"] == 2 and "pod payments/settlement-1" in result["output"]
    assert operations(result) == {"namespaces": ["patch Namespace shop"]}
    assert site.cluster.pools() == ["firewall", "payments", "rack-1"]

    site.role(without, pod_ip_ranges_purge=True, pod_ip_ranges_force=True)
    assert site.cluster.pools() == ["payments", "rack-1"]


@pytest.mark.slow
def test_a_pool_goes_when_the_pods_that_were_moved_have_given_their_addresses_back(site):
    site.create_declared_pools()
    site.objects.delete("/apis/apps/v1/namespaces/shop/deployments/web")
    site.cluster.create_block("10.244.65.64/26", ["payments/settlement-0"])  # a pod that takes its time to end
    block = site.cluster.path("ipamblocks", "10-244-65-64-26")
    ending = threading.Timer(3, site.objects.delete, [block])
    looked = Fault("GET", "/ipamblocks", meanwhile=ending.start)
    declaration = {
        "pools": [RACK, PAYMENTS],
        "workloads": [{**DECLARATION["workloads"][0], "ipv4_pools": ["payments"]}],
    }
    with Controllers(site.cluster), FaultyProxy(site.cluster.plane) as proxy:
        proxy.faults.append(Fault("PATCH", "/deployments/settlement", meanwhile=lambda: proxy.faults.append(looked)))
        variables = {"pod_ip_ranges_purge": True, "pod_ip_ranges_rollout": "if_stale", "pod_ip_ranges_wait": True}
        result = site.role(declaration, environ={"K8S_AUTH_HOST": proxy.url}, **variables)
    ending.join()
    assert result["status"] == 0, result["output"]
    assert site.cluster.pools() == ["payments", "rack-1"]


def test_the_playbook_site_needs_no_nodes(site):
    done = site.run("podnet.ipam.site", "--diff", pod_ip_ranges_declaration={"pools": [RACK]})
    assert (done.returncode, done.changed) == (0, 1), done.stdout + done.stderr
    assert '+        "node_selector": "rack == \'1\'"' in done.stdout


def test_a_cluster_as_declared_has_no_drift_but_for_findings_that_do_not_count(site):
    site.create_declared_pools()
    site.cluster.create_block("10.244.0.0/26", ["payments/gone-1"])
    ignored = ["leaked", "missing_handle", "affinity_without_block", "block_without_affinity"]
    status, report, output = site.drift({"pools": DECLARATION["pools"]}, drift_ignore=ignored)
    assert status == 0, output
    assert report == {
        "drifted": False,
        "error": None,
        "differences": [],
        "operations": {part: [] for part in (*DECLARATION, "removal")},
        "findings": [],
    }


def test_drift_is_reported_with_before_and_after_and_not_corrected(site):
    site.create_declared_pools()
    site.create("IPPool", "old", {"cidr": "10.244.80.0/24"})
    site.objects.patch(site.cluster.path("ippools", "rack-1"), {"spec": {"nodeSelector": "all()"}})
    site.objects.delete(site.cluster.path("ippools", "firewall"))
    site.cluster.create_block("10.244.80.0/26", ["payments/gone-1"])
    declaration = {"pools": DECLARATION["pools"], "namespaces": DECLARATION["namespaces"]}
    status, report, output = site.drift(declaration, pod_ip_ranges_purge=True)
    assert status == 2 and report["drifted"] and report["error"] is None
    assert [(each["part"], each["object"], each["field"]) for each in report["differences"]] == [
        ("pools", "firewall", None),
        ("pools", "rack-1", "node_selector"),
        ("namespaces", "payments", "ipv4_pools"),
        ("removal", "old", None),
    ]
    assert [(each["before"], each["after"]) for each in report["differences"][1:3]] == [
        ("all()", "rack == '1'"),
        (None, ["payments"]),
    ]
    assert operations(report)["pools"] == ["patch IPPool rack-1", "create IPPool firewall"]
    assert "leaked" in [each["check"] for each in report["findings"]]
    for said in (
        "pools: firewall: is missing",
        'pools: rack-1: node_selector is \\"all()\\", declared is \\"rack == \'1\'\\"',
        'namespaces: payments: ipv4_pools is not set, declared is [\\"payments\\"]',
        "removal: old: exists and is not declared",
        "patch IPPool rack-1",
        f"4 differences to the declaration, which 8 writes would correct, and {len(report['findings'])} findings",
    ):
        assert said in output, said


def test_drift_is_no_failure_when_a_report_is_all_that_is_wanted(site):
    status, report, _output = site.drift({"pools": [RACK]}, drift_fail=False)
    assert status == 0 and report["drifted"]


@pytest.mark.slow
def test_pods_that_would_be_replaced_though_they_are_right_are_no_drift(site):
    site.create_declared_pools()
    declaration = {"workloads": DECLARATION["workloads"]}
    site.apply(declaration)
    assert operations(site.role(declaration, pod_ip_ranges_rollout="always")) == {
        "workloads": ["restart Deployment settlement"]
    }
    _status, report, _output = site.drift(declaration, pod_ip_ranges_rollout="always")
    assert report["error"] is None and operations(report) == {}


def test_a_declaration_that_cannot_be_compared_fails_whatever_drift_fail_says(site):
    wrong = {"namespaces": [{"name": "payments", "ipv4_pools": ["paymets"]}]}
    status, report, _output = site.drift(wrong, drift_fail=False)
    assert status == 2 and report["drifted"] and "pool 'paymets' does not exist" in str(report["error"])


def test_a_cluster_that_cannot_be_looked_at_is_reported_in_place_of_an_earlier_report(site):
    (site.folder / "drift.json").write_text('{"drifted": false}')
    nobody = {"K8S_AUTH_HOST": "https://127.0.0.1:1"}
    status, report, output = site.drift({"pools": [RACK]}, environ=nobody, drift_fail=False)
    assert status == 2 and report["drifted"] and report["findings"] == []
    [error] = report["error"]
    assert "no answer from https://127.0.0.1:1" in error and error in output


def test_the_examples_in_the_roles_documentation_work(site):
    blocks = README.read_text().split("```yaml\n")[1:]
    for index, block in enumerate(blocks):
        file = site.folder / f"example-{index}.yml"
        file.write_text(block.partition("```")[0])
        done = site.run(file)
        assert done.returncode == 0, done.stdout + done.stderr
    assert index == 1 and site.cluster.pools() == ["legacy-firewall", "payments", "rack-1", "rack-2"]
