# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import json

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


@pytest.mark.parametrize("size", (1, 4, 64))
def test_addresses_go_round_however_often_they_are_freed(core, size):
    block = empty(core, size=size)
    for number in range(5 * size):
        assert block.assign("a", OWNER) == number % size
        assert block.release("a") == [number % size]
    assert block.spec() == empty(core, size=size).spec()


def test_the_holder_of_an_address_is_known(core):
    block = empty(core, size=4)
    block.assign("a", OWNER)
    assert block.holder(0) == {"handle_id": "a", "secondary": OWNER}
    assert block.holder(1) is None


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


class PlainBlock:
    """The format's rules on the stored lists themselves: slow, and short enough to be seen to be right."""

    def __init__(self, spec, reserved):
        self.spec = copy.deepcopy(spec)
        self.reserved = set(reserved)
        self.resting = set()

    def assign(self, handle, secondary):
        withheld = self.reserved | self.resting
        ordinal = next((ordinal for ordinal in self.spec["unallocated"] if ordinal not in withheld), -1)
        if ordinal >= 0:
            self.assign_ordinal(ordinal, handle, secondary)
        return ordinal

    def assign_ordinal(self, ordinal, handle, secondary):
        if self.spec["allocations"][ordinal] is not None:
            return False
        attributes, entry = self.spec["attributes"], {"handle_id": handle, "secondary": secondary}
        if entry not in attributes:
            attributes.append(entry)
        self.spec["allocations"][ordinal] = attributes.index(entry)
        self.spec["unallocated"].remove(ordinal)
        self.spec["sequenceNumberForAllocation"][str(ordinal)] = self.spec["sequenceNumber"]
        return True

    def ordinals_of(self, handle):
        return [ordinal for ordinal, entry in self.holders() if entry.get("handle_id") == handle]

    def release(self, handle):
        ordinals = self.ordinals_of(handle)
        self.release_ordinals(ordinals)
        return ordinals

    def release_ordinals(self, ordinals):
        allocations, attributes = self.spec["allocations"], self.spec["attributes"]
        for ordinal in ordinals:
            allocations[ordinal] = None
            self.spec["unallocated"].append(ordinal)
            self.spec["sequenceNumberForAllocation"].pop(str(ordinal), None)
        used = sorted(set(allocations) - {None})
        self.spec["attributes"] = [attributes[index] for index in used]
        self.spec["allocations"] = [None if index is None else used.index(index) for index in allocations]

    def holders(self):
        entries = self.spec["attributes"]
        return [
            (ordinal, entries[index]) for ordinal, index in enumerate(self.spec["allocations"]) if index is not None
        ]

    @property
    def assignable(self):
        return len(set(self.spec["unallocated"]) - self.reserved - self.resting)


HANDLES = st.sampled_from((*"abcdef", None))
PODS = st.builds(dict, pod=st.sampled_from("xy"))
# Equal ones may be stored twice, others may lack a handle or have fields that are not known here.
ENTRIES = st.sampled_from(
    (
        {"handle_id": "a", "secondary": {"pod": "x"}},
        {"handle_id": "a", "secondary": {"pod": "x"}, "alternateOwnerAttrs": {"pod": "y"}},
        {"handle_id": "b", "secondary": {"pod": "y"}},
        {"secondary": {"node": "n", "type": "vxlanTunnelAddress"}},
        {"releasedAt": "2026-08-21T09:40:00Z"},
    )
)


@st.composite
def stored_specs(draw):
    """A spec as someone else may have stored it, with attributes that no ordinal refers to among them."""
    attributes = draw(st.lists(ENTRIES, max_size=5))
    indices = st.sampled_from((None, *range(len(attributes))))
    size = draw(st.sampled_from((1, 4, 5, 64)))
    allocations = draw(st.lists(indices, min_size=size, max_size=size))
    return {
        "cidr": "10.0.0.0/26",
        "affinity": "host:n",
        "allocations": allocations,
        "unallocated": draw(st.permutations([ordinal for ordinal in range(size) if allocations[ordinal] is None])),
        "attributes": attributes,
        "sequenceNumber": SEQUENCE,
        "sequenceNumberForAllocation": {},
        "futureField": {"a": 1},
    }


class StoredAsByThePlainRules(RuleBasedStateMachine):
    """The same operations on both forms and on plain lists: at each step all three would store the same bytes."""

    @initialize(spec=stored_specs(), reserved=st.sets(st.integers(0, 63), max_size=6))
    def start(self, spec, reserved):
        self.size = len(spec["allocations"])
        self.reserved = {ordinal for ordinal in reserved if ordinal < self.size}
        self.plain = PlainBlock(spec, self.reserved)
        self.classes = [load(form).block.Block for form in ("interpreted", "compiled")]
        self.blocks = [block_class(copy.deepcopy(spec), self.reserved) for block_class in self.classes]

    def all(self, operation):
        plain, *blocks = (operation(block) for block in (self.plain, *self.blocks))
        assert blocks == [plain, plain]
        return plain

    def some(self, data, ordinals):
        return data.draw(st.lists(st.sampled_from(ordinals), unique=True)) if ordinals else []

    @rule(handle=HANDLES, secondary=PODS)
    def assign(self, handle, secondary):
        self.all(lambda block: block.assign(handle, secondary))

    @rule(data=st.data(), handle=HANDLES, secondary=PODS)
    def assign_ordinal(self, data, handle, secondary):
        ordinal = data.draw(st.integers(0, self.size - 1))
        self.all(lambda block: block.assign_ordinal(ordinal, handle, secondary))

    @rule(handle=HANDLES)
    def release(self, handle):
        self.all(lambda block: block.release(handle))

    @rule(data=st.data())
    def release_ordinals(self, data):
        ordinals = self.some(data, [ordinal for ordinal, _entry in self.plain.holders()])
        for block in (self.plain, *self.blocks):
            block.release_ordinals(ordinals)

    @rule(data=st.data())
    def reserve(self, data):
        self.reserved = self.plain.reserved = set(self.some(data, range(self.size)))
        for block in self.blocks:
            block.reserve(self.reserved)

    @rule(data=st.data())
    def rest(self, data):
        ordinals = self.some(data, range(self.size))
        self.plain.resting.update(ordinals)
        for block in self.blocks:
            block.rest(ordinals)

    @rule(data=st.data())
    def wake(self, data):
        ordinals = self.some(data, range(self.size))
        self.plain.resting.difference_update(ordinals)
        for block in self.blocks:
            block.wake(ordinals)

    @rule()
    def write(self):
        self.plain.spec["sequenceNumber"] += 1
        for block in self.blocks:
            block.sequence_number += 1

    @rule()
    def store_and_read_again(self):
        self.plain.resting = set()
        self.blocks = [
            block_class(json.loads(json.dumps(block.spec())), self.reserved)
            for block_class, block in zip(self.classes, self.blocks, strict=True)
        ]

    @invariant()
    def the_same_would_be_stored(self):
        if hasattr(self, "blocks"):
            stored = json.dumps(self.plain.spec)
            assert [json.dumps(block.spec()) for block in self.blocks] == [stored, stored]
            self.all(lambda block: block.assignable)
            self.all(lambda block: block.holders())
            for handle in (*"abcdef", None):
                self.all(lambda block, handle=handle: block.ordinals_of(handle))


TestStoredAsByThePlainRules = StoredAsByThePlainRules.TestCase
TestStoredAsByThePlainRules.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
