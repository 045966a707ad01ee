# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The few requests that modules need, on fixed paths: no discovery.

`Reader` has no method that writes; check mode gets one, so that a slip there is a crash and not a write.
"""

from __future__ import annotations

import time
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from .content import contains, merged
from .errors import AlreadyExists, ApiError, Conflict, NotFound, Unreachable, api_error

PAGE = 500
ATTEMPTS = 5
FIRST_PAUSE, PATIENCE = 0.2, 120.0  # seconds: before the second attempt, and from the first to the last at most
_BUSY = 429
_TRANSIENT = (None, _BUSY, 500, 502, 503, 504)  # None: no answer
_EXPIRED = 410
_STRICT = {"fieldValidation": "Strict", "fieldManager": "podnet.ipam"}


class Reader:
    """Reads objects (decoded JSON). Errors: ApiError and its kinds, Unreachable.

    429 and 5xx are tried again, ATTEMPTS times in all, after Retry-After or a doubling pause. Where Retry-After leads
    beyond PATIENCE, there is no use in asking earlier than the server wants. What gets no answer is tried again as well
    once the server has answered: before, it is rather the wrong one than away.
    """

    def __init__(self, connection):
        self._connection = connection
        self._has_answered = False
        self._date = ""

    @property
    def origin(self):
        """Which API server this is, and where its address came from."""
        return self._connection.origin

    @property
    def server_time(self):
        """The API server's clock at its last answer, a datetime; this machine's behind a proxy that leaves it out."""
        try:
            return parsedate_to_datetime(self._date)
        except (TypeError, ValueError):
            return datetime.now(timezone.utc)

    def get(self, path):
        return self._request("GET", path)

    def find(self, path):
        """The object, or None when it does not exist."""
        try:
            return self.get(path)
        except NotFound:
            return None

    def list(self, path, keep=None, **query):
        """All objects of a collection, page by page; from the start again when the server forgot where it was.

        `keep` makes of each object what is kept of it, as its page arrives: a whole cluster's pods need not fit into
        memory. `limit` is the number of objects on a page.
        """
        for attempt in range(ATTEMPTS):
            try:
                return self._pages(path, keep, query)
            except ApiError as error:
                if error.status != _EXPIRED or attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("not reached")

    def _pages(self, path, keep, query):
        items, position = [], None
        while True:
            page = {"limit": PAGE, **query}
            if position:
                page["continue"] = position
            answer = self._request("GET", path, page)
            items += map(keep, answer["items"]) if keep else answer["items"]
            position = answer["metadata"].get("continue")
            if not position:
                return items

    def _request(self, method, path, query=None, body=None, content_type="application/json"):
        """The answer. Errors also say which server they came from (`origin`), and whether an earlier attempt failed
        that may have been carried out all the same (`repeated`).
        """
        pause, repeated, deadline = FIRST_PAUSE, False, time.monotonic() + PATIENCE
        for attempt in range(ATTEMPTS):
            answer, error = self._attempt(method, path, query, body, content_type)
            if error is None:
                return answer
            wait = error.retry_after or pause
            if error.status not in _TRANSIENT or attempt == ATTEMPTS - 1 or time.monotonic() + wait > deadline:
                error.origin, error.repeated = self._connection.origin, repeated
                raise error
            repeated = repeated or error.status != _BUSY  # which is said of what was not even begun
            time.sleep(wait)
            pause *= 2
        raise AssertionError("not reached")

    def _attempt(self, method, path, query, body, content_type):
        """(answer, None), or (None, error)."""
        try:
            status, headers, answer = self._connection.request(method, path, query, body, content_type)
        except Unreachable as error:
            if not self._has_answered:
                raise
            return None, error
        self._has_answered, self._date = True, headers.get("Date", "")
        if status < 400:
            return answer, None
        return None, api_error(method, path, status, answer, headers.get("Retry-After"))


class Writer(Reader):
    """Reads and writes. Unknown fields are refused by the API server instead of being dropped.

    When the answer to a first attempt was lost, what the second one is refused for may be the work of the first. So the
    object is read: a write of which it has the outcome is done, and counts as ours.
    """

    _options = _STRICT

    @property
    def rehearsal(self):
        """A Writer of which the API server only says what it would say: it stores nothing."""
        return _Rehearsal(self._connection)

    def create(self, path, body):
        """Create an object in the collection `path`."""
        try:
            return self._request("POST", path, self._options, body)
        except AlreadyExists as error:
            name, spec = body["metadata"]["name"], body.get("spec")
            return self._done_before(error, f"{path}/{name}", lambda stored: contains(stored.get("spec"), spec))

    def replace(self, path, body):
        """PUT under compare-and-swap: Conflict when the resourceVersion in `body` is not the last."""
        try:
            return self._request("PUT", path, self._options, body)
        except Conflict as error:
            written = {"metadata": {"uid": body["metadata"]["uid"]}, "spec": body["spec"]}
            return self._done_before(error, path, lambda stored: contains(stored, written))

    def patch(self, path, body):
        """JSON merge patch; with metadata.resourceVersion in `body`, under compare-and-swap as well."""
        try:
            return self._request("PATCH", path, self._options, body, "application/merge-patch+json")
        except Conflict as error:
            metadata = {key: value for key, value in body.get("metadata", {}).items() if key != "resourceVersion"}
            written = {**body, "metadata": metadata}
            return self._done_before(error, path, lambda stored: merged(stored, written) == stored)

    def delete(self, path, uid, resource_version=None):
        """Delete this very object, if need be in this very version. Conflict when it is another one by now."""
        preconditions = {"uid": uid}
        if resource_version:
            preconditions["resourceVersion"] = resource_version
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions}
        try:
            return self._request("DELETE", path, None, body)
        except (NotFound, Conflict) as error:
            return self._gone_before(error, path, uid)

    def evict(self, path, body):
        """Ask for the eviction of the very pod at `path` that `body` tells the uid of."""
        try:
            return self._request("POST", f"{path}/eviction", _STRICT, body)
        except (NotFound, Conflict) as error:
            return self._gone_before(error, path, body["deleteOptions"]["preconditions"]["uid"])

    def _done_before(self, error, path, is_done):
        """The object at `path` when a repeated request was refused although, or because, it is as was asked for."""
        stored = self.find(path) if error.repeated else None
        if stored is None or not is_done(stored):
            raise error
        return stored

    def _gone_before(self, error, path, uid):
        """None when a repeated request was refused because the object is gone, or goes already."""
        if not error.repeated:
            raise error
        metadata = (self.find(path) or {}).get("metadata") or {}
        if metadata.get("uid") == uid and not metadata.get("deletionTimestamp"):
            raise error


class _Rehearsal(Writer):
    _options = {**_STRICT, "dryRun": "All"}
