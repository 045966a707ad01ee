# SPDX-License-Identifier: Apache-2.0
"""Where things are: the sources beside this file, everything that is made in the cache."""

from __future__ import annotations

import os
from pathlib import Path

SOURCES = Path(__file__).resolve().parent


def cache() -> Path:
    """The cache folder: `PODNET_CACHE`, else `podnet-ipam` in the user's cache folder. Created if absent."""
    chosen = os.environ.get("PODNET_CACHE")
    if chosen:
        folder = Path(chosen).absolute()
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "podnet-ipam"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cache_folder(name: str) -> Path:
    """A folder of the cache by its name. Created if absent."""
    folder = cache() / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def kubeconfig() -> Path:
    """The kind cluster's kubeconfig; its server address is reachable from this machine."""
    return cache() / "kubeconfig"
