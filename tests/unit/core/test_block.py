# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.core import load

SEQUENCE = 1787304482417330915  # nanoseconds since 1970: above 2^53
OWNER = {"namespace": "default", "node": "node-1", "pod": "web-0", "timestamp": "2026-08-21 09:30:15.1 +0000 UTC"}


def empty(core, size=64, **options):
    return core.block.Block.empty("10.244.1.0/26", size, "host:node-1", SEQUENCE, "2026-08-21T09:28:02Z", **options)


def test_a_claimed_block_has_every_address_free_and_is_owned(core):
    spec = empty(core).spec()
    assert spec["allocations"] == [None] * 64
    assert spec["unallocated"] == list(range(64))
    assert spec["attributes"] == []
    assert spec["affinity"] == "host:node-1"
    assert spec["sequenceNumber"] == SEQUENCE
    assert spec["strictAffinity"] is False and spec["deleted"] is False


def test_addresses_are_given_out_in_order_and_noted_as_calico_does(core):
    block = empty(core)
    assert block.assign("net.a", OWNER) == 0
    block.sequence_number += 1  # the write
    assert block.assign("net.b", {**OWNER, "pod": "web-1"}) == 1
    spec = block.spec()
    assert spec["allocations"][:3] == [0, 1, None]
    assert spec["unallocated"][:2] == [2, 3]
    assert spec["attributes"][0] == {"handle_id": "net.a", "secondary": OWNER}
    assert spec["sequenceNumberForAllocation"] == {"0": SEQUENCE, "1": SEQUENCE + 1}


def test_the_address_freed_last_is_the_last_to_be_given_out_again(core):
    block = empty(core, size=4)
    for handle in "abc":
        block.assign(handle, OWNER)
    assert block.release("b") == [1]
    assert block.release("a") == [0]
    assert [block.assign(handle, OWNER) for handle in "defg"] == [3, 1, 0, -1]


def test_the_states_of_a_block_say_what_each_address_is(core):
    block = empty(core, size=8, reserved=[0, 3])
    block.assign_ordinal(3, "a", OWNER)  # reserved, but asked for
    assert block.assign("b", OWNER) == 1
    assert block.assign("c", OWNER) == 2
    block.release("c")
    block.rest([2])
    assert block.states() == "r#c#...."
    assert block.states().count(core.block.FREE) == block.assignable
    block.wake([2])
    assert block.states() == "r#.#...."


def test_single_addresses_are_freed_whoever_holds_them(core):
    block = empty(core, size=4)
    for handle in ("a", "b", "b", "c"):
        block.assign(handle, OWNER)
    block.release_ordinals([0, 2])
    spec = block.spec()
    assert spec["allocations"] == [None, 0, None, 1] and spec["unallocated"] == [0, 2]
    assert [attribute["handle_id"] for attribute in spec["attributes"]] == ["b", "c"]
    assert spec["sequenceNumberForAllocation"].keys() == {"1", "3"}
    assert [block.assign(handle, OWNER) for handle in "de"] == [0, 2]


def test_equal_attributes_are_shared_and_pruned_with_their_last_address(core):
    block = empty(core)
    for handle in ("a", "b", "b"):
        block.assign(handle, OWNER)
    assert len(block.spec()["attributes"]) == 2
    assert block.release("a") == [0]
    spec = block.spec()
    assert spec["attributes"] == [{"handle_id": "b", "secondary": OWNER}]
    assert spec["allocations"][:4] == [None, 0, 0, None]
    assert spec["sequenceNumberForAllocation"].keys() == {"1", "2"}
    assert block.ordinals_of("b") == [1, 2]


def test_releasing_an_unknown_handle_changes_nothing(core):
    block = empty(core)
    block.assign("a", OWNER)
    before = copy.deepcopy(block.spec())
    assert block.release("nobody") == []
    assert block.spec() == before


def test_reserved_addresses_stay_in_place_but_are_not_given_out_unasked(core):
    block = empty(core, reserved=[0, 1])
    assert block.assignable == 62
    assert block.assign("a", OWNER) == 2
    assert block.spec()["unallocated"][:3] == [0, 1, 3]
    assert block.assign_ordinal(1, "b", OWNER)
    assert not block.assign_ordinal(1, "c", OWNER)
    assert block.release("b") == [1]
    assert block.assignable == 61


def test_a_reservation_added_later_takes_effect_and_can_be_lifted(core):
    block = empty(core, size=4)
    block.assign("a", OWNER)
    block.reserve([0, 1, 2, 3])
    assert block.assign("b", OWNER) == -1
    assert block.ordinals_of("a") == [0]
    block.reserve([])
    assert block.assign("b", OWNER) == 1


def test_a_full_block_says_so(core):
    block = empty(core, size=2)
    assert [block.assign(handle, OWNER) for handle in "abc"] == [0, 1, -1]
    assert (block.assignable, block.allocated) == (0, 2)


def test_fields_that_are_not_known_here_survive(core):
    spec = empty(core).spec()
    spec.update(futureField={"a": 1}, allocations=[0] + [None] * 63, unallocated=list(range(1, 64)))
    spec["attributes"] = [{"handle_id": "vm", "secondary": OWNER, "alternateOwnerAttrs": {"pod": "other"}}]
    block = core.block.Block(spec)
    block.assign("a", OWNER)
    after = block.spec()
    assert after["futureField"] == {"a": 1}
    assert after["attributes"][0]["alternateOwnerAttrs"] == {"pod": "other"}


def test_a_cooling_address_counts_as_used(core):
    spec = empty(core, size=4).spec()
    spec["allocations"], spec["unallocated"] = [0, None, None, None], [1, 2, 3]
    spec["attributes"] = [{"releasedAt": "2026-08-21T09:40:00Z"}]
    block = core.block.Block(spec)
    assert block.assign("a", OWNER) == 1
    assert block.holders()[0] == (0, {"releasedAt": "2026-08-21T09:40:00Z"})


@pytest.mark.parametrize(
    "change",
    (
        {"unallocated": list(range(63))},
        {"unallocated": [0, *range(63)]},
        {"unallocated": list(range(1, 64)), "allocations": [0] + [None] * 63},
    ),
    ids=("an ordinal is missing", "an ordinal stands twice", "an attribute is missing"),
)
def test_a_block_that_breaks_the_format_is_refused(core, change):
    with pytest.raises(ValueError, match=r"block 10\.244\.1\.0/26: "):
        core.block.Block({**empty(core).spec(), **change})


class AssigningAndReleasing(RuleBasedStateMachine):
    """Both forms against a model; after each step what would be stored keeps the format's invariants."""

    @initialize(size=st.sampled_from((1, 4, 64)), reserved=st.sets(st.integers(0, 63), max_size=6))
    def start(self, size, reserved):
        self.reserved = {ordinal for ordinal in reserved if ordinal < size}
        self.forms = {form: load(form) for form in ("interpreted", "compiled")}
        self.blocks = [
            core.block.Block.empty("10.0.0.0/26", size, "host:n", SEQUENCE, "2026-01-01T00:00:00Z", self.reserved)
            for core in self.forms.values()
        ]
        self.model = {}
        self.size = size

    def both(self, operation):
        interpreted, compiled = (operation(block) for block in self.blocks)
        assert interpreted == compiled
        return interpreted

    @rule(handle=st.sampled_from("abcdefgh"), pod=st.sampled_from(("x", "y")))
    def assign(self, handle, pod):
        ordinal = self.both(lambda block: block.assign(handle, {"pod": pod}))
        if ordinal < 0:
            assert len(self.model.keys() | self.reserved) == self.size
        else:
            assert ordinal not in self.model and ordinal not in self.reserved
            self.model[ordinal] = handle

    @rule(handle=st.sampled_from("abcdefgh"))
    def release(self, handle):
        held = sorted(ordinal for ordinal, holder in self.model.items() if holder == handle)
        assert self.both(lambda block: block.release(handle)) == held
        for ordinal in held:
            del self.model[ordinal]

    @rule()
    def store_and_read_again(self):
        specs = [block.spec() for block in self.blocks]
        self.blocks = [
            core.block.Block(spec, self.reserved) for core, spec in zip(self.forms.values(), specs, strict=True)
        ]

    @invariant()
    def what_is_stored_is_sound(self):
        if not hasattr(self, "blocks"):
            return
        spec = self.both(lambda block: block.spec())
        allocated = {ordinal for ordinal, index in enumerate(spec["allocations"]) if index is not None}
        assert allocated == self.model.keys()
        assert sorted(spec["unallocated"]) == sorted(set(range(self.size)) - allocated)
        assert {index for index in spec["allocations"] if index is not None} == set(range(len(spec["attributes"])))
        assert {int(ordinal) for ordinal in spec["sequenceNumberForAllocation"]} == allocated
        free = set(range(self.size)) - allocated - self.reserved
        assert self.both(lambda block: block.assignable) == len(free)


TestAssigningAndReleasing = AssigningAndReleasing.TestCase
TestAssigningAndReleasing.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_resting_ordinal_is_not_assigned_until_it_wakes(core):
    block = empty(core, size=4)
    for number in range(4):
        block.assign(f"h{number}", {})
    block.release("h1")
    block.rest([1])
    assert (block.assignable, block.allocated, block.assign("next", {})) == (0, 3, -1)
    block.reserve([])
    assert block.assign("next", {}) == -1
    block.wake([1])
    assert block.assign("next", {}) == 1


def test_waking_an_ordinal_that_is_allocated_or_reserved_does_not_free_it(core):
    block = empty(core, size=4)
    block.rest([0, 1])
    assert block.assign_ordinal(0, "asked", {})
    block.reserve([1])
    block.wake([0, 1])
    assert block.assignable == 2
    assert [block.assign("h", {"n": str(number)}) for number in range(3)] == [2, 3, -1]
