# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
# cython: binding=False, always_allow_keywords=False
"""A set of free indices with summary levels: the allocator under blocks and pools.

Level 0 has one bit per index, set while the index is free. Each bit of level n+1 says whether the word of level n
below it has any bit set. Finding the next free index therefore climbs until a word has a candidate and descends along
the lowest set bits: at most two words per level, whatever the size and however full the map is.

    size      levels   memory
    /26           1     8 B
    /16           3     8.1 KiB + 16 B
    /8            4     2.03 MiB

Why a set bit means free: "find the first free index" is then one count-trailing-zeros, without an inversion.
A summary bit may never lag behind, so `take` and `give` walk upwards only while a word becomes empty or stops being
empty; that is rarely more than one level.

`_check` is the only guard of the words' bounds.
The same file runs interpreted on the controller and compiled on the nodes (types: bitmap.pxd), where the arrays'
elements are reached through plain pointers. In the compiled form a literal shift such as `1 << n` would be a 32-bit
C int, hence the 64-bit locals `one` and `ones`.

The directives above make methods that are called from Python what those of CPython's own types are, with one argument
by position: in the stable ABI such a call takes 30 ns, and 110 ns without them. What they do takes less.
"""

from __future__ import annotations

from array import array

try:
    import cython
except ImportError:

    class cython:  # what the interpreted form needs of Cython, which nodes and controllers do not have
        compiled = False


if not cython.compiled:

    def _trailing_zeros(word):
        return (word & -word).bit_length() - 1

    def _count_ones(word):
        return bin(word).count("1")

    def _words_of(numbers):
        return numbers

    _offsets_of = _words_of


COMPILED = cython.compiled

WORD_BITS = 64
ALL_ONES = (1 << WORD_BITS) - 1


class Bitmap:
    """The free indices of `range(size)`, all free at first.

    `size` is a number of indices, at least 1. Every method that takes an index raises IndexError when it lies outside.
    Not thread-safe: one owner, the event loop or the module's main thread.
    """

    def __init__(self, size):
        if size < 1:
            raise ValueError(f"a bitmap needs at least 1 index, not {size}")
        self.size = size
        self.free = size
        offsets = array("q", [0])
        last_words = []
        bits = size
        while True:
            level_words = (bits + WORD_BITS - 1) // WORD_BITS
            offsets.append(offsets[-1] + level_words)
            last_words.append(ALL_ONES >> (level_words * WORD_BITS - bits))
            if level_words == 1:
                break
            bits = level_words
        # At once: an array that grows takes more than it needs.
        words = array("Q", [ALL_ONES]) * offsets[-1]
        for level, word in enumerate(last_words, 1):
            words[offsets[level] - 1] = word
        self._depth = len(offsets) - 1
        # The arrays keep their size from here on, so that pointers into them stay valid.
        self._arrays = (words, offsets)
        self._words = _words_of(words)
        self._offsets = _offsets_of(offsets)

    def __len__(self):
        return self.size

    def is_free(self, index):
        """Whether `index` is free."""
        self._check(index)
        return (self._words[index >> 6] >> (index & 63)) & 1 == 1

    def find(self, start):
        """The lowest free index at or after `start`, or -1. A `start` past the end is allowed and finds nothing."""
        if start < 0:
            start = 0
        if start >= self.size:
            return -1
        words = self._words
        offsets = self._offsets
        ones = ALL_ONES
        index = start
        for level in range(self._depth):
            word_index = offsets[level] + (index >> 6)
            if word_index >= offsets[level + 1]:
                return -1
            word = words[word_index] & (ones << (index & 63))
            if word != 0:
                index = (index & -64) | _trailing_zeros(word)
                for below in range(level - 1, -1, -1):
                    index = (index << 6) | _trailing_zeros(words[offsets[below] + index])
                return index
            index = (index >> 6) + 1
        return -1

    def take_next(self, start):
        """Mark the lowest free index at or after `start` as used and return it, or -1 when there is none."""
        index = self.find(start)
        if index >= 0:
            self._clear(0, index)
            self.free -= 1
        return index

    def take(self, index):
        """Mark `index` as used. Return False when it was not free."""
        if not self.is_free(index):
            return False
        self._clear(0, index)
        self.free -= 1
        return True

    def give(self, index):
        """Mark `index` as free again. Return False when it was free already."""
        self._check(index)
        words = self._words
        offsets = self._offsets
        one = 1
        for level in range(self._depth):
            word_index = offsets[level] + (index >> 6)
            bit = one << (index & 63)
            word = words[word_index]
            if word & bit != 0:
                return False
            words[word_index] = word | bit
            if word != 0:
                break
            index >>= 6
        self.free += 1
        return True

    def take_range(self, start, stop):
        """Mark every index of `range(start, stop)` as used; return how many of them were free.

        Works on whole words, so that masking a reservation costs the same for one address and for 64.
        """
        if start < 0 or stop > self.size or start > stop:
            raise IndexError(f"range {start}..{stop} is outside of a bitmap of {self.size} indices")
        ones = ALL_ONES
        taken = 0
        index = start
        while index < stop:
            word_index = index >> 6
            mask = ones << (index & 63)
            word_end = (word_index + 1) << 6
            if word_end > stop:
                mask &= ones >> (word_end - stop)
                word_end = stop
            mask &= self._words[word_index]
            if mask != 0:
                taken += _count_ones(mask)
                self._words[word_index] ^= mask
                if self._words[word_index] == 0:
                    self._clear(1, word_index)
            index = word_end
        self.free -= taken
        return taken

    def _clear(self, lowest, index):
        """Clear a set bit of the level `lowest`; when that empties its word, also the bit above that stands for it."""
        words = self._words
        offsets = self._offsets
        one = 1
        for level in range(lowest, self._depth):
            word_index = offsets[level] + (index >> 6)
            word = words[word_index] ^ one << (index & 63)
            words[word_index] = word
            if word != 0:
                return
            index >>= 6

    def _check(self, index):
        if index < 0 or index >= self.size:
            raise IndexError(f"index {index} is outside of a bitmap of {self.size} indices")
