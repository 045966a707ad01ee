# SPDX-License-Identifier: Apache-2.0
"""The role pool_migration, as an operator runs it: a pool's pods, and then its place, go over to another pool."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.controllers import V4, Controllers
from support.faulty_proxy import Fault, FaultyProxy

OLD, NEW, SPARE = map(ipaddress.ip_network, ("10.244.64.0/24", "10.244.128.0/24", "10.244.192.0/24"))
MOVE = {
    "pool_migration_from": "old",
    "pool_migration_to": {"name": "young", "cidr": str(NEW)},
    "pool_migration_patience": 0,
    "pool_migration_timeout": 30,
}
RESIZE = {
    **MOVE,
    "pool_migration_to": {"name": "old", "cidr": str(OLD), "block_size": 28},
    "pool_migration_via": {"name": "spare", "cidr": str(SPARE)},
}


class Town:
    """A pool, `old`, and who draws from it: a namespace, a workload, and one that does not ask."""

    def __init__(self, cluster):
        self.cluster, self.objects = cluster, cluster.objects
        self.objects.create("/api/v1/nodes", {"metadata": {"name": "node-1"}})
        cluster.create_pools(("old", str(OLD)))
        self.asking = cluster.create_namespace({V4: '["old"]'})
        self.other = cluster.create_namespace()
        self.by_namespace = cluster.create_workload("Deployment", self.asking, "by-namespace", replicas=1)
        self.named = cluster.create_workload(
            "StatefulSet", self.other, "named", {V4: '["old"]'}, replicas=2, serviceName="named"
        )
        self.unasked = cluster.create_workload("Deployment", self.other, "unasked", replicas=2)

    def migrate(self, *flags, proxy=None, **variables):
        """A finished run of the playbook; `changed` is how many of its tasks changed something."""
        file = self.cluster.folder / "variables.json"
        file.write_text(json.dumps(variables))
        plane, ansible = self.cluster.plane, Path(sys.executable).with_name("ansible-playbook")
        server = (
            {"K8S_AUTH_HOST": proxy.url, "K8S_AUTH_API_KEY": plane.token}
            if proxy
            else {"K8S_AUTH_KUBECONFIG": str(plane.kubeconfig)}
        )
        done = subprocess.run(
            [ansible, "-i", "localhost,", "-c", "local", *flags, "--extra-vars", f"@{file}", "podnet.ipam.migrate"],
            env={
                **server,
                "PATH": os.environ["PATH"],
                "HOME": str(self.cluster.folder),
                "LC_ALL": "C.UTF-8",
                "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
                "ANSIBLE_PIPELINING": "1",
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_LOCALHOST_WARNING": "0",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        done.said = done.stdout + done.stderr
        done.changed = int(done.stdout.rpartition("changed=")[2].split()[0]) if "changed=" in done.stdout else None
        return done

    def succeed(self, *flags, **variables):
        done = self.migrate(*flags, **variables)
        assert done.returncode == 0, done.said
        return done

    def interrupt(self, fault, **variables):
        """A run that ends at this request."""
        with FaultyProxy(self.cluster.plane, fault) as proxy:
            done = self.migrate(proxy=proxy, **variables)
        assert done.returncode == 2 and "spoiled by the test" in done.said, done.said
        # One that was being replaced comes back by its controller.
        deadline = time.monotonic() + 30
        while len(self.addresses()) != 5:
            assert time.monotonic() < deadline, "a pod was lost"
            time.sleep(0.1)

    def addresses(self):
        pods = self.objects.get("/api/v1/pods")["items"]
        return sorted(ipaddress.ip_address(pod["status"]["podIP"]) for pod in pods)

    def blocks(self):
        return {ipaddress.ip_network(each["spec"]["cidr"]) for each in self._all("ipamblocks")}

    def versions(self):
        return self.cluster.versions()

    def _all(self, plural):
        return self.objects.get(self.cluster.path(plural))["items"]

    def has_moved(self, name, network):
        """Whether pool `name` is the only one, and everything draws from it and lies in `network`."""
        found = self.addresses()
        assert self.cluster.pools() == [name]
        assert len(found) == 5 and all(address in network for address in found), found
        assert all(block.subnet_of(network) for block in self.blocks())
        assert self.cluster.annotations(f"/api/v1/namespaces/{self.asking}") == {V4: f'["{name}"]'}
        assert self.cluster.template_annotations(self.named)[V4] == f'["{name}"]'


@pytest.fixture
def town(whole_cluster):
    return Town(whole_cluster)


@pytest.mark.slow
def test_all_pods_move_with_progress_and_a_second_run_changes_nothing(town):
    with Controllers(town.cluster):
        before = town.versions()
        predicted = town.succeed("--check", "--diff", **MOVE)
        assert town.versions() == before, "check mode wrote"
        assert predicted.changed == 3, "a pool to add, pods to move, a pool to remove"
        done = town.succeed(**MOVE, pool_migration_batch=1)
        town.has_moved("young", NEW)
        for number in (1, 3, 5):
            assert f"old to young: {number} of 5 pods moved" in done.stdout
        assert town.succeed(**MOVE).changed == 0


@pytest.mark.slow
def test_interrupted_at_each_of_its_steps_it_goes_on_when_it_is_run_again(town):
    with Controllers(town.cluster):
        for method, path in (
            ("POST", "/ippools"),
            ("PATCH", f"/namespaces/{town.asking}"),
            ("PATCH", "/statefulsets/named"),
            ("PATCH", "/ippools/old"),
            ("PATCH", "/deployments/unasked"),
            ("DELETE", "/ippools/old"),
        ):
            town.interrupt(Fault(method, path, 403), **MOVE)
        town.succeed(**MOVE)
        town.has_moved("young", NEW)


@pytest.mark.slow
def test_a_block_size_is_changed_in_place_by_a_temporary_pool(town):
    with Controllers(town.cluster):
        before = town.versions()
        predicted = town.succeed("--check", **RESIZE)
        assert town.versions() == before, "check mode wrote"
        assert "Then the pods move from spare to old in the same way, and spare is removed" in predicted.stdout
        done = town.succeed(**RESIZE)
        assert "old to spare: 5 of 5 pods moved" in done.stdout
        assert "spare to old: 5 of 5 pods moved" in done.stdout
        town.has_moved("old", OLD)
        assert town.cluster.pool("old")["spec"]["blockSize"] == 28
        assert {block.prefixlen for block in town.blocks()} == {28}
        assert town.succeed(**RESIZE).changed == 0


@pytest.mark.slow
def test_a_change_of_the_block_size_goes_on_from_each_of_its_steps(town):
    with Controllers(town.cluster):
        for method, path in (
            ("DELETE", "/ippools/old"),
            ("POST", "/ippools"),
            ("PATCH", "/statefulsets/named"),
            ("PATCH", "/ippools/spare"),
            ("DELETE", "/ippools/spare"),
        ):
            town.interrupt(Fault(method, path, 403), **RESIZE)
        town.succeed(**RESIZE)
        town.has_moved("old", OLD)
        assert town.cluster.pool("old")["spec"]["blockSize"] == 28


@pytest.mark.slow
def test_what_cannot_move_is_named_and_keeps_the_pool_until_a_person_has_acted(town):
    pinned = {"cni.projectcalico.org/ipAddrs": '["10.244.64.200"]'}
    path = town.cluster.create_workload("Deployment", town.other, "pinned", pinned, replicas=0)
    with Controllers(town.cluster) as controllers:
        bare = controllers.start_pod(town.other, "probe")
        done = town.migrate(**MOVE)
        assert done.returncode == 2
        for said in (
            "pool old is not empty, and stays",
            f"Pod {town.other}/probe: it has no controller",
            f"Deployment {town.other}/pinned: its annotation ipAddrs asks for 10.244.64.200",
        ):
            assert said in done.stdout
        assert not town.cluster.pool("old")["spec"].get("disabled"), "the pinned pod could not come back otherwise"
        town.objects.delete(path)
        assert town.migrate(**MOVE).returncode == 2
        assert town.cluster.pool("old")["spec"]["disabled"]
        assert [address for address in town.addresses() if address in OLD] != []
        town.succeed(**MOVE, pool_migration_evict_bare_pods=True)
        town.has_moved("young", NEW)
        assert not town.objects.exists(bare)


def test_with_the_tag_plan_it_only_tells_what_has_to_move(town):
    with Controllers(town.cluster):
        before = town.versions()
        done = town.succeed("--tags", "plan", **MOVE, pool_migration_batch=2)
        assert town.versions() == before
    assert done.changed == 0 and '"pods": "5"' in done.stdout.replace('"pods": 5', '"pods": "5"')


@pytest.mark.slow
def test_the_old_pool_stays_disabled_when_it_is_not_to_be_removed(town):
    with Controllers(town.cluster):
        town.succeed(**MOVE, pool_migration_remove=False)
        assert town.cluster.pools() == ["old", "young"]
        assert town.cluster.pool("old")["spec"]["disabled"]
        assert town.succeed(**MOVE, pool_migration_remove=False).changed == 0
        town.cluster.create_block("10.244.64.192/26", ["elsewhere/nobodys"])
        done = town.migrate(**MOVE, pool_migration_remove=False)
        assert done.returncode == 2 and "10.244.64.192" in done.said


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"pool_migration_from": "odl"}, "neither pool odl nor pool young exists; pools of the cluster: old, shared"),
        (
            {"pool_migration_to": {"name": "wide", "cidr": "10.244.64.0/23"}},
            "pool wide (10.244.64.0/23) would have the name or addresses of pool old (10.244.64.0/24)",
        ),
        ({**RESIZE, "pool_migration_via": {"name": "shared", "cidr": "10.244.32.0/24"}}, "does not exist yet"),
        (
            {**RESIZE, "pool_migration_to": {"name": "old", "cidr": "10.244.32.0/19", "block_size": 28}},
            "overlaps pool shared (10.244.32.0/24)",
        ),
        ({**RESIZE, "pool_migration_to": {"name": "old", "cidr": str(OLD), "block_size": 33}}, "block_size"),
        ({"pool_migration_to": {"name": "young", "cidr": "10.99.0.0/24"}}, "does not lie in the cluster's pod CIDRs"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(town, variables, said):
    town.cluster.create_pools(("shared", "10.244.32.0/24"))
    before = town.versions()
    done = town.migrate(**{**MOVE, **variables})
    assert done.returncode == 2 and said in done.stdout.replace("\\n", " "), done.said
    assert town.versions() == before, "something was written"
