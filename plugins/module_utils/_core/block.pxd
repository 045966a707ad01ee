# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
# C types for block.py.

cimport cython as cy

from .bitmap cimport Bitmap


@cy.final
cdef class Attribute:
    cdef dict entry
    cdef set ordinals
    cdef Py_ssize_t index


cdef class Block:
    cdef readonly str cidr
    cdef public object sequence_number
    cdef readonly Py_ssize_t size
    cdef readonly Py_ssize_t allocated
    cdef dict _spec
    cdef dict _sequence_numbers
    cdef frozenset _reserved
    cdef set _resting
    cdef list _allocations
    cdef dict _attributes
    cdef dict _attributes_of
    cdef set _unused
    cdef list _queue
    cdef list _places
    cdef Bitmap _assignable

    @cy.locals(index=Py_ssize_t, attribute=Attribute)
    cpdef dict spec(self)

    @cy.locals(place=Py_ssize_t, ordinal=Py_ssize_t)
    cpdef Py_ssize_t assign(self, str handle, dict secondary) except -2

    cpdef bint assign_ordinal(self, Py_ssize_t ordinal, str handle, dict secondary) except -1

    @cy.locals(ordinals=list, attribute=Attribute)
    cpdef list ordinals_of(self, str handle)

    cpdef list release(self, str handle)

    @cy.locals(ordinal=Py_ssize_t, attribute=Attribute)
    cpdef release_ordinals(self, list ordinals)

    @cy.locals(attribute=Attribute)
    cpdef dict holder(self, Py_ssize_t ordinal)

    cdef str _state(self, Py_ssize_t ordinal)

    @cy.locals(ordinal=Py_ssize_t, attribute=Attribute)
    cpdef list holders(self)

    @cy.locals(attributes=list, ordinal=Py_ssize_t, attribute=Attribute)
    cdef void _read_attributes(self, dict spec) except *

    @cy.locals(place=Py_ssize_t, ordinal=Py_ssize_t)
    cdef void _line_up(self, list unallocated) except *

    cdef list _unallocated(self)

    cdef void _enqueue(self, Py_ssize_t ordinal) except *

    @cy.locals(place=Py_ssize_t)
    cdef void _withhold(self, Py_ssize_t ordinal) except *

    @cy.locals(place=Py_ssize_t)
    cdef void _offer(self, Py_ssize_t ordinal) except *

    @cy.locals(attribute=Attribute)
    cdef void _allocate(self, Py_ssize_t ordinal, str handle, dict secondary) except *

    @cy.locals(known=list, attribute=Attribute)
    cdef Attribute _attribute(self, str handle, dict secondary)

    @cy.locals(known=list, attribute=Attribute)
    cdef void _prune_attributes(self) except *
