# SPDX-License-Identifier: Apache-2.0
"""Plans for the configuration of address management. No API server."""

from __future__ import annotations

import itertools

import pytest
from ansible_collections.podnet.ipam.plugins.module_utils._plan import config

V1, V3 = "crd.projectcalico.org/v1", "projectcalico.org/v3"
OPTIONS = ("strict_affinity", "auto_allocate_blocks", "max_blocks_per_host")


def stored(**spec):
    return {"kind": "IPAMConfig", "metadata": {"name": "default"}, "spec": spec}


def plan(wanted, existing=None, group=V1, **others):
    return config.plan(wanted, config.Observed(group, existing, **others))


def view(*values):
    return dict(zip(OPTIONS, values, strict=True))


def test_a_missing_object_is_created_with_calicos_defaults_for_what_was_left_out():
    made = plan({"strict_affinity": True})
    [operation] = made.operations
    assert (operation.verb, operation.kind, operation.name) == ("create", "IPAMConfig", "default")
    assert operation.body["spec"] == {"strictAffinity": True, "autoAllocateBlocks": True, "maxBlocksPerHost": 0}
    assert made.before == {"default": None} and made.after == {"default": view(True, True, 0)}


def test_what_was_left_out_is_left_alone():
    existing = stored(strictAffinity=True, autoAllocateBlocks=False, ipCooldownSeconds=60)
    made = plan({"max_blocks_per_host": 4}, existing)
    assert [each.body for each in made.operations] == [{"spec": {"maxBlocksPerHost": 4}}]
    assert made.after == {"default": view(True, False, 4)}


def test_what_is_as_declared_needs_no_write():
    existing = stored(strictAffinity=False, autoAllocateBlocks=True)
    assert plan(view(False, True, 0), existing).operations == []


@pytest.mark.parametrize(
    ("wanted", "existing", "option", "message"),
    (
        (
            {"auto_allocate_blocks": False},
            stored(strictAffinity=False, autoAllocateBlocks=True),
            "auto_allocate_blocks",
            "it is false (declared), but strict_affinity is false (in the cluster): Calico cannot disable"
            " StrictAffinity and AutoAllocateBlocks at the same time",
        ),
        (
            {"max_blocks_per_host": 4},
            None,
            "max_blocks_per_host",
            "it is 4 (declared), but strict_affinity is false (by default): Calico's MaxBlocksPerHost requires"
            " StrictAffinity to be enabled",
        ),
        (
            {"strict_affinity": False},
            stored(strictAffinity=True, autoAllocateBlocks=True, maxBlocksPerHost=4),
            "max_blocks_per_host",
            "it is 4 (in the cluster), but strict_affinity is false (declared)",
        ),
    ),
)
def test_calicos_rules_are_held_against_the_object_as_it_would_be(wanted, existing, option, message):
    made = plan(wanted, existing)
    [problem] = made.problems
    assert (problem.subject, problem.option) == ("IPAMConfig default", option) and message in problem.message
    assert made.operations == []


@pytest.mark.parametrize(("group", "most"), [(V1, 2147483647), (V3, 1000000)])
def test_the_limits_are_those_of_the_api_group(group, most):
    for blocks in (-1, most + 1):
        [problem] = plan(view(True, True, blocks), group=group).problems
        assert problem.value == blocks and f"outside of 0..{most}" in problem.message
    assert plan(view(True, True, most), group=group).problems == []


def test_nodes_with_windows_need_strict_affinity():
    existing = stored(strictAffinity=True, autoAllocateBlocks=True)
    assert config.turns_strictness_off({"strict_affinity": False}, existing)
    assert config.turns_strictness_off({"auto_allocate_blocks": True}, None)
    assert not config.turns_strictness_off({"max_blocks_per_host": 4}, existing)
    assert not config.turns_strictness_off({"strict_affinity": False}, stored(strictAffinity=False))
    [warning] = plan({"strict_affinity": False}, existing, windows_nodes=("win-1",)).warnings
    assert "nodes with Windows" in warning and "win-1" in warning


def test_an_object_that_is_removed_leaves_calicos_defaults():
    existing = stored(strictAffinity=True, maxBlocksPerHost=4)
    made = plan(None, existing, windows_nodes=("win-1",))
    [operation] = made.operations
    assert (operation.verb, operation.name, operation.observed) == ("delete", "default", existing)
    assert (made.before, made.after) == ({"default": view(True, True, 4)}, {"default": None})
    assert config.turns_strictness_off(None, existing) and "win-1" in made.warnings[0]


def test_an_object_that_is_being_deleted_cannot_be_declared_and_need_not_be_removed():
    leaving = stored(strictAffinity=True)
    leaving["metadata"]["deletionTimestamp"] = "2026-08-21T09:28:02Z"
    made = plan(None, leaving)
    assert (made.operations, made.before) == ([], made.after)
    [problem] = plan({"strict_affinity": False}, leaving).problems
    assert problem.message == "it is being deleted in the cluster; run again when it is gone"


@pytest.mark.parametrize("group", [V1, V3, None])
def test_an_object_that_does_not_exist_is_not_removed(group):
    assert plan(None, group=group).operations == []
    assert not config.turns_strictness_off(None, None)


def test_a_cluster_without_the_kind_says_what_is_missing():
    [problem] = plan({"strict_affinity": True}, group=None).problems
    assert V1 in problem.message and V3 in problem.message


CHOICES = (None, False, True), (None, False, True), (None, 0, 4)
STORED = [None, *itertools.product((False, True), (False, True), (0, 4))]


@pytest.mark.parametrize("values", STORED)
def test_a_plan_reaches_the_declaration_without_breaking_calicos_rules_or_is_refused(values):
    fields = ("strictAffinity", "autoAllocateBlocks", "maxBlocksPerHost")
    existing = stored(**dict(zip(fields, values, strict=True))) if values else None
    for chosen in itertools.product(*CHOICES):
        wanted = config.given(view(*chosen))
        made = plan(wanted, existing)
        result = {**view(*(values or (False, True, 0))), **wanted}
        sound = result["strict_affinity"] or (result["auto_allocate_blocks"] and not result["max_blocks_per_host"])
        assert bool(made.problems) is not sound
        if sound:
            spec = dict((existing or stored())["spec"])
            for operation in made.operations:
                spec.update(operation.body["spec"])
            again = plan(wanted, stored(**spec))
            assert (again.operations, again.after) == ([], {"default": result})
