# SPDX-License-Identifier: Apache-2.0
"""Finding a program: a ready one where there is one that fits, else the cached build.

`KUBEBUILDER_ASSETS` is an explicit choice and is taken as it is. A program on PATH may be of any age and is
asked for its version first. What goes into the node image is always built: it has to be static and to match.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from . import gobuild
from .errors import ClusterError
from .versions import pinned, same_minor_or_newer

# Program -> the arguments that make it tell its version, and the pin it is held against.
READY_MADE = {
    "kube-apiserver": (["--version"], "kubernetes"),
    "kubectl": (["version", "--client"], "kubernetes"),
    "etcd": (["--version"], "etcd"),
    "kind": (["version"], "kind"),
}
ENVTEST = ("kube-apiserver", "kubectl", "etcd")


def find(name: str) -> Path:
    """The path of a program, built if there is no ready one that fits."""
    return ready_made(name) or gobuild.build(name)


def ready_made(name: str) -> Path | None:
    """A program from `KUBEBUILDER_ASSETS` or PATH, if it is there and recent enough."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and name in ENVTEST and os.access(Path(assets) / name, os.X_OK):
        return Path(assets) / name
    found = shutil.which(name) if name in READY_MADE else None
    return Path(found) if found and recent_enough(name, found) else None


def recent_enough(name: str, path: str) -> bool:
    """Whether the program at `path` is of the pinned minor release or newer, by its own words."""
    arguments, pin = READY_MADE[name]
    try:
        told = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=20, check=False)
        return told.returncode == 0 and same_minor_or_newer(told.stdout, pinned(pin))
    except (OSError, subprocess.TimeoutExpired, ClusterError):
        return False
