# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.core import load

SIZES = (1, 2, 63, 64, 65, 4096, 4097, 1 << 16, (1 << 18) + 1)


@pytest.mark.parametrize("size", SIZES)
def test_a_new_bitmap_is_free_to_its_last_index(core, size):
    bitmap = core.bitmap.Bitmap(size)
    assert bitmap.free == len(bitmap) == size
    assert bitmap.find(0) == 0
    assert bitmap.find(size - 1) == size - 1
    assert bitmap.find(size) == -1


@pytest.mark.parametrize("size", SIZES)
def test_the_only_free_index_is_found_from_anywhere_below_it(core, size):
    bitmap = core.bitmap.Bitmap(size)
    assert bitmap.take_range(0, size) == size
    assert bitmap.find(0) == -1
    bitmap.give(size - 1)
    assert {bitmap.find(start) for start in range(0, size, max(size // 97, 1))} == {size - 1}


def test_taking_what_is_taken_and_giving_what_is_free_change_nothing(core):
    bitmap = core.bitmap.Bitmap(100)
    assert bitmap.take(70)
    assert not bitmap.take(70)
    assert bitmap.free == 99
    assert bitmap.give(70)
    assert not bitmap.give(70)
    assert bitmap.free == 100


def test_taking_the_next_takes_the_lowest_free_index_from_a_start_on(core):
    bitmap = core.bitmap.Bitmap(200)
    bitmap.take_range(60, 130)
    assert [bitmap.take_next(59), bitmap.take_next(59), bitmap.take_next(0)] == [59, 130, 0]
    assert bitmap.free == 127
    assert bitmap.take_next(200) == -1


def test_a_range_counts_only_what_was_free(core):
    bitmap = core.bitmap.Bitmap(300)
    bitmap.take(64)
    assert bitmap.take_range(60, 200) == 139
    assert bitmap.find(60) == 200


@pytest.mark.parametrize("index", (-1, 100))
@pytest.mark.parametrize("method", ("is_free", "take", "give"))
def test_an_index_outside_is_refused(core, method, index):
    with pytest.raises(IndexError, match=f"index {index} is outside of a bitmap of 100 indices"):
        getattr(core.bitmap.Bitmap(100), method)(index)


def test_a_range_outside_is_refused(core):
    for start, stop in ((-1, 5), (5, 101), (7, 6)):
        with pytest.raises(IndexError, match="outside of a bitmap of 100"):
            core.bitmap.Bitmap(100).take_range(start, stop)


def test_a_bitmap_without_indices_is_refused(core):
    with pytest.raises(ValueError, match="at least 1 index, not 0"):
        core.bitmap.Bitmap(0)


class BothFormsAgreeWithASet(RuleBasedStateMachine):
    """The same operations on the interpreted bitmap, the compiled one, and a plain set of free indices."""

    @initialize(size=st.one_of(st.integers(1, 200), st.sampled_from(SIZES)))
    def start(self, size):
        self.size = size
        self.forms = [load(form).bitmap.Bitmap(size) for form in ("interpreted", "compiled")]
        self.free = set(range(size))

    def both(self, operation):
        interpreted, compiled = (operation(bitmap) for bitmap in self.forms)
        assert interpreted == compiled
        return interpreted

    @rule(data=st.data())
    def take(self, data):
        index = data.draw(st.integers(0, self.size - 1))
        assert self.both(lambda bitmap: bitmap.take(index)) == (index in self.free)
        self.free.discard(index)

    @rule(data=st.data())
    def give(self, data):
        index = data.draw(st.integers(0, self.size - 1))
        assert self.both(lambda bitmap: bitmap.give(index)) == (index not in self.free)
        self.free.add(index)

    @rule(data=st.data())
    def take_range(self, data):
        start = data.draw(st.integers(0, self.size))
        stop = data.draw(st.integers(start, self.size))
        taken = self.free.intersection(range(start, stop))
        assert self.both(lambda bitmap: bitmap.take_range(start, stop)) == len(taken)
        self.free -= taken

    @rule(data=st.data())
    def find(self, data):
        start = data.draw(st.integers(0, self.size))
        expected = min((index for index in self.free if index >= start), default=-1)
        assert self.both(lambda bitmap: bitmap.find(start)) == expected

    @rule(data=st.data())
    def take_next(self, data):
        start = data.draw(st.integers(0, self.size))
        expected = min((index for index in self.free if index >= start), default=-1)
        assert self.both(lambda bitmap: bitmap.take_next(start)) == expected
        self.free.discard(expected)

    @invariant()
    def counts_agree(self):
        if hasattr(self, "forms"):
            assert self.both(lambda bitmap: bitmap.free) == len(self.free)


TestBothFormsAgreeWithASet = BothFormsAgreeWithASet.TestCase
TestBothFormsAgreeWithASet.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
