# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
# C types for block.py.

cimport cython as cy

from .bitmap cimport Bitmap


cdef class Block:
    cdef readonly str cidr
    cdef public object sequence_number
    cdef readonly Py_ssize_t size
    cdef dict _spec
    cdef list _allocations
    cdef list _unallocated
    cdef list _attributes
    cdef dict _sequence_numbers
    cdef frozenset _reserved
    cdef set _resting
    cdef Bitmap _free

    cpdef dict spec(self)

    @cy.locals(position=Py_ssize_t, ordinal=Py_ssize_t)
    cpdef Py_ssize_t assign(self, str handle, dict secondary) except -2

    cpdef bint assign_ordinal(self, Py_ssize_t ordinal, str handle, dict secondary) except -1

    cpdef list ordinals_of(self, str handle)

    cpdef list release(self, str handle)

    cpdef release_ordinals(self, list ordinals)

    cdef str _state(self, Py_ssize_t ordinal)

    @cy.locals(index=Py_ssize_t)
    cdef void _allocate(self, Py_ssize_t ordinal, str handle, dict secondary) except *

    cdef void _give(self, Py_ssize_t ordinal) except *

    cdef void _prune_attributes(self) except *
