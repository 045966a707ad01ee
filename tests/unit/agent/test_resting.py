# SPDX-License-Identifier: Apache-2.0
"""Resting addresses of a block against a plain model: never given to two, never lost after their time."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from podnet_ipam._core.block import Block
from podnet_ipam.agent.resting import Resting

SIZE = 8
PODS = ("db-0", "db-1", "")
ordinals = st.integers(0, SIZE - 1)


class RestingAddresses(RuleBasedStateMachine):
    """A block's addresses are given out, freed for a pod or for nobody, and given back, while time goes by."""

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.resting = Resting(lambda: self.now)
        self.block = Block.empty("10.0.0.0/29", SIZE, "host:node-1", 1, "2026-01-01T00:00:00Z")
        self.held: dict[int, str] = {}
        self.ends: dict[int, tuple[float, str]] = {}
        self.handles = 0

    def wake(self):
        rested = self.resting.take_rested()
        self.block.wake(rested)
        return rested

    def hold(self, ordinal):
        assert ordinal not in self.held
        self.held[ordinal] = f"h{self.handles}"

    @rule()
    def a_pod_gets_any_address(self):
        self.wake()
        self.handles += 1
        ordinal = self.block.assign(f"h{self.handles}", {})
        free = [number for number in range(SIZE) if number not in self.held and number not in self.ends]
        assert ordinal in free if free else ordinal < 0
        if ordinal >= 0:
            self.hold(ordinal)

    @rule(pod=st.sampled_from(PODS[:2]))
    def a_pod_gets_what_is_kept_for_it(self, pod):
        self.wake()
        kept = self.resting.kept_for(pod)
        assert sorted(kept) == sorted(number for number, (_end, owner) in self.ends.items() if owner == pod)
        if kept:
            self.handles += 1
            assert self.block.assign_ordinal(kept[0], f"h{self.handles}", {})
            self.resting.remove(kept[0])
            self.block.wake([kept[0]])
            del self.ends[kept[0]]
            self.hold(kept[0])

    @rule(ordinal=ordinals, seconds=st.integers(1, 20), pod=st.sampled_from(PODS))
    def an_address_is_freed(self, ordinal, seconds, pod):
        if ordinal in self.held:
            assert self.block.release(self.held.pop(ordinal)) == [ordinal]
            self.resting.add([ordinal], seconds, pod)
            self.block.rest([ordinal])
            self.ends[ordinal] = (self.now + seconds, pod)

    @rule(ordinal=ordinals, seconds=st.integers(1, 20))
    def a_release_is_done_again(self, ordinal, seconds):
        if ordinal in self.ends:
            end, pod = self.ends[ordinal]
            self.resting.add([ordinal], seconds)
            self.ends[ordinal] = (max(end, self.now + seconds), pod)

    @rule(seconds=st.integers(1, 12))
    def time_goes_by(self, seconds):
        self.now += seconds
        over = {number for number, (end, _pod) in self.ends.items() if end <= self.now}
        assert sorted(self.wake()) == sorted(over)
        for ordinal in over:
            del self.ends[ordinal]

    @invariant()
    def what_is_neither_held_nor_resting_can_be_given_out(self):
        assert self.block.assignable == SIZE - len(self.held) - len(self.ends)

    @invariant()
    def the_next_end_is_known(self):
        nearest = min((end for end, _pod in self.ends.values()), default=None)
        assert self.resting.seconds == (None if nearest is None else nearest - self.now)

    @invariant()
    def each_knows_whom_it_rests_for(self):
        assert {number: self.resting.pod(number) for number in self.resting} == {
            number: pod for number, (_end, pod) in self.ends.items()
        }


TestRestingAddresses = RestingAddresses.TestCase
