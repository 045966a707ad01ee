# SPDX-License-Identifier: Apache-2.0
"""Removes what the tool has left running, mounted or lying about. The cache's results stay."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from .engine import Engine, engine
from .image import LOCAL_NAME, local_name
from .kind import delete
from .lifetime import exclusive, processes_in_folder
from .paths import cache_folder
from .progress import say

CGROUPS = Path("/sys/fs/cgroup")
KUBELET_GROUPS = ("kubelet", "kubelet.slice")
NETWORK = "kind"


def clean() -> None:
    """Deletes the cluster and every trace of it and of control planes without nodes, except the cache."""
    with exclusive():
        chosen = engine()
        delete(chosen)
        remove_network(chosen)
        remove_old_images(chosen)
        for folder in leaked_cgroups(CGROUPS):
            remove_cgroup(folder)
        remove_folders()


def remove_network(chosen: Engine) -> None:
    """Removes kind's network, unless containers of another kind cluster are on it."""
    there = chosen.run("network", "inspect", NETWORK).returncode == 0
    if there and chosen.run("network", "rm", NETWORK).returncode:
        say(f"network {NETWORK} is in use by other containers and stays")


def remove_old_images(chosen: Engine) -> None:
    """Removes local node images of other inputs than the current ones."""
    listed = chosen.output("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", LOCAL_NAME).split()
    for name in listed:
        if name != local_name():
            chosen.output("image", "rm", name)


def leaked_cgroups(root: Path) -> list[Path]:
    """Kubelet groups in the machine's cgroup v1 hierarchies that hold no process at any depth.

    A node's kubelet leaves them there; one that serves this machine itself has processes in them.
    """
    found = (hierarchy / name for hierarchy in sorted(root.glob("*/")) for name in KUBELET_GROUPS)
    return [folder for folder in found if (folder / "cgroup.procs").exists() and not occupied(folder)]


def occupied(folder: Path) -> bool:
    """Whether a cgroup or one below it has a process."""
    return any(procs.read_text().strip() for procs in folder.rglob("cgroup.procs"))


def remove_cgroup(folder: Path) -> None:
    """Removes an empty cgroup with the ones below it. (rmdir: the files in it are the kernel's.)"""
    for path, _folders, _files in os.walk(folder, topdown=False):
        os.rmdir(path)


def remove_folders() -> None:
    """Removes working folders of killed runs."""
    for folder in cache_folder("tmp").iterdir():
        shutil.rmtree(folder)
    for folder in Path(tempfile.gettempdir()).glob("podnet-apiserver-*"):
        if not processes_in_folder(folder):
            shutil.rmtree(folder, ignore_errors=True)
