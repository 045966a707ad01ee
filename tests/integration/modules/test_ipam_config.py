# SPDX-License-Identifier: Apache-2.0
"""ipam_config against a real API server. `cluster.apply` also holds check mode against the run, and runs twice."""

from __future__ import annotations

import pytest
from support.faulty_proxy import Fault, FaultyProxy


def plural(cluster):
    return "ipamconfigs" if cluster.group.startswith("crd.") else "ipamconfigurations"


def stored(cluster):
    return cluster.objects.get(cluster.path(plural(cluster), "default"))


def view(strict, automatic, blocks):
    return {"strict_affinity": strict, "auto_allocate_blocks": automatic, "max_blocks_per_host": blocks}


def test_the_object_is_created_in_either_group_under_its_own_kind(either_cluster):
    result = either_cluster.apply("ipam_config", strict_affinity=True, max_blocks_per_host=4)
    assert result["operations"] == [{"verb": "create", "kind": "IPAMConfig", "name": "default"}]
    assert (result["before"], result["after"]) == ([], [view(True, True, 4)])
    assert result["diff"] == {"before": {}, "after": {"default": view(True, True, 4)}}
    obj = stored(either_cluster)
    kinds = {"ipamconfigs": "IPAMConfig", "ipamconfigurations": "IPAMConfiguration"}
    assert obj["kind"] == kinds[plural(either_cluster)]
    assert obj["spec"] == {"strictAffinity": True, "autoAllocateBlocks": True, "maxBlocksPerHost": 4}


def test_what_is_left_out_is_left_alone(either_cluster):
    either_cluster.apply("ipam_config", strict_affinity=True, max_blocks_per_host=4)
    path = either_cluster.path(plural(either_cluster), "default")
    either_cluster.objects.patch(path, {"spec": {"ipCooldownSeconds": 60}})
    result = either_cluster.apply("ipam_config", auto_allocate_blocks=False)
    assert result["operations"] == [{"verb": "patch", "kind": "IPAMConfig", "name": "default"}]
    assert (result["before"], result["after"]) == ([view(True, True, 4)], [view(True, False, 4)])
    assert stored(either_cluster)["spec"] == {
        "strictAffinity": True,
        "autoAllocateBlocks": False,
        "maxBlocksPerHost": 4,
        "ipCooldownSeconds": 60,
    }


def test_the_limit_is_taken_away_together_with_the_strictness_that_it_needs(cluster):
    cluster.apply("ipam_config", strict_affinity=True, max_blocks_per_host=4)
    assert "it is 4 (in the cluster)" in cluster.refused("ipam_config", strict_affinity=False)["msg"]
    cluster.apply("ipam_config", strict_affinity=False, max_blocks_per_host=0)
    assert stored(cluster)["spec"]["maxBlocksPerHost"] == 0


def test_nodes_with_windows_are_named_when_strict_affinity_is_turned_off(cluster, node):
    node("win-1", "192.0.2.1", **{"kubernetes.io/os": "windows"})
    node("lin-1", "192.0.2.2", **{"kubernetes.io/os": "linux"})
    assert "warnings" not in cluster.run("ipam_config", strict_affinity=True)
    [warning] = cluster.warnings(cluster.run("ipam_config", strict_affinity=False))
    assert "nodes with Windows no addresses then: win-1" in warning
    assert "warnings" not in cluster.run("ipam_config", strict_affinity=False)


def test_something_has_to_be_declared(cluster):
    result = cluster.run("ipam_config")
    assert result["failed"] and "strict_affinity, auto_allocate_blocks, max_blocks_per_host" in result["msg"]


def test_an_unchanged_run_reads_the_object_and_what_tells_the_api_group(cluster):
    cluster.apply("ipam_config", strict_affinity=False)
    with FaultyProxy(cluster.plane) as proxy:
        cluster.run("ipam_config", strict_affinity=False, **cluster.through(proxy))
    paths = [cluster.path(each) + "?limit=500" for each in ("ippools", "ipamconfigs")]
    assert proxy.requests == [("GET", path) for path in paths]


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_whoever_writes_first_is_heard(cluster, method):
    """Someone else creates or changes the object between reading and writing: the rules hold for what they wrote."""
    collection = cluster.path("ipamconfigs")
    path = f"{collection}/default"
    if method == "PATCH":
        cluster.apply("ipam_config", strict_affinity=True)

    def meddle():
        spec = {"strictAffinity": True, "autoAllocateBlocks": False}
        if method == "PATCH":
            cluster.objects.patch(path, {"spec": spec})
        else:
            cluster.create("IPAMConfig", "ipamconfigs", "default", spec)

    fault = Fault(method, "/ipamconfigs" if method == "POST" else "/default", meanwhile=meddle)
    with FaultyProxy(cluster.plane, fault) as proxy:
        result = cluster.run("ipam_config", strict_affinity=False, **cluster.through(proxy))
    assert result["failed"] and "it is false (in the cluster), but strict_affinity is false (declared)" in result["msg"]
    assert cluster.objects.get(path)["spec"]["strictAffinity"] is True


def test_a_cluster_without_the_kind_says_what_is_missing(empty_cluster):
    message = empty_cluster.refused("ipam_config", strict_affinity=True)["msg"]
    assert "it serves neither IPAMConfig in crd.projectcalico.org/v1 nor IPAMConfiguration" in message


def test_the_object_can_be_removed_so_that_calicos_defaults_count(either_cluster):
    either_cluster.apply("ipam_config", strict_affinity=True, max_blocks_per_host=4)
    result = either_cluster.apply("ipam_config", state="absent")
    assert result["operations"] == [{"verb": "delete", "kind": "IPAMConfig", "name": "default"}]
    assert (result["before"], result["after"]) == ([view(True, True, 4)], [])
    assert not either_cluster.objects.exists(either_cluster.path(plural(either_cluster), "default"))


def test_nodes_with_windows_are_named_when_the_object_that_turns_strict_affinity_on_is_removed(cluster, node):
    node("win-1", "192.0.2.1", **{"kubernetes.io/os": "windows"})
    cluster.run("ipam_config", strict_affinity=True)
    [warning] = cluster.warnings(cluster.run("ipam_config", state="absent"))
    assert "nodes with Windows no addresses then: win-1" in warning


def test_where_the_kind_is_not_served_there_is_nothing_to_remove(empty_cluster):
    result = empty_cluster.run("ipam_config", state="absent")
    assert not result.get("failed") and (result["changed"], result["operations"]) == (False, [])
