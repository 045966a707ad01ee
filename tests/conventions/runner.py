# SPDX-License-Identifier: Apache-2.0
"""Running checks, two at a time, each in a folder of the cache; what passed with the same files is not run again."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from cluster.paths import cache_folder
from cluster.progress import human, say

from . import tree
from .programs import CheckFailed, locked, pythons

AT_ONCE = 2


@dataclass(frozen=True)
class Check:
    """`run` gets a folder that is kept from run to run, returns a few words about the result, or raises CheckFailed."""

    name: str
    run: Callable[[Path], str]


def run(checks: Sequence[Check], again: bool = False) -> int:
    """The exit code, after all of them ran."""
    failed = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = {pool.submit(_run, check, again): check for check in checks}
        for done in as_completed(running):
            name = running[done].name
            try:
                say(f"{name}: {done.result()}")
            except CheckFailed as error:
                failed.append(name)
                say(f"{name}: failed\n{error}\n")
    if failed:
        say(f"failed: {', '.join(sorted(failed))}")
    return 1 if failed else 0


def _run(check: Check, again: bool) -> str:
    with locked(f"conventions/{check.name}"):
        folder = cache_folder(f"conventions/{check.name}")
        passed, state = folder / "passed", _state()
        if not again and passed.exists() and passed.read_text() == state:
            return "passed before with the same files"
        passed.unlink(missing_ok=True)
        started = time.monotonic()
        words = check.run(folder)
        passed.write_text(state)
        return f"{words} ({human(time.monotonic() - started)})"


def _state() -> str:
    """Changes with the collection's files, the locked versions among them, and with the Pythons of the machine."""
    parts = [tree.digest(), sys.version, *(f"{version} {path.resolve()}" for version, path in pythons().items())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
