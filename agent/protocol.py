# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The conversation with the CNI executable on the Unix socket (its other half and the format: shim/shim.c, or shim.py).

One connection per request. Whoever connects and sends nothing, half a request or garbage costs a connection for a
bounded time and is answered or dropped; the others do not notice.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

MAGIC = b"P1"
# The configuration of a pod's network with all its annotations (at most 256 KiB) fits several times.
LARGEST_REQUEST = 4 << 20
# The executable sends everything at once; a client that takes longer than this hangs.
REQUEST_TIMEOUT_SECONDS = 30.0
# Whoever opens more connections than this without sending a request loses the oldest. Below the limit of open files.
MOST_INCOMPLETE = 512
ACCEPT_SECONDS = 0.002
# For how long nothing is accepted once the process has no file descriptor left.
PAUSE_SECONDS = 0.1
READ_SIZE = 1 << 16

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What the executable was called with: its CNI_* variables and its standard input."""

    variables: dict[str, str]
    stdin: bytes

    @property
    def command(self) -> str:
        return self.variables.get("CNI_COMMAND", "")


@dataclass(frozen=True)
class Answer:
    """What the executable prints on standard output, and its exit status.

    `again`: the same may succeed later. `internal`: it has failed by a bug of ours, whatever was asked for.
    """

    status: int
    stdout: bytes
    again: bool = False
    internal: bool = False


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


class Listener:
    """Accepts requests and answers each with what `handler` says.

    The executable sends its whole request at once, so that mostly all of it is there when the connection is accepted.
    Reading, answering and closing then take one turn of the loop, where the streams of asyncio would take four.
    """

    def __init__(self, handler: Handler, listening: socket.socket):
        self._handler = handler
        self._socket = listening
        self._socket.setblocking(False)
        self._pause: asyncio.TimerHandle | None = None
        # The loop holds tasks weakly; this keeps them, and lets the agent wait for them before it ends.
        self._answering: set[asyncio.Task] = set()
        # Those whose request is not complete, the oldest first.
        self._reading: dict[asyncio.Task, None] = {}

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._socket, self._accept)

    async def stop(self, seconds: float) -> None:
        """Accept nothing more, and let what has been asked for be answered, within a bounded time."""
        asyncio.get_running_loop().remove_reader(self._socket)
        if self._pause is not None:
            self._pause.cancel()
        for task in list(self._reading):
            task.cancel()
        if self._answering:
            await asyncio.wait(self._answering, timeout=seconds)
        self._socket.close()

    def _accept(self) -> None:
        # Not all that wait at once: a crowd must not keep those that were accepted from being answered. Some are
        # answered while they are accepted, and others come meanwhile.
        latest = time.monotonic() + ACCEPT_SECONDS
        while time.monotonic() < latest:
            try:
                connection, _address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # The connection waits on, and the loop would call again and again because of it.
                log.warning("a connection cannot be accepted: %s", error)
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._socket)
                self._pause = loop.call_later(PAUSE_SECONDS, self.start)
                return
            connection.setblocking(False)
            task = asyncio.get_running_loop().create_task(self._converse(connection))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _converse(self, connection: socket.socket) -> None:
        with connection:
            try:
                answer = await self._handler(parse_request(await self._read(connection)))
                await asyncio.get_running_loop().sock_sendall(connection, bytes([answer.status]) + answer.stdout)
            except ValueError as error:
                log.warning("dropped a request: %s", error)
            except (OSError, asyncio.CancelledError) as error:
                log.warning("dropped a connection: %s", error or type(error).__name__)

    async def _read(self, connection: socket.socket) -> bytes:
        """Everything up to the end of the client's half of the stream. ValueError when it is not to be answered."""
        uid = _peer_uid(connection)
        if uid not in (0, os.geteuid()):
            raise ValueError(f"it came from uid {uid}, and only root may ask for addresses")
        received, complete = _receive_now(connection)
        return received if complete else received + await self._receive_rest(connection, len(received))

    async def _receive_rest(self, connection: socket.socket, size: int) -> bytes:
        chunks = []
        task = asyncio.current_task()
        self._reading[task] = None
        if len(self._reading) > MOST_INCOMPLETE:
            next(iter(self._reading)).cancel()
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                while chunk := await asyncio.get_running_loop().sock_recv(connection, READ_SIZE):
                    chunks.append(chunk)
                    size += len(chunk)
                    if size > LARGEST_REQUEST:
                        raise ValueError(f"it has more than {LARGEST_REQUEST} bytes")
        finally:
            del self._reading[task]
        return b"".join(chunks)


def _receive_now(connection: socket.socket) -> tuple[bytes, bool]:
    """What has been sent already, and whether that is all."""
    received = b""
    try:
        while len(received) <= READ_SIZE:
            chunk = connection.recv(READ_SIZE)
            if not chunk:
                return received, True
            received += chunk
    except BlockingIOError:
        pass
    return received, False


def _peer_uid(connection: socket.socket) -> int:
    credentials = struct.Struct("3i")
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size)
    _pid, uid, _gid = credentials.unpack(peer)
    return uid
