# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""A block: the addresses that a node claims together, in the form in which Calico stores them.

Source: IPAMBlock of Calico 3.29 to 3.32. The stored `spec` is the truth; this class keeps it in a shape in which
assigning and releasing cost little, and gives it back unchanged but for what was done to it:

- every ordinal is either allocated (an index into `attributes`) or stands in `unallocated`, a FIFO: taken from the
  head, given back at the tail, so that the address that was freed last is the last to be given out again;
- equal attributes are shared, and pruned with their last ordinal;
- `sequenceNumber` grows by one with each write, `sequenceNumberForAllocation` notes for each allocated ordinal the
  number before the write that allocated it; both are far above 2^53, hence integers all the way;
- fields of the spec and of attributes that are not known here are carried over.

Reserved ordinals stay in `unallocated` but are not assigned unasked: they are a mask over the bitmap of what can be
assigned, not a test per address. So do resting ones, which were freed a moment ago.
"""

from __future__ import annotations

from .bitmap import Bitmap

# What an address of a block is, as one letter: see Block.states.
USED, RESERVED, COOLING, FREE = "#", "r", "c", "."


class Block:
    """One block. `size` is its number of addresses; an ordinal is an index of one of them, from 0.

    Not thread-safe: one owner.
    """

    def __init__(self, spec, reserved=()):
        """Read a stored spec. `reserved` are the ordinals that are not assigned unasked.

        ValueError when the spec breaks the format's invariants: such a block must not be written.
        """
        self.cidr = spec["cidr"]
        self.sequence_number = spec.get("sequenceNumber", 0)
        self._spec = spec
        self._allocations = list(spec["allocations"])
        self._unallocated = list(spec["unallocated"])
        self._attributes = list(spec["attributes"])
        self._sequence_numbers = dict(spec.get("sequenceNumberForAllocation") or {})
        self._resting = set()
        self.size = len(self._allocations)
        self._check()
        self.reserve(reserved)

    @classmethod
    def empty(cls, cidr, size, affinity, now_ns, claim_time, reserved=()):
        """A block just claimed. `now_ns`, nanoseconds since 1970, starts its sequence; `claim_time` is RFC 3339."""
        return cls(
            {
                "cidr": cidr,
                "affinity": affinity,
                "affinityClaimTime": claim_time,
                "allocations": [None] * size,
                "unallocated": list(range(size)),
                "attributes": [],
                "sequenceNumber": now_ns,
                "sequenceNumberForAllocation": {},
                "deleted": False,
                "strictAffinity": False,
            },
            reserved,
        )

    @property
    def affinity(self):
        """`host:<node>`, `virtual:load-balancer`, or None when no one has claimed the block."""
        return self._spec.get("affinity")

    @property
    def assignable(self):
        """How many addresses can be assigned unasked: neither allocated nor reserved."""
        return self._free.free

    @property
    def allocated(self):
        """How many addresses are allocated."""
        return self.size - len(self._unallocated)

    def spec(self):
        """The spec to store now, with everything that the stored one had and is not managed here."""
        return {
            **self._spec,
            "allocations": list(self._allocations),
            "unallocated": list(self._unallocated),
            "attributes": list(self._attributes),
            "sequenceNumber": self.sequence_number,
            "sequenceNumberForAllocation": dict(self._sequence_numbers),
        }

    def reserve(self, reserved):
        """Replace the reserved ordinals, an iterable. Reserving an allocated one is allowed: it stays allocated."""
        self._free = Bitmap(self.size)
        self._reserved = frozenset(reserved)
        for ordinal in self._reserved | self._resting:
            self._free.take(ordinal)
        for ordinal in range(self.size):
            if self._allocations[ordinal] is not None:
                self._free.take(ordinal)

    def rest(self, ordinals):
        """Do not assign these ordinals unasked until `wake`. Allocated ones may be among them."""
        self._resting.update(ordinals)
        for ordinal in ordinals:
            self._free.take(ordinal)

    def wake(self, ordinals):
        """End the rest of these ordinals."""
        for ordinal in ordinals:
            self._resting.discard(ordinal)
            self._give(ordinal)

    def assign(self, handle, secondary):
        """Allocate the next free ordinal to `handle` and return it, or -1 when nothing can be assigned.

        `secondary` is the map of owner attributes (pod, namespace, node, timestamp).
        """
        if self._free.free == 0:
            return -1
        for position, ordinal in enumerate(self._unallocated):
            if self._free.is_free(ordinal):
                del self._unallocated[position]
                self._allocate(ordinal, handle, secondary)
                return ordinal
        return -1

    def assign_ordinal(self, ordinal, handle, secondary):
        """Allocate this very ordinal, reserved or not. Return False when it is allocated already."""
        if self._allocations[ordinal] is not None:
            return False
        self._unallocated.remove(ordinal)
        self._allocate(ordinal, handle, secondary)
        return True

    def ordinals_of(self, handle):
        """The ordinals that `handle` holds, ascending. Handles are compared exactly, with their case."""
        indices = [index for index, entry in enumerate(self._attributes) if entry.get("handle_id") == handle]
        if not indices:
            return []
        return [ordinal for ordinal, index in enumerate(self._allocations) if index in indices]

    def release(self, handle):
        """Free everything that `handle` holds and return the ordinals, ascending; [] when it holds nothing."""
        ordinals = self.ordinals_of(handle)
        self.release_ordinals(ordinals)
        return ordinals

    def release_ordinals(self, ordinals):
        """Free these ordinals, a list without duplicates, whoever holds them; all of them must be allocated."""
        for ordinal in ordinals:
            self._allocations[ordinal] = None
            self._unallocated.append(ordinal)
            self._sequence_numbers.pop(str(ordinal), None)
            self._give(ordinal)
        self._prune_attributes()

    def holders(self):
        """(ordinal, attribute) of every allocated address, ascending. Attributes must not be changed."""
        return [
            (ordinal, self._attributes[index]) for ordinal, index in enumerate(self._allocations) if index is not None
        ]

    def states(self):
        """What each address is, in order: a text of USED, RESERVED, COOLING and FREE; FREE ones can be assigned.

        A reserved address that is allocated all the same is USED.
        """
        return "".join([self._state(ordinal) for ordinal in range(self.size)])

    def _state(self, ordinal):
        if self._allocations[ordinal] is not None:
            return USED
        if ordinal in self._reserved:
            return RESERVED
        return COOLING if ordinal in self._resting else FREE

    def _allocate(self, ordinal, handle, secondary):
        entry = {"handle_id": handle, "secondary": secondary}
        try:
            index = self._attributes.index(entry)
        except ValueError:
            index = len(self._attributes)
            self._attributes.append(entry)
        self._allocations[ordinal] = index
        self._sequence_numbers[str(ordinal)] = self.sequence_number
        self._free.take(ordinal)

    def _give(self, ordinal):
        """Make an ordinal assignable unless something forbids it."""
        if self._allocations[ordinal] is None and ordinal not in self._reserved and ordinal not in self._resting:
            self._free.give(ordinal)

    def _prune_attributes(self):
        """Drop attributes without an ordinal and renumber the others, in order."""
        used = sorted({index for index in self._allocations if index is not None})
        if len(used) == len(self._attributes):
            return
        renumbered = {old: new for new, old in enumerate(used)}
        self._attributes = [self._attributes[index] for index in used]
        self._allocations = [None if index is None else renumbered[index] for index in self._allocations]

    def _check(self):
        problem = spec_problem(self._spec)
        if problem is not None:
            raise ValueError(f"block {self.cidr}: {problem}")


def spec_problem(spec):
    """The broken invariant that forbids working with a stored spec, as a text; None when there is none."""
    allocations, count = spec["allocations"], len(spec["attributes"])
    allocated = [ordinal for ordinal, index in enumerate(allocations) if index is not None]
    if sorted(list(spec["unallocated"]) + allocated) != list(range(len(allocations))):
        return "each ordinal must be either allocated or in unallocated, once"
    for ordinal in allocated:
        if not 0 <= allocations[ordinal] < count:
            return "an allocation refers to an attribute that does not exist"
    return None
