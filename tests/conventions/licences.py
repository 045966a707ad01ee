# SPDX-License-Identifier: Apache-2.0
"""`reuse lint`: every file says whose it is and under which licence, in itself or in REUSE.toml."""

from __future__ import annotations

from pathlib import Path

from . import tree
from .programs import environment, run, variables
from .runner import Check


def _run(folder: Path) -> str:
    root = tree.export(folder)
    programs = environment("conventions")
    run([programs / "reuse", "--root", root, "lint"], env=variables(folder, programs))
    return f"{len(tree.files())} files say their licence"


CHECK = Check("licences", _run)
