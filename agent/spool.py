# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Tombstones: DELs that could not be carried out when they came, in files that hold the request itself.

The executable leaves them while the agent is away, the agent itself while the API server is away and nothing is known
here of the attachment. Either way the runtime has been told that the DEL succeeded, so each file stays until it has.
"""

from __future__ import annotations

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
        self._folder = folder

    @property
    def waiting(self) -> list[Path]:
        """The tombstones, the oldest first."""
        return sorted(path for path in self._folder.iterdir() if not path.name.startswith("."))

    def leave(self, request: Request) -> None:
        """Write a tombstone, whole or not at all. OSError when it cannot be kept."""
        name = f"{time.time_ns()}-{os.getpid()}"
        aside = self._folder / f".{name}"
        try:
            with aside.open("xb") as file:
                file.write(encode_request(request))
                file.flush()
                os.fsync(file.fileno())
            aside.rename(self._folder / name)
        except OSError:
            aside.unlink(missing_ok=True)
            raise

    async def consume(self, carry_out: Callable[[Request], Awaitable[Answer]]) -> None:
        """Carry out each tombstone, the oldest first, and remove those that succeeded."""
        for file in self.waiting:
            try:
                request = parse_request(file.read_bytes())
            except ValueError as error:
                log.error("tombstone %s is unreadable and dropped: %s", file, error)
                file.unlink()
                continue
            answer = await carry_out(request)
            if answer.status == 0:
                file.unlink(missing_ok=True)
