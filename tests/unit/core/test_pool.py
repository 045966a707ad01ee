# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest


def stored(name="rack-1", cidr="10.244.0.0/20", status=None, metadata=None, **spec):
    obj = {"metadata": {"name": name, **(metadata or {})}, "spec": {"cidr": cidr, **spec}}
    return {**obj, "status": status} if status else obj


def test_a_pool_is_read_with_calicos_defaults(core):
    pool = core.pool.Pool.from_object(stored())
    assert (pool.family, pool.cidr, pool.block_size, pool.block_count) == (4, "10.244.0.0/20", 26, 64)
    assert pool.enabled and pool.assignment_mode == "Automatic" and pool.node_selector == "all()"
    assert core.pool.Pool.from_object(stored(cidr="fd00::/64")).block_size == 122


@pytest.mark.parametrize(
    ("change", "reason"),
    (
        ({"disabled": True}, "it is disabled"),
        ({"allowedUses": ["Tunnel"]}, "allowedUses ['Tunnel'] does not contain Workload"),
        ({"blockSize": 19, "cidr": "10.0.0.0/20"}, "its blockSize 19 is larger than the pool itself"),
        (
            {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}},
            "it is being deleted or marked as not allocatable",
        ),
        (
            {"status": {"conditions": [{"type": "Allocatable", "status": "False", "reason": "CIDROverlap"}]}},
            "it is being deleted or marked as not allocatable",
        ),
    ),
)
def test_a_pool_that_gives_nobody_an_address_says_why(core, change, reason):
    assert core.pool.Pool.from_object(stored(**change)).why_not_usable() == reason


def test_a_stored_pool_without_a_usable_cidr_is_named(core):
    with pytest.raises(ValueError, match=r"IPPool rack-1: spec\.cidr: .*10\.244\.0\.0/99"):
        core.pool.Pool.from_object(stored(cidr="10.244.0.0/99"))


def test_host_bits_of_a_stored_range_mean_nothing_as_in_calico(core):
    assert core.pool.Pool.from_object(stored(cidr="10.244.0.1/20")).cidr == "10.244.0.0/20"


def test_blocks_are_counted_from_the_start_of_the_pool(core):
    pool = core.pool.Pool.from_object(stored(cidr="fd00:10:244::/64"))
    assert pool.block_cidr(0) == "fd00:10:244::/122"
    assert pool.block_cidr(1) == "fd00:10:244::40/122"
    assert pool.contains("fd00:10:244::40/122") and not pool.contains("fd00:10:245::/122")
    assert not pool.contains("10.0.0.0/26")


def test_each_node_walks_all_free_blocks_once_from_a_place_of_its_own(core):
    pool = core.pool.Pool.from_object(stored())
    taken = {pool.block_cidr(index) for index in range(0, 64, 2)}
    orders = {node: list(pool.block_order(node, taken)) for node in ("node-1", "node-2", "node-3")}
    assert all(sorted(order) == list(range(1, 64, 2)) for order in orders.values())
    assert len({order[0] for order in orders.values()}) == 3


def test_a_block_of_a_huge_pool_is_found_without_listing_the_pool(core):
    pool = core.pool.Pool.from_object(stored(cidr="fd00::/8", blockSize=128))
    first = next(pool.block_order("node-1", set()))
    assert next(pool.block_order("node-1", {pool.block_cidr(first)})) == (first + 1) % pool.block_count


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    (
        ({"cidr": "10.0.0.1/8"}, "cidr", "'10.0.0.1/8' is not a CIDR without host bits: the range is 10.0.0.0/8"),
        ({"cidr": None}, "cidr", "None is not a CIDR"),
        ({"cidr": "169.254.1.0/24"}, "cidr", "overlaps the link-local range 169.254.0.0/16"),
        ({"cidr": "fe80::/64"}, "cidr", "overlaps the link-local range fe80::/10"),
        ({"blockSize": 19}, "blockSize", "19 is outside of 20..32"),
        ({"cidr": "fd00::/64", "blockSize": 26}, "blockSize", "26 is outside of 116..128"),
        ({"cidr": "10.0.0.0/28"}, "blockSize", "26 is larger than the pool 10.0.0.0/28: it must be /28 or longer"),
        ({"ipipMode": "Always", "vxlanMode": "Always"}, "vxlanMode", "Always excludes ipipMode Always"),
        ({"ipipMode": "Sometimes"}, "ipipMode", "'Sometimes' is none of Never, Always, CrossSubnet"),
        ({"cidr": "fd00::/64", "ipipMode": "Always"}, "ipipMode", "Always is for IPv4 only"),
        ({"nodeSelector": "rack == 1"}, "nodeSelector", "expected a quoted string"),
        ({"namespaceSelector": "global()"}, "namespaceSelector", "global() is not allowed"),
        ({"allowedUses": ["Pods"]}, "allowedUses", "'Pods' is none of Workload, Tunnel, LoadBalancer"),
        ({"allowedUses": ["Workload", "LoadBalancer"]}, "allowedUses", "LoadBalancer cannot be combined"),
        ({"assignmentMode": "manual"}, "assignmentMode", "'manual' is none of Automatic, Manual"),
    ),
)
def test_what_calico_would_refuse_is_refused_with_field_and_value(core, spec, field, message):
    problems = core.pool.spec_problems({"cidr": "10.0.0.0/16", **spec})
    assert [name for name, _text in problems] == [field]
    assert message in problems[0][1]


def test_a_sound_spec_has_no_problems(core):
    assert core.pool.spec_problems({"cidr": "10.0.0.0/16", "nodeSelector": "rack == '1'", "vxlanMode": "Always"}) == []
