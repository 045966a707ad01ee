# SPDX-License-Identifier: Apache-2.0
"""Nanoseconds to allocate an address and to release it again: the bitmap by size and filling, and blocks."""

from __future__ import annotations

import importlib.util
import statistics
import sysconfig
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

from setuptools import Distribution, Extension
from support.core import load

BITS = (6, 8, 12, 16, 20, 24)
FILLINGS = (0, 0.5, 0.9, 0.99, 0.999, 0.9999)
ONE_LEFT = 1
CASES = [*((filling, False) for filling in (*FILLINGS, ONE_LEFT)), (0, True), (0.9999, True)]
RESERVED = 16  # one of so many addresses is reserved where some are
PERIOD = 1 << 14  # free addresses are spread: each stretch of this length is filled alike
ROUNDS = 25
OPERATIONS = {"C": 20_000, "compiled": 5_000, "interpreted": 300}
BLOCK_SIZES, BLOCK_FILLINGS = (64, 4096), (0, 0.5, 0.99)


def report() -> dict:
    """Print the figures and return them: ns of a pair, medians."""
    with tempfile.TemporaryDirectory(prefix="podnet-bench-") as folder:
        in_c = _build(Path(folder)).allocate_and_release
        pairs = [
            {"form": form, "bits": bits, "filling": filling, "reserved": reserved, "ns": ns}
            for filling, reserved in CASES
            for bits in BITS
            for form, ns in _bitmap_pairs(in_c, bits, filling, reserved).items()
        ]
    figures = {"pairs": pairs, "memory": [_memory(bits) for bits in BITS], "blocks": list(_block_pairs())}
    _print(figures)
    return figures


def _bitmap_pairs(in_c: Callable, bits: int, filling: float, reserved: bool) -> dict[str, float]:
    """ns of a pair in C, compiled and called from Python, and interpreted."""
    compiled = _filled(load("compiled").bitmap.Bitmap, bits, filling, reserved)
    interpreted = _filled(load("interpreted").bitmap.Bitmap, bits, filling, reserved)
    return {
        "C": _median(lambda operations: in_c(compiled, operations), OPERATIONS["C"]),
        "compiled": _median(lambda operations: _from_python(compiled, operations), OPERATIONS["compiled"]),
        "interpreted": _median(lambda operations: _from_python(interpreted, operations), OPERATIONS["interpreted"]),
    }


def _from_python(bitmap, operations: int) -> None:
    for _operation in range(operations):
        bitmap.give(bitmap.take_next(0))


def _filled(bitmap_class: type, bits: int, filling: float, reserved: bool):
    size = 1 << bits
    bitmap = bitmap_class(size)
    if reserved:
        for index in range(0, size, RESERVED):
            bitmap.take(index)
    if filling == ONE_LEFT:
        bitmap.take_range(0, size - 1)
        return bitmap
    for start in range(0, size, PERIOD):
        bitmap.take_range(start, start + int(min(PERIOD, size) * filling))
    return bitmap


def _median(run: Callable[[int], None], operations: int) -> float:
    times = []
    for _round in range(ROUNDS):
        started = time.thread_time_ns()  # without the time in which others have the processor
        run(operations)
        times.append((time.thread_time_ns() - started) / operations)
    return round(statistics.median(times), 1)


def _memory(bits: int) -> dict:
    """What a new bitmap takes, with the objects around its words."""
    bitmap_class = load("compiled").bitmap.Bitmap
    tracemalloc.start()
    bitmap = bitmap_class(1 << bits)
    taken, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"bits": bits, "bytes": taken, "bits_per_address": round(taken * 8 / len(bitmap), 3)}


def _block_pairs():
    for form in ("compiled", "interpreted"):
        for size in BLOCK_SIZES:
            for filling in BLOCK_FILLINGS:
                block = load(form).block.Block.empty("10.0.0.0/20", size, "host:node-1", 1, "2026-01-01T00:00:00Z")
                for number in range(int(size * filling)):
                    block.assign(f"net.{number}", {"pod": f"web-{number}", "namespace": "default"})
                ns = _median(lambda operations, block=block: _in_block(block, operations), OPERATIONS["interpreted"])
                yield {"form": form, "size": size, "filling": filling, "ns": ns}


def _in_block(block, operations: int) -> None:
    owner = {"pod": "web", "namespace": "default"}
    for _operation in range(operations):
        block.assign("net.new", owner)
        block.release("net.new")


def _build(folder: Path):
    """Compile pairs.pyx against the installed wheel."""
    from Cython.Build import cythonize

    source = folder / "pairs.pyx"
    source.write_text(Path(__file__).with_name("pairs.pyx").read_text())
    # Cython takes only folders with an __init__ for the packages that the wheel's .pxd files are in.
    installed = Path(sysconfig.get_path("platlib")) / "podnet_ipam/_core"
    package = folder / "podnet_ipam/_core"
    package.mkdir(parents=True)
    for init in (package / "__init__.py", package.parent / "__init__.py"):
        init.touch()
    (package / "bitmap.pxd").write_text((installed / "bitmap.pxd").read_text())
    extensions = cythonize(
        [Extension("pairs", [str(source)])], include_path=[str(folder)], quiet=True, language_level=3
    )
    command = Distribution({"ext_modules": extensions}).get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(folder), str(folder / "temp")
    command.ensure_finalized()
    command.run()
    spec = importlib.util.spec_from_file_location("pairs", command.get_ext_fullpath("pairs"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _print(figures: dict) -> None:
    ns = {(row["form"], row["filling"], row["reserved"], row["bits"]): row["ns"] for row in figures["pairs"]}
    print("Allocator: allocate the next free address and release it again, ns per pair (medians)")
    print(f"{'addresses':<44}" + "".join(f"{'2^' + str(bits):>9}" for bits in BITS))
    for form, filling, reserved in dict.fromkeys(key[:3] for key in sorted(ns, key=lambda key: (key[0], key[2]))):
        title = f"{form}, {'one address left' if filling == ONE_LEFT else f'{filling:.2%} full'}"
        title += f", 1 of {RESERVED} reserved" if reserved else ""
        print(f"{title:<44}" + "".join(f"{ns[form, filling, reserved, bits]:>9.0f}" for bits in BITS))
    print(
        f"{'memory, bits per address':<44}" + "".join(f"{row['bits_per_address']:>9.2f}" for row in figures["memory"])
    )
    print("Block: assign and release one address, ns per pair (medians)")
    for form in ("compiled", "interpreted"):
        for size in BLOCK_SIZES:
            cells = [row["ns"] for row in figures["blocks"] if (row["form"], row["size"]) == (form, size)]
            fillings = ", ".join(
                f"{ns:.0f} ({filling:.0%} full)" for ns, filling in zip(cells, BLOCK_FILLINGS, strict=True)
            )
            print(f"{form}, {size} addresses: {fillings}")
    print()
