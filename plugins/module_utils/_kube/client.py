# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The few requests that modules need, on fixed paths: no discovery.

`Reader` has no method that writes; check mode gets one, so that a slip there is a crash and not a write.
"""

from __future__ import annotations

import time

from .errors import AlreadyExists, ApiError, NotFound, api_error

PAGE = 500
ATTEMPTS = 5
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0  # seconds
_TRANSIENT = (429, 500, 502, 503, 504)
_EXPIRED = 410
_STRICT = {"fieldValidation": "Strict", "fieldManager": "podnet.ipam"}


class Reader:
    """Reads objects (decoded JSON). Errors: ApiError and its kinds, Unreachable.

    429 and 5xx are tried again, ATTEMPTS times in all, after Retry-After or a doubling pause.
    """

    def __init__(self, connection):
        self._connection = connection

    @property
    def origin(self):
        """Which API server this is, and where its address came from."""
        return self._connection.origin

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
        pause = FIRST_PAUSE
        for attempt in range(ATTEMPTS):
            status, headers, answer = self._connection.request(method, path, query, body, content_type)
            if status < 400:
                return answer
            error = api_error(method, path, status, answer, headers.get("Retry-After"))
            if status not in _TRANSIENT or attempt == ATTEMPTS - 1:
                error.origin, error.repeated = self._connection.origin, attempt > 0
                raise error
            time.sleep(min(error.retry_after or pause, LONGEST_PAUSE))
            pause *= 2
        raise AssertionError("not reached")


class Writer(Reader):
    """Reads and writes. Unknown fields are refused by the API server instead of being dropped."""

    def create(self, path, body):
        """Create an object in the collection `path`.

        When the answer to a first attempt was lost, the second may find the object there: it is ours if its content is.
        """
        try:
            return self._request("POST", path, _STRICT, body)
        except AlreadyExists as error:
            stored = self.find(f"{path}/{body['metadata']['name']}") if error.repeated else None
            if stored is None or stored.get("spec") != body.get("spec"):
                raise
            return stored

    def replace(self, path, body):
        """PUT under compare-and-swap: Conflict when the resourceVersion in `body` is not the last."""
        return self._request("PUT", path, _STRICT, body)

    def patch(self, path, body):
        """JSON merge patch; with metadata.resourceVersion in `body`, under compare-and-swap as well."""
        return self._request("PATCH", path, _STRICT, body, "application/merge-patch+json")

    def delete(self, path, uid, resource_version=None):
        """Delete this very object, if need be in this very version. Conflict when it is another one by now."""
        preconditions = {"uid": uid}
        if resource_version:
            preconditions["resourceVersion"] = resource_version
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions}
        return self._request("DELETE", path, None, body)
