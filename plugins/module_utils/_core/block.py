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

Reserved ordinals stay in `unallocated` but are not assigned unasked; nor are resting ones, which were freed a moment
ago. To find the oldest that may be assigned without looking at the others, the FIFO is kept as a queue of places:
an ordinal that is freed gets the next place, an allocated one leaves its place empty, and a bitmap over the places says
where assignable ordinals stand. A reservation is thus a mask, not a test per address. When the places run out, which is
after at least as many releases as the block has addresses, the queue closes up. Assigning and releasing cost the same
in a block of 64 addresses and of 4,096; only `spec` and reading one go through the whole block.
"""

from __future__ import annotations

from .bitmap import Bitmap

# What an address of a block is, as one letter: see Block.states.
USED, RESERVED, COOLING, FREE = "#", "r", "c", "."


class Attribute:
    """An entry of `attributes` and the ordinals that refer to it. `index` is its place in the spec given last."""

    __slots__ = ("entry", "index", "ordinals")

    def __init__(self, entry):
        self.entry = entry
        self.ordinals = set()
        self.index = -1


class Block:
    """One block. `size` is its number of addresses, `allocated` how many of them are; an ordinal is an index, from 0.

    Not thread-safe: one owner.
    """

    def __init__(self, spec, reserved=()):
        """Read a stored spec. `reserved` are the ordinals that are not assigned unasked.

        ValueError when the spec breaks the format's invariants: such a block must not be written.
        """
        self.cidr = spec["cidr"]
        problem = spec_problem(spec)
        if problem is not None:
            raise ValueError(f"block {self.cidr}: {problem}")
        self.sequence_number = spec.get("sequenceNumber", 0)
        self._spec = spec
        self._sequence_numbers = dict(spec.get("sequenceNumberForAllocation") or {})
        self._reserved = frozenset(reserved)
        self._resting = set()
        self.size = len(spec["allocations"])
        self.allocated = self.size - len(spec["unallocated"])
        self._read_attributes(spec)
        self._line_up(spec["unallocated"])

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
        """How many addresses can be assigned unasked: neither allocated nor reserved nor resting."""
        return self._assignable.free

    def spec(self):
        """The spec to store now, with everything that the stored one had and is not managed here."""
        for index, attribute in enumerate(self._attributes):
            attribute.index = index
        return {
            **self._spec,
            "allocations": [None if attribute is None else attribute.index for attribute in self._allocations],
            "unallocated": self._unallocated(),
            "attributes": [attribute.entry for attribute in self._attributes],
            "sequenceNumber": self.sequence_number,
            "sequenceNumberForAllocation": dict(self._sequence_numbers),
        }

    def reserve(self, reserved):
        """Replace the reserved ordinals, an iterable. Reserving an allocated one is allowed: it stays allocated."""
        self._reserved = frozenset(reserved)
        self._line_up(self._unallocated())

    def rest(self, ordinals):
        """Do not assign these ordinals unasked until `wake`. Allocated ones may be among them."""
        self._resting.update(ordinals)
        for ordinal in ordinals:
            self._withhold(ordinal)

    def wake(self, ordinals):
        """End the rest of these ordinals."""
        for ordinal in ordinals:
            self._resting.discard(ordinal)
            self._offer(ordinal)

    def assign(self, handle, secondary):
        """Allocate the next free ordinal to `handle` and return it, or -1 when nothing can be assigned.

        `secondary` is the map of owner attributes (pod, namespace, node, timestamp).
        """
        place = self._assignable.take_next(0)
        if place < 0:
            return -1
        ordinal = self._queue[place]
        self._allocate(ordinal, handle, secondary)
        return ordinal

    def assign_ordinal(self, ordinal, handle, secondary):
        """Allocate this very ordinal, reserved or not. Return False when it is allocated already."""
        if self._allocations[ordinal] is not None:
            return False
        self._withhold(ordinal)
        self._allocate(ordinal, handle, secondary)
        return True

    def ordinals_of(self, handle):
        """The ordinals that `handle` holds, ascending. Handles are compared exactly, with their case."""
        ordinals = []
        for attribute in self._attributes_of.get(handle, ()):
            ordinals.extend(attribute.ordinals)
        ordinals.sort()
        return ordinals

    def release(self, handle):
        """Free everything that `handle` holds and return the ordinals, ascending; [] when it holds nothing."""
        ordinals = self.ordinals_of(handle)
        self.release_ordinals(ordinals)
        return ordinals

    def release_ordinals(self, ordinals):
        """Free these ordinals, a list without duplicates, whoever holds them; all of them must be allocated."""
        for ordinal in ordinals:
            attribute = self._allocations[ordinal]
            attribute.ordinals.remove(ordinal)
            if not attribute.ordinals:
                self._unused.add(attribute)
            self._allocations[ordinal] = None
            self._sequence_numbers.pop(str(ordinal), None)
            self._enqueue(ordinal)
        self.allocated -= len(ordinals)
        self._prune_attributes()

    def holders(self):
        """(ordinal, attribute) of every allocated address, ascending. Attributes must not be changed."""
        return [
            (ordinal, attribute.entry) for ordinal, attribute in enumerate(self._allocations) if attribute is not None
        ]

    def holder(self, ordinal):
        """The attribute of an allocated ordinal, which must not be changed; None when it is free."""
        attribute = self._allocations[ordinal]
        return None if attribute is None else attribute.entry

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

    def _read_attributes(self, spec):
        attributes = [Attribute(entry) for entry in spec["attributes"]]
        self._allocations = [None if index is None else attributes[index] for index in spec["allocations"]]
        for ordinal, attribute in enumerate(self._allocations):
            if attribute is not None:
                attribute.ordinals.add(ordinal)
        # In the order in which they are stored; a dict is used as a set that keeps it.
        self._attributes = dict.fromkeys(attributes)
        self._attributes_of = {}
        for attribute in attributes:
            self._attributes_of.setdefault(attribute.entry.get("handle_id"), []).append(attribute)
        self._unused = {attribute for attribute in attributes if not attribute.ordinals}

    def _line_up(self, unallocated):
        """Give the unallocated ordinals the first places of the queue, in this order."""
        self._queue = list(unallocated)
        self._places = [-1] * self.size
        for place, ordinal in enumerate(self._queue):
            self._places[ordinal] = place
        self._assignable = Bitmap(2 * self.size)
        self._assignable.take_range(len(self._queue), 2 * self.size)
        for ordinal in self._reserved | self._resting:
            self._withhold(ordinal)

    def _unallocated(self):
        return [ordinal for ordinal in self._queue if ordinal is not None]

    def _enqueue(self, ordinal):
        if len(self._queue) == self._assignable.size:
            self._line_up(self._unallocated())
        self._places[ordinal] = len(self._queue)
        self._queue.append(ordinal)
        self._offer(ordinal)

    def _withhold(self, ordinal):
        """Have an ordinal not assigned unasked. It keeps its place."""
        place = self._places[ordinal]
        if place >= 0:
            self._assignable.take(place)

    def _offer(self, ordinal):
        """Have an ordinal assigned when its turn comes, unless something forbids it."""
        place = self._places[ordinal]
        if place >= 0 and ordinal not in self._reserved and ordinal not in self._resting:
            self._assignable.give(place)

    def _allocate(self, ordinal, handle, secondary):
        """Allocate an unallocated ordinal that is withheld."""
        attribute = self._attribute(handle, secondary)
        attribute.ordinals.add(ordinal)
        self._allocations[ordinal] = attribute
        self._sequence_numbers[str(ordinal)] = self.sequence_number
        self._queue[self._places[ordinal]] = None
        self._places[ordinal] = -1
        self.allocated += 1

    def _attribute(self, handle, secondary):
        """The first attribute that is equal to this, a new one at the end when there is none."""
        entry = {"handle_id": handle, "secondary": secondary}
        known = self._attributes_of.setdefault(handle, [])
        for attribute in known:
            if attribute.entry == entry:
                return attribute
        attribute = Attribute(entry)
        known.append(attribute)
        self._attributes[attribute] = None
        return attribute

    def _prune_attributes(self):
        """Drop attributes without an ordinal; the others keep their order."""
        for attribute in self._unused:
            if not attribute.ordinals:
                del self._attributes[attribute]
                handle = attribute.entry.get("handle_id")
                known = self._attributes_of[handle]
                known.remove(attribute)
                if not known:
                    del self._attributes_of[handle]
        self._unused.clear()


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
