# SPDX-License-Identifier: Apache-2.0
"""Pools that belong to somebody else: refused with the owner's name, or adopted."""

from __future__ import annotations

import pytest
from ansible_collections.podnet.ipam.plugins.module_utils._plan import pools
from support.pool_plans import OWNED, Cluster, declare, names_of, observe, stored

OPERATOR = {"app.kubernetes.io/managed-by": "tigera-operator"}
CONTROLLED = {"ownerReferences": [{"kind": "Note", "name": "x"}, {"kind": "Fleet", "name": "f", "controller": True}]}
AS_IT_IS = {"name": "a", "cidr": "10.244.0.0/16"}
CHANGED = {**AS_IT_IS, "nat_outgoing": True}


def installation(**pool):
    return {"spec": {"calicoNetwork": {"ipPools": [pool]}}}


OWNERS = {
    "label": (stored("a", OPERATOR, cidr="10.244.0.0/16"), None, "tigera-operator (its label"),
    "reference": (stored("a", None, CONTROLLED, cidr="10.244.0.0/16"), None, "Fleet f (its ownerReferences"),
    "name": (stored("a", cidr="10.244.0.0/16"), installation(name="a", cidr="10.0.0.0/8"), "the Calico operator"),
    "cidr": (stored("a", cidr="10.244.0.0/16"), installation(cidr="10.244.0.0/16"), "the Calico operator"),
}


@pytest.fixture(params=OWNERS)
def owned(request):
    pool, listed, owner = OWNERS[request.param]
    return observe(pool, installation=listed), owner


@pytest.mark.parametrize("wanted", [{}, {"state": "absent"}], ids=["changed", "removed"])
def test_a_pool_of_another_controller_is_refused_with_the_owners_name(owned, wanted):
    existing, owner = owned
    [problem] = pools.plan(declare(CHANGED, **wanted), existing).problems
    assert (problem.subject, problem.option, problem.value) == ("pool a", "adopt", False)
    assert f"it belongs to {owner}" in problem.message


def test_nothing_is_refused_when_nothing_would_be_changed(owned):
    existing, _owner = owned
    plan = pools.plan(declare(AS_IT_IS), existing)
    assert (plan.operations, plan.problems, plan.warnings) == ([], [], [])


def test_adoption_changes_the_pool_and_makes_it_ours_with_a_warning(owned):
    existing, owner = owned
    wanted = declare(CHANGED, adopt=True)
    plan = pools.plan(wanted, existing)
    [operation] = plan.operations
    assert operation.body == {"spec": {"natOutgoing": True}, "labels": OWNED}
    [warning] = plan.warnings
    assert warning.startswith(f"pool a belonged to {owner}") and "may revert" in warning
    assert plan.after["a"]["labels"] == OWNED and plan.before["a"] != plan.after["a"]
    *_steps, after = Cluster(existing).carry_out(plan.operations)
    again = pools.plan(wanted, after)
    assert (again.operations, again.warnings) == ([], [])
    assert pools.plan(declare(AS_IT_IS), after).problems == []


def test_adoption_allows_removal(owned):
    existing, owner = owned
    plan = pools.plan(declare(AS_IT_IS, state="absent", adopt=True), existing)
    assert names_of(plan.operations)[-1] == ("delete", "IPPool", "a")
    assert f"pool a belonged to {owner}" in plan.warnings[0]


@pytest.mark.parametrize("kind", ["label", "reference"])
def test_a_pool_that_names_its_owner_is_adopted_even_when_nothing_else_differs(kind):
    plan = pools.plan(declare(AS_IT_IS, adopt=True), observe(OWNERS[kind][0]))
    assert [each.body for each in plan.operations] == [{"spec": {}, "labels": OWNED}]


@pytest.mark.parametrize(("kind", "read"), [("label", False), ("reference", False), ("name", True)])
def test_the_installation_is_read_only_when_nothing_else_names_an_owner_of_a_pool_to_change(kind, read):
    existing = {"a": OWNERS[kind][0]}
    assert pools.needs(declare(CHANGED), existing).installation is read
    assert not pools.needs(declare(AS_IT_IS), existing).installation
    assert not pools.needs(declare(CHANGED), {"a": stored("a", OWNED, cidr="10.244.0.0/16")}).installation


def test_a_pool_of_nobody_is_corrected_but_not_labelled():
    existing = observe(stored("a", cidr="10.244.0.0/16"), installation=installation(name="b", cidr="10.0.0.0/8"))
    plan = pools.plan(declare(CHANGED, adopt=True), existing)
    assert [each.body for each in plan.operations] == [{"spec": {"natOutgoing": True}, "labels": {}}]
    assert plan.warnings == []
