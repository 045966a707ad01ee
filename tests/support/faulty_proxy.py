# SPDX-License-Identifier: Apache-2.0
"""A proxy in front of a real API server that counts requests and spoils some of them."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class Fault:
    """What happens to the next `times` requests whose method and path match.

    The answer is `status`, with Retry-After (seconds) if given and with `body`, or, with `reset`, none: the connection
    is reset, that of a watch in the middle of its first event. With `carried_out`, the API server has acted by then:
    the true answer is lost. `meanwhile` is called first: what someone else does at that moment. Before that it takes
    `seconds`.
    """

    method: str
    path: str
    status: int | None = None
    times: int = 1
    carried_out: bool = False
    retry_after: int | None = None
    meanwhile: Callable[[], object] | None = None
    seconds: float = 0
    reset: bool = False
    body: bytes = json.dumps({"kind": "Status", "reason": "Spoiled", "message": "spoiled by the test"}).encode()

    @property
    def spoils(self) -> bool:
        """Whether the client does not get the true answer."""
        return self.reset or self.status is not None

    def takes(self, method: str, path: str) -> bool:
        if self.times == 0 or method != self.method or not urlsplit(path).path.endswith(self.path):
            return False
        self.times -= 1
        return True


class FaultyProxy:
    """Serves plain HTTP on loopback for as long as the `with` block lasts; the client's credentials are passed on.

    `faults` may change at any time.
    """

    def __init__(self, plane, *faults: Fault):
        self.requests: list[tuple[str, str]] = []
        self.faults = list(faults)
        self._plane = plane
        self._streams: set[socket.socket] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FaultyProxy:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_error) -> None:
        self.cut_watches()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def writes(self) -> list[tuple[str, str]]:
        """(method, path without query) of the requests that were meant to write."""
        return [(method, urlsplit(path).path) for method, path in self.requests if method != "GET"]

    def fault_for(self, method: str, path: str) -> Fault | None:
        """The fault that takes this request, which is noted."""
        self.requests.append((method, path))
        return next((fault for fault in self.faults if fault.takes(method, path)), None)

    def cut_watches(self) -> None:
        """End all watches that are under way, without a farewell."""
        for upstream in list(self._streams):
            upstream.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def ask(self, request: BaseHTTPRequestHandler, body: bytes, timeout: float | None):
        """The API server's answer to a request, to be read within the `with` block."""
        server = urlsplit(self._plane.url)
        trust = ssl.create_default_context(cafile=self._plane.ca)
        connection = http.client.HTTPSConnection(server.hostname, server.port, context=trust, timeout=timeout)
        headers = {name: request.headers[name] for name in ("Authorization", "Content-Type") if request.headers[name]}
        try:
            connection.request(request.command, request.path, body or None, headers)
            yield connection.getresponse()
        finally:
            connection.close()

    @contextmanager
    def watch(self, request: BaseHTTPRequestHandler):
        """As `ask`, for an answer that only `cut_watches` or one side ends."""
        with self.ask(request, b"", None) as answer:
            upstream = socket.socket(fileno=os.dup(answer.fileno()))
            self._streams.add(upstream)
            try:
                yield answer
            finally:
                self._streams.discard(upstream)
                upstream.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, proxy: FaultyProxy, *arguments):
        self._proxy = proxy
        super().__init__(*arguments)

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self._proxy.fault_for(self.command, self.path) or Fault("", "")
        time.sleep(fault.seconds)
        if fault.meanwhile:
            fault.meanwhile()
        if "watch=true" in self.path and fault.status is None:
            self.stream(cut=fault.reset)
        elif fault.spoils and not fault.carried_out:
            self.spoil(fault)
        else:
            with self._proxy.ask(self, body, 30) as answer:
                data = answer.read()
            self.spoil(fault) if fault.spoils else self.reply(answer.status, {}, data)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def spoil(self, fault: Fault) -> None:
        if fault.reset:
            self.reset()
            return
        headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
        self.reply(fault.status, headers, fault.body)

    def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def stream(self, cut: bool) -> None:
        """Pass a watch on until one side ends it, or `cut` it in the middle of what comes first."""
        try:
            with self._proxy.watch(self) as answer:
                self.send_response(answer.status)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                while not answer.closed and (data := answer.read1(1 << 16)):
                    data = data[: len(data) // 2] if cut else data
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
                    if cut:
                        break
        except (OSError, http.client.HTTPException):
            pass
        self.reset()

    def reset(self) -> None:
        connection = socket.socket(fileno=self.connection.detach())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        self.close_connection = True

    def log_message(self, *_arguments):
        pass
