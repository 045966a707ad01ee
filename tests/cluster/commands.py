# SPDX-License-Identifier: Apache-2.0
"""Running long commands with their output in a log file and their time on the terminal."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import ClusterError
from .lifetime import BOUND, end
from .paths import cache_folder
from .progress import Step

TAIL_LINES = 15


def run_logged(
    command: Sequence[str | Path],
    log: str,
    step: Step,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
) -> None:
    """Runs a command with its output in the cache's log file `log`.log.

    Raises ClusterError with the log's path and its last lines when the command fails.
    """
    path = cache_folder("logs") / f"{log}.log"
    with path.open("wb") as out:
        out.write(f"$ {' '.join(map(str, command))}\n".encode())
        out.flush()
        process = subprocess.Popen(
            [*BOUND, *command],
            cwd=cwd,
            env=env,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
        )
        if stdin is not None:
            process.stdin.write(stdin)
            process.stdin.close()
        try:
            while process.poll() is None:
                step.tick()
                time.sleep(0.1)
        except BaseException:
            end(process)
            raise
    if process.returncode:
        raise ClusterError(
            f"{step.what}: `{Path(command[0]).name}` ended with code {process.returncode}. "
            f"Its output is in {path}; the last lines:\n{tail(path)}"
        )


def output_of(*command: str | Path) -> str:
    """The output of a short command. Raises ClusterError with its words when it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        words = " ".join(map(str, command))
        raise ClusterError(f"`{words}` ended with code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def tail(path: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a file, indented."""
    found = path.read_text(errors="replace").splitlines()[-lines:]
    return "\n".join(f"  {line}" for line in found)
