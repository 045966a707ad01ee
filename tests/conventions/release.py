# SPDX-License-Identifier: Apache-2.0
"""The tree as a release would have it: the changelog is written from its fragments, if the version is not in it yet."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from . import tree
from .programs import run, variables

PROGRAMS = Path(sys.executable).parent


def export(folder: Path) -> Path:
    """A fresh copy below `folder`; the collection's root in it."""
    root = tree.export(folder)
    environment = variables(folder, PROGRAMS, ANSIBLE_COLLECTIONS_PATH=str(folder))
    run([PROGRAMS / "antsibull-changelog", "lint"], cwd=root, env=environment)
    version = yaml.safe_load((root / "galaxy.yml").read_text())["version"]
    changelog = root / "changelogs/changelog.yaml"
    if not changelog.exists() or version not in yaml.safe_load(changelog.read_text())["releases"]:
        command = [PROGRAMS / "antsibull-changelog", "release", "--version", version]
        run(command, cwd=root, env=environment)
    return root
