# SPDX-License-Identifier: Apache-2.0
# The allocator as C code calls it. Built by allocator.py; not part of the wheel.

from podnet_ipam._core.bitmap cimport Bitmap


def allocate_and_release(Bitmap bitmap, Py_ssize_t operations):
    """Take the lowest free index and give it back, so many times, without a Python object in between."""
    cdef Py_ssize_t operation
    for operation in range(operations):
        bitmap.give(bitmap.take_next(0))
