# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
# C types for bitmap.py.

cimport cython as cy

cdef extern from *:
    """
    #define _trailing_zeros(word) __builtin_ctzll(word)
    #define _count_ones(word) __builtin_popcountll(word)

    /* Where the elements of an array.array are. NULL with an exception set when it is none. */
    static void *_elements_of(PyObject *numbers)
    {
        Py_buffer view;
        if (PyObject_GetBuffer(numbers, &view, PyBUF_SIMPLE) < 0)
            return NULL;
        PyBuffer_Release(&view);
        return view.buf;
    }
    #define _words_of(numbers) ((unsigned long long *)_elements_of(numbers))
    #define _offsets_of(numbers) ((long long *)_elements_of(numbers))
    """
    int _trailing_zeros(unsigned long long word) noexcept nogil
    int _count_ones(unsigned long long word) noexcept nogil
    unsigned long long *_words_of(object numbers) except NULL
    long long *_offsets_of(object numbers) except NULL


cdef unsigned long long ALL_ONES


@cy.final
cdef class Bitmap:
    cdef readonly Py_ssize_t size
    cdef readonly Py_ssize_t free
    cdef Py_ssize_t _depth
    cdef tuple _arrays
    cdef long long *_offsets
    cdef unsigned long long *_words

    cpdef bint is_free(self, Py_ssize_t index) except -1

    @cy.locals(words="unsigned long long *", offsets="long long *", ones="unsigned long long", word="unsigned long long", word_index=Py_ssize_t, level=Py_ssize_t, below=Py_ssize_t, index=Py_ssize_t)
    cpdef Py_ssize_t find(self, Py_ssize_t start) noexcept

    @cy.locals(index=Py_ssize_t)
    cpdef Py_ssize_t take_next(self, Py_ssize_t start) noexcept

    cpdef bint take(self, Py_ssize_t index) except -1

    @cy.locals(words="unsigned long long *", offsets="long long *", one="unsigned long long", bit="unsigned long long", word="unsigned long long", word_index=Py_ssize_t, level=Py_ssize_t)
    cpdef bint give(self, Py_ssize_t index) except -1

    @cy.locals(ones="unsigned long long", mask="unsigned long long", taken=Py_ssize_t, index=Py_ssize_t, word_index=Py_ssize_t, word_end=Py_ssize_t)
    cpdef Py_ssize_t take_range(self, Py_ssize_t start, Py_ssize_t stop) except -1

    @cy.locals(words="unsigned long long *", offsets="long long *", one="unsigned long long", word="unsigned long long", word_index=Py_ssize_t, level=Py_ssize_t)
    cdef void _clear(self, Py_ssize_t lowest, Py_ssize_t index) noexcept

    cdef int _check(self, Py_ssize_t index) except -1
