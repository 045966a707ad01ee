# SPDX-License-Identifier: Apache-2.0
"""Nothing that the tool starts outlives it, and only one run at a time changes the cluster."""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .paths import cache
from .progress import say

# In front of a command: the kernel kills it when the thread that started it ends, however that ends.
BOUND = ("setpriv", "--pdeathsig", "KILL")

# In front of a command that mounts or starts processes: mount and process namespaces that end with it.
CONTAINED = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def end(process: subprocess.Popen | None) -> None:
    """Kills a process and waits for it. Nothing it holds is worth an orderly end, which takes seconds."""
    if process is not None:
        process.kill()
        process.wait()


@contextlib.contextmanager
def exclusive() -> Iterator[None]:
    """Holds the cache's lock. The kernel releases it when the holder ends."""
    with (cache() / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another run that holds {lock.name} ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def processes_with_argument(argument: str) -> list[int]:
    """The process ids of all processes that have `argument` among their arguments."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if argument.encode() in (process / "cmdline").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


def processes_in_folder(folder: Path) -> list[int]:
    """The process ids of all processes whose working folder is `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink() == folder:
                found.append(int(process.name))
    return found
