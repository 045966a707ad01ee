# SPDX-License-Identifier: Apache-2.0
"""lease against a real API server: one holder at a time, and none for ever."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest
from support.faulty_proxy import Fault, FaultyProxy
from support.module_server import ModuleServer

LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
HELD = r"Lease \S+/nodes is held by bob since \S+Z\. .* lapses at \S+Z, in \d+ s\. .*delete lease nodes$"


@pytest.fixture
def namespace(cluster):
    return cluster.create_namespace()


@pytest.fixture
def lease(cluster, namespace):
    """Run the module for a holder."""

    def lease(holder, **options):
        return cluster.run("lease", namespace=namespace, name="nodes", holder=holder, **options)

    return lease


@pytest.fixture
def stored(cluster, namespace):
    """The Lease as it is stored, None where there is none, by a function."""

    def stored():
        path = f"{LEASES.format(namespace)}/nodes"
        return cluster.objects.get(path) if cluster.objects.exists(path) else None

    return stored


def written(result):
    assert not result.get("failed"), result["msg"]
    return [each["verb"] for each in result["operations"]]


def lapsed(cluster, namespace, stored, seconds=1):
    """Set the time at which the Lease was renewed back until it has lapsed, so many seconds ago."""
    found = stored()
    ago = timedelta(seconds=found["spec"]["leaseDurationSeconds"] + seconds)
    found["spec"]["renewTime"] = (datetime.now(timezone.utc) - ago).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    cluster.objects.request("PUT", f"{LEASES.format(namespace)}/nodes", found)


def test_who_takes_it_renews_it_and_gives_it_back(lease, stored):
    assert written(lease("alice")) == ["create"]
    first = stored()["spec"]
    assert (first["holderIdentity"], first["leaseDurationSeconds"]) == ("alice", 300)
    assert written(lease("alice", duration=60)) == ["replace"]
    assert (stored()["spec"]["acquireTime"], stored()["spec"]["leaseDurationSeconds"]) == (first["acquireTime"], 60)
    assert written(lease("alice", state="absent")) == ["delete"]
    assert stored() is None
    assert written(lease("alice", state="absent")) == []


def test_another_one_is_told_who_holds_it_and_changes_nothing(lease, stored):
    lease("bob")
    before = stored()
    refused = lease("alice")
    assert refused["failed"] and re.search(HELD, refused["msg"]), refused["msg"]
    assert written(lease("alice", state="absent")) == []
    assert stored() == before


def test_one_that_has_lapsed_is_taken_over_and_its_former_holder_is_told(cluster, namespace, lease, stored):
    lease("alice")
    lapsed(cluster, namespace, stored)
    assert written(lease("bob")) == ["replace"]
    assert stored()["spec"]["acquireTime"] == stored()["spec"]["renewTime"]
    assert re.search(HELD, lease("alice")["msg"])
    assert written(lease("alice", state="absent")) == []


def test_one_that_has_not_quite_lapsed_is_not_taken_over(cluster, namespace, lease, stored):
    lease("bob")
    lapsed(cluster, namespace, stored, seconds=-60)
    assert re.search(HELD, lease("alice")["msg"])


def test_one_of_a_process_that_has_ended_is_taken_over_at_once(lease):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    lease("alice", process=process.pid)
    assert lease("alice", process=os.getpid())["failed"]
    process.communicate(b"\n")
    assert written(lease("alice", process=os.getpid())) == ["replace"]


def test_that_a_process_has_ended_is_not_said_of_another_machines(cluster, namespace, lease, stored):
    lease("alice", process=os.getpid())
    found = stored()
    found["metadata"]["annotations"]["ipam.podnet.io/process"] = "another-start/4026531836/999999999"
    cluster.objects.request("PUT", f"{LEASES.format(namespace)}/nodes", found)
    assert "is held by alice, process" in lease("bob", process=os.getpid())["msg"]


def test_of_many_who_want_it_at_the_same_time_one_gets_it(cluster, namespace, tmp_path):
    def take(number):
        folder = tmp_path / str(number)
        folder.mkdir()
        arguments = {"namespace": namespace, "name": "nodes", "holder": f"user-{number}", "_ansible_remote_tmp": "/tmp"}
        environ = {"PATH": os.environ["PATH"], "K8S_AUTH_KUBECONFIG": str(cluster.plane.kubeconfig)}
        with ModuleServer() as server:
            return server.run("lease", arguments, environ, folder)

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(take, range(6)))
    assert [not result.get("failed") for result in results].count(True) == 1
    assert all("is held by user-" in result["msg"] for result in results if result.get("failed"))


def test_a_lost_answer_does_not_keep_its_holder_out(cluster, namespace, stored):
    lost = [Fault(verb, "/leases", 504, carried_out=True) for verb in ("POST", "PUT", "DELETE")]
    with FaultyProxy(cluster.plane, *lost) as proxy:
        options = {"namespace": namespace, "name": "nodes", "holder": "alice", **cluster.through(proxy)}
        assert written(cluster.run("lease", **options)) == ["create"]
        assert written(cluster.run("lease", **options)) == ["replace"]
        assert written(cluster.run("lease", state="absent", **options)) == ["delete"]
    assert stored() is None


def test_check_mode_tells_the_same_and_writes_nothing(lease, stored):
    assert written(lease("alice", check=True)) == ["create"]
    assert stored() is None
    lease("bob")
    before = stored()
    assert lease("alice", check=True)["failed"]
    assert written(lease("bob", check=True)) == ["replace"]
    assert written(lease("bob", check=True, state="absent")) == ["delete"]
    assert stored() == before
