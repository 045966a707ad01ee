# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
# C types for bitmap.py.

cimport cython as cy

cdef extern from *:
    """
    #define _trailing_zeros(word) __builtin_ctzll(word)
    #define _count_ones(word) __builtin_popcountll(word)
    """
    int _trailing_zeros(unsigned long long word) noexcept nogil
    int _count_ones(unsigned long long word) noexcept nogil


cdef unsigned long long ALL_ONES


cdef class Bitmap:
    cdef readonly Py_ssize_t size
    cdef readonly Py_ssize_t free
    cdef Py_ssize_t _depth
    cdef long long[::1] _offsets
    cdef unsigned long long[::1] _words

    cpdef bint is_free(self, Py_ssize_t index) except -1

    @cy.locals(ones="unsigned long long", word="unsigned long long", word_index=Py_ssize_t, level=Py_ssize_t, index=Py_ssize_t)
    cpdef Py_ssize_t find(self, Py_ssize_t start) noexcept

    @cy.locals(index=Py_ssize_t)
    cpdef Py_ssize_t find_cyclic(self, Py_ssize_t start) noexcept

    @cy.locals(one="unsigned long long", bit="unsigned long long", word="unsigned long long", word_index=Py_ssize_t, level=Py_ssize_t)
    cpdef bint take(self, Py_ssize_t index) except -1

    @cy.locals(one="unsigned long long", bit="unsigned long long", word="unsigned long long", word_index=Py_ssize_t, level=Py_ssize_t)
    cpdef bint give(self, Py_ssize_t index) except -1

    @cy.locals(ones="unsigned long long", mask="unsigned long long", taken=Py_ssize_t, index=Py_ssize_t, word_index=Py_ssize_t, word_end=Py_ssize_t)
    cpdef Py_ssize_t take_range(self, Py_ssize_t start, Py_ssize_t stop) except -1

    @cy.locals(one="unsigned long long", word_index=Py_ssize_t, level=Py_ssize_t)
    cdef void _clear_summary(self, Py_ssize_t index) noexcept

    cdef int _check(self, Py_ssize_t index) except -1
