# SPDX-License-Identifier: Apache-2.0
"""Plans for reservations. No API server."""

from __future__ import annotations

import copy
import ipaddress
import itertools

import pytest
from ansible_collections.podnet.ipam.plugins.module_utils import _runner
from ansible_collections.podnet.ipam.plugins.module_utils._plan import reservations
from hypothesis import given
from hypothesis import strategies as st
from support.pool_plans import OWNED, block, names_of
from support.pool_plans import stored as pool

POOLS = {"a": pool("a", cidr="10.244.0.0/16"), "six": pool("six", cidr="fd00:10:244::/64")}


def declare(*items, state="present", purge=False, label_selectors=None):
    return reservations.desired(
        {"reservations": items, "state": state, "purge": purge, "label_selectors": label_selectors}
    )


def item(name, *entries, **labels):
    return {"name": name, "reserved_cidrs": list(entries), "labels": labels}


def stored(name, *entries, labels=OWNED):
    return {"kind": "IPReservation", "metadata": {"name": name, "labels": labels}, "spec": {"reservedCIDRs": entries}}


def observe(*objects, pools=None, blocks=()):
    pools = POOLS if pools is None else pools
    return reservations.Observed({each["metadata"]["name"]: each for each in objects}, pools, blocks)


def test_entries_are_a_set_of_ranges_whatever_their_order_and_spelling():
    wanted = declare(item("r", "fd00:10:244:0::7", " 10.244.9.0/26", "10.244.1.7", "10.244.1.7/32"))
    canonical = ["10.244.1.7/32", "10.244.9.0/26", "fd00:10:244::7/128"]
    assert reservations.plan(wanted, observe()).after["r"]["reserved_cidrs"] == canonical
    existing = stored("r", "10.244.9.0/26", "FD00:10:244::7/128", "10.244.1.7")
    assert reservations.plan(wanted, observe(existing)).operations == []


def test_a_new_reservation_is_ours_and_a_changed_one_keeps_its_other_labels():
    [create] = reservations.plan(declare(item("r", "10.244.1.7", team="x")), observe()).operations
    assert create.body == {"spec": {"reservedCIDRs": ["10.244.1.7/32"]}, "labels": {"team": "x", **OWNED}}
    existing = stored("r", "10.244.1.7", labels={"theirs": "kept"})
    [patch] = reservations.plan(declare(item("r", "10.244.1.7", team="x")), observe(existing)).operations
    assert patch.body == {"spec": {}, "labels": {"team": "x"}}


@pytest.mark.parametrize(
    ("entry", "message"),
    (
        ("10.244.9.1/26", "has host bits: the range is 10.244.9.0/26, the address alone 10.244.9.1"),
        ("10.244.9", "'10.244.9' is neither a CIDR nor an address"),
        ("", "'' is neither a CIDR nor an address"),
        ("10.244.1.1-10.244.1.9", "is neither a CIDR nor an address"),
        ("fd00::%1/64", "is neither a CIDR nor an address"),
    ),
)
def test_what_is_no_range_is_named_with_what_would_be_right(entry, message):
    [problem] = reservations.plan(declare(item("r", "10.244.1.7", entry)), observe()).problems
    assert (problem.subject, problem.option, problem.value) == ("reservation r", "reserved_cidrs", entry)
    assert message in problem.message


def test_all_problems_are_reported_together():
    wanted = declare(
        {"name": "none"},
        item("Upper"),
        item("twice"),
        item("twice"),
        item("label", **{"x": "!"}),
        item("null", team=None),
        label_selectors=["x y"],
    )
    problems = reservations.plan(wanted, observe()).problems
    assert sorted((each.subject, each.option) for each in problems) == [
        ("option label_selectors", "label_selectors"),
        ("reservation Upper", "name"),
        ("reservation label", "labels"),
        ("reservation none", "reserved_cidrs"),
        ("reservation null", "labels"),
        ("reservation twice", "name"),
    ]


def test_without_the_kind_there_is_nothing_to_remove_and_nothing_can_be_declared():
    nothing = reservations.Observed(None, {})
    assert reservations.plan(declare({"name": "r"}, state="absent"), nothing).operations == []
    [problem] = reservations.plan(declare(item("r", "10.244.1.7")), nothing).problems
    assert "crd.projectcalico.org/v1" in problem.message
    problems = reservations.plan(declare(item("r", "nonsense")), nothing).problems
    assert [each.subject for each in problems] == ["the cluster", "reservation r"]


def test_purge_considers_our_own_or_what_the_selectors_choose():
    existing = observe(stored("ours"), stored("theirs", labels={"team": "x"}))
    assert names_of(reservations.plan(declare(purge=True), existing).operations) == [
        ("delete", "IPReservation", "ours")
    ]
    chosen = reservations.plan(declare(purge=True, label_selectors=["team=x"]), existing)
    assert [each.name for each in chosen.operations] == ["theirs"]


def test_a_reservation_that_is_being_deleted_cannot_be_declared_and_need_not_be_removed():
    leaving = stored("r", "10.244.1.7")
    leaving["metadata"]["deletionTimestamp"] = "2026-08-21T09:28:02Z"
    for wanted in (declare({"name": "r"}, state="absent"), declare(purge=True)):
        assert reservations.plan(wanted, observe(leaving)).operations == []
    [problem] = reservations.plan(declare(item("r", "10.244.1.8")), observe(leaving)).problems
    assert (problem.option, problem.message.partition(";")[0]) == ("name", "it is being deleted in the cluster")


def test_what_moves_to_a_new_reservation_is_reserved_there_first():
    existing = observe(stored("from", "10.244.1.7", "10.244.1.8"), stored("gone", "10.244.1.9"), stored("more"))
    wanted = declare(
        item("from", "10.244.1.8"), item("more", "10.244.2.0/26"), item("new", "10.244.1.7", "10.244.1.9"), purge=True
    )
    assert names_of(reservations.plan(wanted, existing).operations) == [
        ("patch", "IPReservation", "more"),
        ("create", "IPReservation", "new"),
        ("patch", "IPReservation", "from"),
        ("delete", "IPReservation", "gone"),
    ]


def test_reservations_that_change_entries_with_each_other_have_both_before_they_give_one_up():
    existing = observe(stored("one", "10.244.1.1", "10.244.1.2"), stored("two", "10.244.1.3"))
    wanted = declare(item("one", "10.244.1.2", "10.244.1.3"), item("two", "10.244.1.1"))
    operations = reservations.plan(wanted, existing).operations
    entries = [(each.name, [entry[-4] for entry in each.body["spec"]["reservedCIDRs"]]) for each in operations]
    assert entries == [("one", ["1", "2", "3"]), ("two", ["1", "3"]), ("one", ["2", "3"]), ("two", ["1"])]
    assert [[each.name for each in group] for group in _runner.in_groups(operations)] == [["one", "two"]] * 2


def test_a_range_in_no_pool_is_a_warning():
    [warning] = reservations.plan(declare(item("r", "10.99.0.0/24", "10.244.1.7")), observe()).warnings
    assert warning == "reservation r: 10.99.0.0/24 lies in no pool, so that it reserves nothing"


def test_more_than_a_tenth_of_a_pool_is_a_warning_with_all_reservations_counted_once():
    existing = observe(stored("other", "10.244.0.0/20", "10.244.0.0/21"))
    assert reservations.plan(declare(item("r", "10.244.16.0/21")), existing).warnings == []
    [warning] = reservations.plan(declare(item("r", "10.244.16.0/20")), existing).warnings
    assert warning.startswith("pool a: 12.5 % of its addresses are reserved; Calico recommends at most 10 %")
    assert reservations.plan(declare(item("r", "10.244.16.0/20"), purge=True), existing).warnings == []


def test_pools_that_the_play_declares_elsewhere_count_as_existing():
    options = {"reservations": [item("r", "10.99.0.0/28")], "state": "present", "purge": False, "label_selectors": None}
    wanted = reservations.desired(options, ({"name": "new", "cidr": "10.99.0.0/24"}, {"name": "without-cidr"}))
    assert reservations.plan(wanted, observe()).warnings == []


def test_ipv6_is_counted_and_not_listed():
    [warning] = reservations.plan(declare(item("r", "fd00:10:244::/65")), observe()).warnings
    assert warning.startswith("pool six: 50 % of its addresses are reserved")


def test_addresses_in_use_are_named_when_they_are_added_to_a_reservation():
    used = (block("10.244.9.0/26", "net.a", "net.b"), block("fd00:10:244::/122", "net.c"))
    wanted = declare(item("r", "10.244.9.1", "fd00:10:244::/120"))
    assert reservations.adds_entries(wanted, {})
    [warning] = reservations.plan(wanted, observe(blocks=used)).warnings
    assert warning == (
        "reservation r: 2 addresses of 10.244.9.1/32, fd00:10:244::/120 in use, by handle net.b, handle net.c:"
        " a reservation does not take them back"
    )


def test_blocks_matter_only_when_something_is_added():
    existing = {"r": stored("r", "10.244.9.1", "10.244.9.2")}
    assert not reservations.adds_entries(declare(item("r", "10.244.9.2")), existing)
    assert not reservations.adds_entries(declare({"name": "r"}, state="absent"), existing)
    assert reservations.adds_entries(declare(item("r", "10.244.9.0/30")), existing)
    assert reservations.adds_entries(declare(item("r", "10.244.9.0/30")), None)


ENTRIES = st.lists(st.integers(0, 6).map(lambda index: f"10.244.1.{index}"), max_size=4)
ITEMS = st.dictionaries(st.sampled_from("abcd"), ENTRIES, max_size=4).map(
    lambda found: [item(name, *entries) for name, entries in found.items()]
)


def carry_out(operations, existing):
    """The state after each operation. Of those that may be carried out at the same time, the last one comes first."""
    state = copy.deepcopy(existing)
    for operation in itertools.chain.from_iterable(map(reversed, _runner.in_groups(operations))):
        if operation.verb == "create":
            assert operation.name not in state
            state[operation.name] = stored(operation.name, *operation.body["spec"]["reservedCIDRs"])
        elif operation.verb == "patch":
            state[operation.name]["spec"].update(operation.body["spec"])
        else:
            del state[operation.name]
        yield copy.deepcopy(state)


def reserved(state):
    entries = [entry for obj in state.values() for entry in obj["spec"]["reservedCIDRs"]]
    return {str(ipaddress.ip_network(entry)) for entry in entries}


@given(ITEMS, ITEMS, st.booleans(), st.sampled_from(["present", "absent"]))
def test_carrying_a_plan_out_reaches_the_declaration_and_leaves_nothing_to_do(first, second, purge, state):
    *_steps, existing = [{}, *carry_out(reservations.plan(declare(*first), observe()).operations, {})]
    wanted = declare(*second, purge=purge, state=state)
    plan = reservations.plan(wanted, observe(*existing.values()))
    assert plan.problems == []
    *_steps, reached = [existing, *carry_out(plan.operations, existing)]
    assert reservations.plan(wanted, observe(*reached.values())).operations == []
    names = {each["name"] for each in second}
    if state == "absent":
        assert names.isdisjoint(reached)
    elif purge:
        assert set(reached) == names


# Few entries for few names, so that most examples move some of them.
MOVED = st.fixed_dictionaries({name: st.sets(st.sampled_from(["10.244.1.1", "10.244.1.2"])) for name in "ab"}).map(
    lambda found: [item(name, *entries) for name, entries in found.items()]
)


@given(MOVED, MOVED, st.booleans())
def test_what_stays_reserved_under_whatever_name_is_reserved_all_the_time(first, second, renamed):
    *_steps, before = [{}, *carry_out(reservations.plan(declare(*first), observe()).operations, {})]
    second = [{**each, "name": f"new-{each['name']}"} for each in second] if renamed else second
    plan = reservations.plan(declare(*second, purge=True), observe(*before.values()))
    states = [before, *carry_out(plan.operations, before)]
    kept = reserved(before) & reserved(states[-1])
    assert all(kept <= reserved(state) for state in states)
