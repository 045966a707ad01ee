# SPDX-License-Identifier: Apache-2.0
"""The tarball of a release: built, compared with what belongs into it, and imported as Galaxy would import it."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

from . import release
from .programs import CheckFailed, environment, run, variables
from .runner import Check

# What a release is made of: whole folders, and single files. Anything else in the tarball is a mistake, and so is
# anything of these that is missing from it.
FOLDERS = ("agent", "changelogs", "docs", "LICENSES", "meta", "playbooks", "plugins", "roles")
FILES = (
    "CHANGELOG.md",
    "README.md",
    "pyproject.toml",
    "requirements/build.txt",
    "requirements/cross.txt",
    "requirements/node.txt",
    "requirements/pip.txt",
    "setup.py",
    "tests/config.yml",
)
WRITTEN_BY_THE_BUILD = {"FILES.json", "MANIFEST.json"}
LARGEST = 20 << 20  # bytes: what Galaxy takes
# The importer's checks that are off by default; ansible-test runs in a check of its own.
IMPORTER = {"CHECK_REQUIRED_TAGS": "1", "RUN_ANSIBLE_TEST": "0", "OFFLINE_ANSIBLE_LINT": "1"}


def _run(folder: Path) -> str:
    root = release.export(folder)
    programs = Path(sys.executable).parent
    command = [programs / "ansible-galaxy", "collection", "build", "--force", "--output-path", folder]
    run(command, cwd=root, env=variables(folder, programs))
    (tarball,) = folder.glob("podnet-ipam-*.tar.gz")
    try:
        count = _compare(tarball, root)
        _import(tarball, folder)
    finally:
        tarball.unlink()
    return f"{count} files, imported without a warning"


def _compare(tarball: Path, root: Path) -> int:
    """How many files the tarball has, none missing and none too many."""
    with tarfile.open(tarball) as archive:
        shipped = {member.name for member in archive if member.isfile()} - WRITTEN_BY_THE_BUILD
    whole = [path for name in FOLDERS for path in (root / name).rglob("*") if path.is_file()]
    wanted = {str(path.relative_to(root)) for path in whole if not _made_by_a_release_only(path)} | set(FILES)
    problems = [f"missing in the tarball: {name}" for name in sorted(wanted - shipped)]
    problems += [f"in the tarball, but not meant to be: {name}" for name in sorted(shipped - wanted)]
    if tarball.stat().st_size > LARGEST:
        problems.append(f"the tarball has {tarball.stat().st_size} bytes, more than {LARGEST}")
    if problems:
        raise CheckFailed("\n".join([*problems, "see `manifest` in galaxy.yml and FOLDERS in this check"]))
    return len(shipped)


def _made_by_a_release_only(path: Path) -> bool:
    return path.suffix == ".pyc" or path.parent.name == "fragments"


def _import(tarball: Path, folder: Path) -> None:
    programs = environment("conventions")
    settings = {f"GALAXY_IMPORTER_{name}": value for name, value in IMPORTER.items()}
    command = [programs / "python", "-m", "galaxy_importer.main", tarball]
    output = run(command, cwd=folder, env=variables(folder, programs, **settings))
    findings = [line for line in output.splitlines() if line.startswith(("WARNING", "ERROR", "CRITICAL"))]
    if findings or "Importer processing completed successfully" not in output:
        raise CheckFailed("\n".join(findings or [output]))


CHECK = Check("galaxy", _run)
