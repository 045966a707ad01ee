# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The lock that Calico's own calico-ipam holds while it assigns or releases addresses on this machine.

Source: Calico 3.29 to 3.33, configuration key `ipam_lock_file`. Whoever takes it keeps out of the way of one that still
runs, so that neither has to write a block again. Nothing depends on it: a block is written only as it was read.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

LOCK_FILE = "/var/run/calico/ipam.lock"
# Calico waits for as long as its runtime lets it; addresses do not need the lock that much.
WAIT_SECONDS = 10.0
POLL_SECONDS = 0.02

log = logging.getLogger(__name__)


class HostLock:
    """The lock on one file. All requests of the agent hold it together: they do not get into each other's way."""

    def __init__(self, path: str):
        self._path = path
        self._holders = 0
        self._taking: asyncio.Task[int | None] | None = None

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Hold the lock, or go on without it where the file does not exist or another keeps it for WAIT_SECONDS."""
        self._holders += 1
        try:
            if self._taking is None:
                self._taking = asyncio.get_running_loop().create_task(self._take())
            await asyncio.shield(self._taking)
            yield
        finally:
            self._holders -= 1
            if not self._holders:
                self._release()

    async def _take(self) -> int | None:
        """The descriptor of the locked file; None without the lock."""
        try:
            with ExitStack() as undo:
                descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
                undo.callback(os.close, descriptor)
                async with asyncio.timeout(WAIT_SECONDS):
                    while not _lock(descriptor):
                        await asyncio.sleep(POLL_SECONDS)
                undo.pop_all()
                return descriptor
        except FileNotFoundError:
            return None
        except OSError as error:  # a TimeoutError, too, which has no text
            log.warning("going on without calico-ipam's lock %s: %s", self._path, str(error) or "another holds it")
            return None

    def _release(self) -> None:
        taking, self._taking = self._taking, None
        if not taking.done():
            taking.cancel()
        elif taking.result() is not None:
            os.close(taking.result())


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
