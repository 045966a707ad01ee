# SPDX-License-Identifier: Apache-2.0
"""The CNI executable in its two forms: compiled, and the Python script for machines that nothing is compiled for."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from .plane import ROOT, SHIM

FORMS = ("compiled", "script")
_SCRIPT = ROOT / "agent/shim/shim.py"


def shim(form: str, folder: Path) -> Path:
    """One of the two; a script is made in `folder`."""
    return SHIM if form == "compiled" else script(folder)


def script(folder: Path, constants: Mapping[str, object] = MappingProxyType({})) -> Path:
    """The script, made executable; with other values of the constants that are named."""
    source = _SCRIPT.read_text()
    for name, value in constants.items():
        [line] = [line for line in source.splitlines() if line.startswith(f"{name} = ")]
        source = source.replace(f"{line}\n", f"{name} = {value}\n")
    file = folder / "podnet-ipam"
    file.write_text(f"#!{sys.executable} -IS\n{source}")
    file.chmod(0o755)
    return file
