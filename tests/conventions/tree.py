# SPDX-License-Identifier: Apache-2.0
"""The collection's files, put where Ansible's tools want them: below ansible_collections/podnet/ipam."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from .programs import ROOT

INSIDE = Path("ansible_collections/podnet/ipam")


@cache
def files() -> tuple[str, ...]:
    """What is versioned and what would be: all files that are not ignored, as paths from the root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(sorted(name for name in listed.split("\0") if name and (ROOT / name).exists()))


@cache
def digest() -> str:
    """The same as long as names, modes and contents are the same."""
    whole = hashlib.sha256()
    for name in files():
        path = ROOT / name
        executable = os.access(path, os.X_OK)
        whole.update(f"{name} {executable} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def export(folder: Path) -> Path:
    """A fresh copy of all files below `folder`; the collection's root in it."""
    root = folder / INSIDE
    shutil.rmtree(folder / INSIDE.parts[0], ignore_errors=True)
    for name in files():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    return root
