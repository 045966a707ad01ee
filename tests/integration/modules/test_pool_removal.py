# SPDX-License-Identifier: Apache-2.0
"""Pools that are removed from a real API server: what is refused, what is forced, and what stays."""

from __future__ import annotations

from support.faulty_proxy import Fault, FaultyProxy

RACKS = [
    {"name": "rack-1", "cidr": "10.244.0.0/18", "node_selector": "rack == '1'"},
    {"name": "rack-2", "cidr": "10.244.64.0/18", "node_selector": "rack == '2'"},
]


def test_a_removed_pool_takes_its_empty_blocks_and_the_claims_on_them_along(either_cluster):
    either_cluster.apply("ip_pools", pools=RACKS)
    either_cluster.create_block("10.244.3.0/26")
    either_cluster.create_block("10.244.64.0/26", holders=["payments/web"])
    result = either_cluster.apply("ip_pools", pools=[{"name": "rack-1"}, {"name": "never-was"}], state="absent")
    assert [(each["verb"], each["kind"]) for each in result["operations"]] == [
        ("patch", "IPPool"),
        ("patch", "BlockAffinity"),
        ("delete", "IPAMBlock"),
        ("delete", "BlockAffinity"),
        ("delete", "IPPool"),
    ]
    assert either_cluster.pools() == ["rack-2"]
    assert either_cluster.objects.names(either_cluster.path("ipamblocks")) == ["10-244-64-0-26"]
    assert either_cluster.objects.names(either_cluster.path("blockaffinities")) == ["node-1-10-244-64-0-26"]


def test_a_pool_with_addresses_in_use_is_not_removed_and_the_pods_are_named(cluster):
    cluster.apply("ip_pools", pools=RACKS)
    cluster.create_block("10.244.3.0/26", holders=["payments/web-0", "payments/web-1"])
    message = cluster.refused("ip_pools", pools=[{"name": "rack-1"}], state="absent")["msg"]
    for part in (
        "pool rack-1",
        "2 addresses of 10.244.0.0/18",
        "pod payments/web-0, pod payments/web-1",
        "10.244.3.0/26",
    ):
        assert part in message


def of_pods(*addresses_and_pods):
    """What `in_use` says about addresses of rack-1."""
    return [
        {"pool": "rack-1", "address": address, "namespace": "payments", "pod": pod, "handle": f"net.payments/{pod}"}
        for address, pod in addresses_and_pods
    ]


def test_the_refusal_lists_the_addresses_in_use_for_programs(cluster):
    cluster.apply("ip_pools", pools=RACKS)
    cluster.create_block("10.244.3.0/26", holders=["payments/web-0", "payments/web-1"])
    [error] = cluster.refused("ip_pools", pools=RACKS[1:], purge=True)["errors"]
    assert error["in_use"] == of_pods(("10.244.3.0", "web-0"), ("10.244.3.1", "web-1"))


def test_force_removes_a_pool_in_use_as_calico_does_and_says_who_keeps_addresses(either_cluster):
    either_cluster.apply("ip_pools", pools=RACKS)
    either_cluster.create_block("10.244.3.0/26", holders=["payments/web-0"])
    either_cluster.create_block("10.244.4.0/26")
    path = either_cluster.path("ipamblocks", "10-244-3-0-26")
    number = 1787304482417330917
    either_cluster.objects.patch(path, {"spec": {"sequenceNumber": number}})
    before = either_cluster.objects.get(path)["spec"]
    result = either_cluster.apply("ip_pools", pools=[{"name": "rack-1"}], state="absent", force=True)
    assert [(each["verb"], each["kind"]) for each in result["operations"]] == [
        ("patch", "IPPool"),
        ("patch", "BlockAffinity"),
        ("patch", "BlockAffinity"),
        ("delete", "IPAMBlock"),
        ("replace", "IPAMBlock"),
        ("delete", "BlockAffinity"),
        ("delete", "BlockAffinity"),
        ("delete", "IPPool"),
    ]
    assert result["in_use"] == of_pods(("10.244.3.0", "web-0"))
    [warning] = either_cluster.warnings(result)
    assert "pool rack-1 is removed with 1 address of 10.244.0.0/18 in use, by pod payments/web-0" in warning
    assert either_cluster.pools() == ["rack-2"]
    assert either_cluster.objects.names(either_cluster.path("blockaffinities")) == []
    assert either_cluster.objects.names(either_cluster.path("ipamblocks")) == ["10-244-3-0-26"]
    after = either_cluster.objects.get(path)["spec"]
    assert after == {**{key: value for key, value in before.items() if key != "affinity"}, "sequenceNumber": number + 1}


def test_what_is_soft_deleted_does_not_hold_a_pool_and_goes_with_it(either_cluster):
    either_cluster.apply("ip_pools", pools=RACKS)
    either_cluster.create_block("10.244.3.0/26", holders=["payments/web-0"])
    either_cluster.objects.patch(either_cluster.path("ipamblocks", "10-244-3-0-26"), {"spec": {"deleted": True}})
    affinity = either_cluster.path("blockaffinities", "node-1-10-244-3-0-26")
    deleted = "true" if either_cluster.group.startswith("crd.") else True
    either_cluster.objects.patch(affinity, {"spec": {"deleted": deleted}})
    result = either_cluster.apply("ip_pools", pools=RACKS[1:], purge=True)
    assert result["in_use"] == [] and either_cluster.pools() == ["rack-2"]
    for plural in ("ipamblocks", "blockaffinities"):
        assert either_cluster.objects.names(either_cluster.path(plural)) == []


def test_a_pool_that_a_finalizer_holds_is_removed_once(either_cluster):
    """Calico's own finalizer stays until the pool's last block is gone."""
    either_cluster.apply("ip_pools", pools=RACKS)
    path = either_cluster.path("ippools", "rack-1")
    either_cluster.objects.patch(path, {"metadata": {"finalizers": ["projectcalico.org/ippool-finalizer"]}})
    try:
        either_cluster.apply("ip_pools", pools=[{"name": "rack-1"}], state="absent")
        assert either_cluster.pools() == ["rack-1", "rack-2"]
        assert "it is being deleted in the cluster" in either_cluster.refused("ip_pools", pools=RACKS)["msg"]
    finally:
        either_cluster.objects.patch(path, {"metadata": {"finalizers": []}})
    either_cluster.apply("ip_pools", pools=RACKS)


def through_fault(cluster, *faults, **options):
    with FaultyProxy(cluster.plane, *faults) as proxy:
        return cluster.run("ip_pools", pools=[{"name": "rack-1"}], state="absent", **cluster.through(proxy), **options)


def allocate(cluster, name, *pods):
    """Another allocation, by someone else."""
    attributes = [
        {"handle_id": f"net.payments/{pod}", "secondary": {"namespace": "payments", "pod": pod}} for pod in pods
    ]
    allocations = [*range(len(pods)), *[None] * (64 - len(pods))]
    spec = {"attributes": attributes, "allocations": allocations, "unallocated": list(range(len(pods), 64))}
    cluster.objects.patch(cluster.path("ipamblocks", name), {"spec": spec})


def test_an_address_that_is_assigned_while_its_pool_is_forced_out_keeps_its_block(either_cluster):
    either_cluster.apply("ip_pools", pools=RACKS)
    either_cluster.create_block("10.244.3.0/26")
    assign = Fault("PUT", "/10-244-3-0-26", meanwhile=lambda: allocate(either_cluster, "10-244-3-0-26", "late"))
    result = through_fault(either_cluster, assign, force=True)
    assert result["in_use"] == of_pods(("10.244.3.0", "late"))
    assert either_cluster.pools() == ["rack-2"]
    [block] = either_cluster.objects.get(either_cluster.path("ipamblocks"))["items"]
    assert block["spec"]["allocations"][0] == 0 and "affinity" not in block["spec"]


def test_an_address_that_is_assigned_between_disabling_and_releasing_is_reported(cluster):
    cluster.apply("ip_pools", pools=RACKS)
    cluster.create_block("10.244.3.0/26", holders=["payments/early"])
    late = Fault("PATCH", "/rack-1", meanwhile=lambda: allocate(cluster, "10-244-3-0-26", "early", "late"))
    result = through_fault(cluster, late, force=True)
    assert result["in_use"] == of_pods(("10.244.3.0", "early"), ("10.244.3.1", "late"))


def test_a_forced_removal_that_fails_midway_says_what_is_left_and_is_finished_by_running_again(either_cluster):
    either_cluster.apply("ip_pools", pools=RACKS)
    either_cluster.create_block("10.244.3.0/26", holders=["payments/web-0"])
    result = through_fault(either_cluster, Fault("PUT", "/10-244-3-0-26", 503, times=99, retry_after=0), force=True)
    assert result["failed"] and result["changed"]
    assert [each["kind"] for each in result["operations"]] == ["IPPool", "BlockAffinity"]
    assert result["failed_operation"] == {"verb": "replace", "kind": "IPAMBlock", "name": "10-244-3-0-26"}
    assert [each["kind"] for each in result["operations_left"]] == ["BlockAffinity", "IPPool"]
    rest = either_cluster.apply("ip_pools", pools=[{"name": "rack-1"}], state="absent", force=True)
    assert [(each["verb"], each["kind"]) for each in rest["operations"]] == [
        ("replace", "IPAMBlock"),
        ("delete", "BlockAffinity"),
        ("delete", "IPPool"),
    ]
    assert rest["in_use"] == of_pods(("10.244.3.0", "web-0"))
