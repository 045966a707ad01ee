# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The conversation with the CNI executable on the Unix socket (its other half and the format: shim/shim.c).

One connection per request. Whoever connects and sends nothing, half a request or garbage costs a connection for a
bounded time and is answered or dropped; the others do not notice.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

MAGIC = b"P1"
# The configuration of a pod's network with all its annotations (at most 256 KiB) fits several times.
LARGEST_REQUEST = 4 << 20
# The executable sends everything at once; a client that takes longer than this hangs.
REQUEST_TIMEOUT_SECONDS = 30.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What the executable was called with: its CNI_* variables and its standard input."""

    variables: dict[str, str]
    stdin: bytes

    @property
    def is_delete(self) -> bool:
        return self.variables.get("CNI_COMMAND") == "DEL"


@dataclass(frozen=True)
class Answer:
    """What the executable prints on standard output, and its exit status. `again`: the same may succeed later."""

    status: int
    stdout: bytes
    again: bool = False


Handler = Callable[[Request], Awaitable[Answer]]


def parse_request(data: bytes) -> Request:
    """Decode a whole request; ValueError says what is wrong with it."""
    if not data.startswith(MAGIC):
        raise ValueError(f"a request starts with {MAGIC!r}, not with {data[:2]!r}")
    variables = {}
    position = len(MAGIC)
    while True:
        end = data.find(b"\0", position)
        if end < 0:
            raise ValueError("the list of variables does not end")
        if end == position:
            return Request(variables, data[end + 1 :])
        key, separator, value = data[position:end].partition(b"=")
        if not separator:
            raise ValueError(f"variable {key!r} has no value")
        variables[key.decode()] = value.decode()
        position = end + 1


def encode_request(request: Request) -> bytes:
    """The request as the executable sends it."""
    variables = b"".join(f"{key}={value}".encode() + b"\0" for key, value in request.variables.items())
    return MAGIC + variables + b"\0" + request.stdin


class Connection(asyncio.Protocol):
    """One client. The request is complete when the client closes its half of the stream."""

    def __init__(self, handler: Handler, running: set[asyncio.Task]):
        self._handler = handler
        self._running = running
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timeout: asyncio.TimerHandle | None = None

    def connection_made(self, transport) -> None:
        self._transport = transport
        if _peer_uid(transport) not in (0, os.geteuid()):
            log.warning("refused a connection of uid %s: only root may ask for addresses", _peer_uid(transport))
            transport.abort()
            return
        self._timeout = asyncio.get_running_loop().call_later(REQUEST_TIMEOUT_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) > LARGEST_REQUEST:
            log.warning("dropped a request of more than %s bytes", LARGEST_REQUEST)
            self._transport.abort()

    def eof_received(self) -> bool:
        self._timeout.cancel()
        try:
            request = parse_request(bytes(self._received))
        except ValueError as error:
            log.warning("dropped a request: %s", error)
            return False
        task = asyncio.get_running_loop().create_task(self._answer(request))
        # The loop holds tasks weakly; this keeps them, and lets the agent wait for them before it ends.
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return True

    def connection_lost(self, exc) -> None:
        if self._timeout is not None:
            self._timeout.cancel()

    async def _answer(self, request: Request) -> None:
        answer = await self._handler(request)
        if not self._transport.is_closing():
            self._transport.write(bytes([answer.status]) + answer.stdout)
        self._transport.close()


def _peer_uid(transport) -> int:
    credentials = struct.Struct("3i")
    peer = transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size)
    _pid, uid, _gid = credentials.unpack(peer)
    return uid
