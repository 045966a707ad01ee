# SPDX-License-Identifier: Apache-2.0
"""Nanoseconds per operation of the bitmap, called from Python as the block calls it."""

from __future__ import annotations

import statistics
import time

from support.core import load

SIZES = {"/26": 6, "/16": 16, "/8": 24}
ROUNDS = 15
OPERATIONS = {"interpreted": 2_000, "compiled": 20_000}


def report() -> None:
    print("Allocator: allocate the next free address and release it again, ns per pair (medians)")
    print(f"{'':24}" + "".join(f"{size:>12}" for size in SIZES))
    figures = {}
    for form in ("interpreted", "compiled"):
        for filling in ("empty", "one address free"):
            row = [_pair(load(form).bitmap.Bitmap(1 << bits), filling, OPERATIONS[form]) for bits in SIZES.values()]
            figures[form, filling] = row
            print(f"{form + ', ' + filling:<32}"[:32] + "".join(f"{figure:>12.0f}" for figure in row))
    for filling in ("empty", "one address free"):
        ratios = [slow / fast for slow, fast in zip(figures["interpreted", filling], figures["compiled", filling])]
        print(f"{'compiled is faster by':<32}" + "".join(f"{ratio:>11.1f}x" for ratio in ratios))
    print()


def _pair(bitmap, filling: str, operations: int) -> float:
    if filling != "empty":
        bitmap.take_range(0, len(bitmap) - 1)
    times = []
    for _round in range(ROUNDS):
        started = time.perf_counter_ns()
        for _operation in range(operations):
            index = bitmap.find(0)
            bitmap.take(index)
            bitmap.give(index)
        times.append((time.perf_counter_ns() - started) / operations)
    return statistics.median(times)
