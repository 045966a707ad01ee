# SPDX-License-Identifier: Apache-2.0
"""A proxy in front of a real API server that counts requests and spoils some of them."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class Fault:
    """What happens to the next `times` requests whose method and path match.

    The answer is `status`, with Retry-After (seconds) if given. With `carried_out`, the API server has acted by then:
    the true answer is lost. `meanwhile` is called first: what someone else does at that moment.
    """

    method: str
    path: str
    status: int | None = None
    times: int = 1
    carried_out: bool = False
    retry_after: int | None = None
    meanwhile: Callable[[], object] | None = None

    def takes(self, method: str, path: str) -> bool:
        if self.times == 0 or method != self.method or not urlsplit(path).path.endswith(self.path):
            return False
        self.times -= 1
        return True


class FaultyProxy:
    """Serves plain HTTP on loopback for as long as the `with` block lasts; the client's credentials are passed on."""

    def __init__(self, plane, *faults: Fault):
        self.requests: list[tuple[str, str]] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                proxy.requests.append((self.command, self.path))
                fault = next((each for each in faults if each.takes(self.command, self.path)), None)
                if fault and fault.meanwhile:
                    fault.meanwhile()
                if fault and fault.status and not fault.carried_out:
                    self.reply(*proxy.spoiled(fault))
                    return
                answer = proxy.forward(plane, self, body)
                self.reply(*(proxy.spoiled(fault) if fault and fault.status else answer))

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

            def reply(self, status, headers, body):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FaultyProxy:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_error) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def writes(self) -> list[tuple[str, str]]:
        """(method, path without query) of the requests that were meant to write."""
        return [(method, urlsplit(path).path) for method, path in self.requests if method != "GET"]

    @staticmethod
    def spoiled(fault: Fault) -> tuple[int, dict[str, str], bytes]:
        headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
        body = {"kind": "Status", "reason": "Spoiled", "message": "spoiled by the test"}
        return fault.status, headers, json.dumps(body).encode()

    @staticmethod
    def forward(plane, request, body: bytes) -> tuple[int, dict[str, str], bytes]:
        server = urlsplit(plane.url)
        trust = ssl.create_default_context(cafile=plane.ca)
        connection = http.client.HTTPSConnection(server.hostname, server.port, context=trust, timeout=30)
        headers = {name: request.headers[name] for name in ("Authorization", "Content-Type") if request.headers[name]}
        connection.request(request.command, request.path, body or None, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, {"Content-Type": "application/json"}, data
