# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Tombstones: DELs that could not be carried out when they came, in files that hold the request itself.

The executable leaves them while the agent is away, the agent itself while the API server is away and nothing is known
here of the attachment. Either way the runtime has been told that the DEL succeeded, so each file stays until it has, or
until it turns out that none of its kind can, such as one without a configuration. An ADD of the same container has them
carried out first, as they would free what it gets.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from .protocol import Answer, Request, encode_request, parse_request

log = logging.getLogger(__name__)


class Spool:
    """The folder of tombstones. A name that starts with a dot is still being written."""

    def __init__(self, folder: Path):
        """Make the folder if it is missing. OSError when it cannot be made."""
        folder.mkdir(mode=0o700, exist_ok=True)
        self.folder = folder
        self._turn = asyncio.Lock()
        # Carried out, but on a disk that lets nothing be removed.
        self._over: set[Path] = set()
        # What stands in tombstones, which never change: each ADD looks through all that wait.
        self._read_before: dict[Path, Request] = {}

    @property
    def waiting(self) -> list[Path]:
        """The tombstones, the oldest first; none where the folder cannot be read, which is reported."""
        try:
            names = [path for path in self.folder.iterdir() if not path.name.startswith(".")]
        except OSError as error:
            log.error("tombstones cannot be looked for: %s", error)
            return []
        return sorted(path for path in names if path not in self._over)

    def leave(self, request: Request) -> None:
        """Write a tombstone, whole or not at all. OSError when it cannot be kept."""
        name = f"{time.time_ns()}-{os.getpid()}"
        aside = self.folder / f".{name}"
        try:
            with aside.open("xb") as file:
                file.write(encode_request(request))
                file.flush()
                os.fsync(file.fileno())
            aside.rename(self.folder / name)
            self._sync()
        except OSError:
            aside.unlink(missing_ok=True)
            raise

    async def consume(self, carry_out: Callable[[Request], Awaitable[Answer]], container: str = "") -> bool:
        """Carry out each tombstone, the oldest first, and remove those that succeeded or never will.

        With `container`, its id, only those of it. Return whether none of them has to be tried again.
        """
        for file in list(self._over):
            self._remove(file)
        done = True
        for file in self.waiting:
            request = self._read(file)
            if request is None or (container and request.variables.get("CNI_CONTAINERID") != container):
                continue
            async with self._turn:
                # Somebody else may have carried it out meanwhile.
                if file in self._over or not file.exists():
                    continue
                answer = await carry_out(request)
                never = answer.status and not (answer.again or answer.internal)
                if never:
                    log.error("tombstone %s cannot be carried out and is dropped: %s", file, answer.stdout.decode())
                if never or not answer.status:
                    self._remove(file)
                done = done and not answer.again
        return done

    def _sync(self) -> None:
        """Have the names of the tombstones on the disk: without its name, one would be lost in a power failure."""
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _read(self, file: Path) -> Request | None:
        if file in self._read_before:
            return self._read_before[file]
        try:
            self._read_before[file] = parse_request(file.read_bytes())
            return self._read_before[file]
        except FileNotFoundError:
            pass
        except OSError as error:
            log.error("tombstone %s cannot be read: %s", file, error)
        except ValueError as error:
            log.error("tombstone %s is unreadable and dropped: %s", file, error)
            self._remove(file)
        return None

    def _remove(self, file: Path) -> None:
        self._over.add(file)
        self._read_before.pop(file, None)
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            log.error("tombstone %s is over, but cannot be removed: %s", file, error)
        else:
            self._over.discard(file)
