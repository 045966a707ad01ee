# SPDX-License-Identifier: Apache-2.0
"""Running other programs: Pythons of the machine, environments with locked packages, and a plain set of variables."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from cluster.paths import cache_folder

ROOT = Path(__file__).resolve().parents[2]
USABLE = "import sys, venv, ensurepip; print(*sys.version_info[:2], sep='.')"
# Of the variables around us, only what a package installer may need to reach its registry, and where it keeps files.
KEPT = ("PIP_", "SSL_", "REQUESTS_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


class CheckFailed(Exception):
    """A check found something; the words are for a person to read."""


@cache
def pythons() -> dict[str, Path]:
    """The machine's Pythons that can make environments, by version such as `3.11`, oldest first."""
    found = {}
    for minor in range(9, 16):
        version = f"3.{minor}"
        inside_pyenv = (
            f"{os.environ.get('PYENV_ROOT') or Path.home() / '.pyenv'}/versions/{version}.*/bin/python{version}"
        )
        named = shutil.which(f"python{version}")
        for candidate in ([named] if named else []) + sorted(glob.glob(inside_pyenv)):
            if _is_usable(candidate, version):
                found[version] = Path(candidate)
                break
    return found


def _is_usable(candidate: str, version: str) -> bool:
    done = subprocess.run([candidate, "-c", USABLE], capture_output=True, text=True, check=False)
    return done.returncode == 0 and done.stdout.strip() == version


def python_folder() -> Path:
    """A folder to search for programs, with the Pythons of `pythons()` and nothing else."""
    folder = cache_folder("pythons")
    with locked("pythons"):  # checks that run beside each other all come here first
        for version, path in pythons().items():
            link = folder / f"python{version}"
            if not (link.is_symlink() and link.readlink() == path):
                link.unlink(missing_ok=True)
                link.symlink_to(path)
    return folder


def environment(name: str, versions: Sequence[str] = ()) -> Path:
    """The `bin` of an environment with the packages of requirements/`name`.txt, made if it is absent or out of date.

    Its Python is the oldest of these versions that the machine has; without any, the one that runs this program.
    """
    python = _oldest(name, versions) if versions else Path(sys.executable)
    requirements = ROOT / "requirements" / f"{name}.txt"
    folder = cache_folder("environments") / name
    stamp = f"{python} {hashlib.sha256(requirements.read_bytes()).hexdigest()}"
    with locked(f"environments/{name}"):
        made = folder / "made-from"
        if not (made.exists() and made.read_text() == stamp):
            shutil.rmtree(folder, ignore_errors=True)
            run([python, "-m", "venv", folder])
            pip = [folder / "bin/python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
            run([*pip, "--require-hashes", "-r", requirements], env=variables(Path.home()))
            made.write_text(stamp)
    return folder / "bin"


def _oldest(name: str, versions: Sequence[str]) -> Path:
    for version, path in pythons().items():
        if version in versions:
            return path
    raise CheckFailed(f"{name} needs one of the Pythons {', '.join(versions)} with venv; there is none")


def variables(home: Path, *path: Path, **more: str) -> dict[str, str]:
    """A set of environment variables in which nothing of the user's settings remains; programs are found in `path`."""
    kept = {key: value for key, value in os.environ.items() if key.startswith(KEPT)}
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return {
        "PIP_CACHE_DIR": str(caches / "pip"),
        **kept,
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "PATH": ":".join([*map(str, path), SYSTEM_PATH]),
        **more,
    }


def run(command: Sequence[str | Path], cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """What the program printed; CheckFailed with it if it failed."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise CheckFailed(f"{done.stdout.strip()}\n{Path(command[0]).name} ended with code {done.returncode}")
    return done.stdout


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Only one process at a time."""
    path = cache_folder("locks") / name.replace("/", "-")
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
