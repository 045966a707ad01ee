# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The agent's client of the API server: five verbs on fixed paths, no discovery, no models."""

from __future__ import annotations

import base64
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .._kube.errors import Unreachable, api_error
from . import codec
from .http import aiohttp

# Objects in one answer: to decode them must not keep the loop busy for long.
PAGE_SIZE = 200
# Connections that are open at most, each of which has a buffer of 256 KiB: those of the watches, and as many others as
# an API server works on for one node at once.
MOST_CONNECTIONS = 16
REQUEST_TIMEOUT_SECONDS = 10.0
# The API server ends a watch after about this time; a stream that is silent for longer is dead.
WATCH_SECONDS = 270
_WATCH_GRACE_SECONDS = 30.0
_UNAUTHORIZED = (
    "it does not accept this node's credentials: they have expired or were revoked;"
    " run the role podnet.ipam.cni_ipam for this node again"
)

T = TypeVar("T")


@dataclass(frozen=True)
class Credentials:
    """Where the API server is and who we are there. `source` is the file that said so.

    `token_file` is where the token stands, if it stands in a file of its own, which may be written anew at any time.
    """

    source: str
    server: str
    tls: ssl.SSLContext | None
    token: str | None
    token_file: Path | None = None


def read_kubeconfig(path: Path) -> Credentials:
    """The current context of a kubeconfig written as JSON (every JSON document is YAML, so kubectl reads it, too).

    Understood are a server, a CA as data or as a file, and a token or the files of a client certificate. ValueError
    names what is missing.
    """
    try:
        config = json.loads(path.read_text())
        context = _named(config, "contexts", "context", config["current-context"])
        cluster = _named(config, "clusters", "cluster", context["cluster"])
        user = _named(config, "users", "user", context["user"])
        server = cluster["server"].rstrip("/")
    except (ValueError, KeyError) as error:
        raise ValueError(f"kubeconfig {path}: not usable: {error!r}") from error
    token, file = user.get("token"), None
    if token is None and "tokenFile" in user:
        file = Path(user["tokenFile"])
        token = file.read_text().strip()
    return Credentials(str(path), server, _tls(cluster, user) if server.startswith("https:") else None, token, file)


def _named(config: dict, collection: str, key: str, name: str) -> dict:
    for entry in config[collection]:
        if entry["name"] == name:
            return entry[key]
    raise KeyError(f"{collection}[name={name}]")


def _tls(cluster: dict, user: dict) -> ssl.SSLContext:
    authority = cluster.get("certificate-authority-data")
    context = ssl.create_default_context(
        cafile=cluster.get("certificate-authority"),
        cadata=base64.b64decode(authority).decode() if authority else None,
    )
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if "client-certificate" in user:
        context.load_cert_chain(user["client-certificate"], user.get("client-key"))
    return context


class Client:
    """A pool of connections to one API server. Objects are plain dicts; integers keep their 64 bits.

    `name` is what messages call it. `knows_pods`: whether it can be asked about pods.
    """

    name = "the API server"
    knows_pods = True

    def __init__(self, credentials: Credentials):
        self._credentials = credentials
        # When it was last heard of, in seconds of the monotonic clock, and whether a request has failed since.
        self._heard = time.monotonic()
        self._failing = False
        self._session = aiohttp.ClientSession(
            base_url=credentials.server,
            headers={"Accept": "application/json", "User-Agent": "podnet-ipam"},
            connector=aiohttp.TCPConnector(ssl=credentials.tls or False, limit=MOST_CONNECTIONS),
        )
        if credentials.token:
            self.authenticate(credentials.token)

    @property
    def token_file(self) -> Path | None:
        """Where this client's token stands, as in `Credentials`."""
        return self._credentials.token_file

    def authenticate(self, token: str) -> None:
        """Use this token from the next request on. Watches that are under way go on."""
        self._session.headers["Authorization"] = f"Bearer {token}"

    @property
    def seconds_away(self) -> float:
        """For how long nothing has been heard of an API server that works; 0 when the last request found one."""
        return time.monotonic() - self._heard if self._failing else 0.0

    async def close(self) -> None:
        await self._session.close()

    async def get(self, path: str) -> dict:
        return await self._request("GET", path)

    async def create(self, path: str, obj: dict) -> dict:
        return await self._request("POST", path, obj)

    async def replace(self, path: str, obj: dict) -> dict:
        """PUT under compare-and-swap: `obj` carries the resourceVersion that it was read with."""
        return await self._request("PUT", path, obj)

    async def delete(self, path: str, uid: str) -> None:
        """Delete the very object with this uid, not a newer one of the same name."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        await self._request("DELETE", path, body)

    async def list(
        self, path: str, query: dict[str, str] | None = None, keep: Callable[[dict], T] = lambda obj: obj
    ) -> tuple[list[T], str]:
        """What `keep` makes of all objects of a collection, read in pages, and the resourceVersion to watch from.

        No object is in memory for longer than `keep` takes, unless that keeps it.
        """
        kept: list[T] = []
        asked = {"limit": str(PAGE_SIZE), **(query or {})}
        while True:
            items, metadata = self._decoded(await self._answer("GET", path, query=asked), codec.split_page)
            kept += [keep(self._decoded(item, codec.decode_item)) for item in items]
            if not metadata.get("continue"):
                return kept, metadata["resourceVersion"]
            asked["continue"] = metadata["continue"]

    async def watch(self, path: str, version: str, query: dict[str, str] | None = None) -> AsyncIterator[dict]:
        """Events since `version`, bookmarks included, until the API server ends the stream."""
        query = {
            **(query or {}),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=WATCH_SECONDS + _WATCH_GRACE_SECONDS)
        try:
            async with self._session.get(path, params=query, timeout=timeout) as response:
                self._hear(response.status)
                await _raise_for_status("WATCH", path, response)
                try:
                    rest = b""
                    # Not by lines: a block's event is longer than what the line reader of the stream allows.
                    async for chunk in response.content.iter_any():
                        if not self._failing:
                            self._heard = time.monotonic()
                        *lines, rest = (rest + chunk).split(b"\n")
                        for line in lines:
                            yield self._decoded(line)
                finally:
                    # Left in the middle of the stream, without the farewell of TLS: nobody would wait for its answer.
                    if response.connection is not None and response.connection.transport is not None:
                        response.connection.transport.abort()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(error) from error

    async def _request(self, method: str, path: str, body: dict | None = None) -> dict:
        return self._decoded(await self._answer(method, path, body))

    async def _answer(self, method: str, path: str, body: dict | None = None, query: dict | None = None) -> bytes:
        data = None if body is None else codec.encode(body)
        headers = {"Content-Type": "application/json"} if data else None
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS)
        try:
            async with self._session.request(
                method, path, data=data, params=query, headers=headers, timeout=timeout
            ) as response:
                self._hear(response.status)
                await _raise_for_status(method, path, response)
                return await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(error) from error

    def _hear(self, status: int) -> None:
        """An answer came. One of 500 or more says that behind it nothing works, such as the API server's datastore."""
        self._failing = status >= 500
        if not self._failing:
            self._heard = time.monotonic()

    def _decoded(self, data: Any, decode: Callable[[Any], Any] = codec.decode) -> Any:
        """What an answer says. Where it is no JSON, or of another kind, it is not the API server that answered."""
        try:
            return decode(data)
        except ValueError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> Unreachable:
        self._failing = True
        return Unreachable(
            f"no answer from the API server {self._credentials.server} (from {self._credentials.source}): "
            f"{error or type(error).__name__}"
        )


async def _raise_for_status(method: str, path: str, response: aiohttp.ClientResponse) -> None:
    if response.status < 400:
        return
    try:
        body = codec.decode(await response.read())
    except ValueError:
        body = None
    if response.status == 401:
        body = {"reason": "Unauthorized", "message": _UNAUTHORIZED}
    raise api_error(method, path, response.status, body, response.headers.get("Retry-After"))
