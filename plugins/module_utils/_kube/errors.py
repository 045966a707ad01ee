# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What an API server's refusal means. Shared by the modules' client and the node agent's."""

from __future__ import annotations


class ApiError(Exception):
    """A request that the API server refused: HTTP `status`; `reason` and `message` of its Status object.

    `retry_after`: in how many seconds it may be tried again, where the API server says so.
    """

    def __init__(self, method, path, status, reason, message, retry_after=None):
        super().__init__(f"{method} {path}: {status} {reason}: {message}")
        self.method = method
        self.path = path
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class NotFound(ApiError):
    """404: the object, or the whole kind, does not exist."""


class Forbidden(ApiError):
    """403: this user may not. Authorization comes before routing, so there need not even be such a kind."""


class Conflict(ApiError):
    """409 on a write: the object changed since it was read, or a precondition does not hold."""


class AlreadyExists(ApiError):
    """409 on a create: an object of that name exists."""


class Unreachable(Exception):
    """No answer at all: the text says which server was tried and where its address came from."""

    status = retry_after = None


def api_error(method, path, status, body, retry_after=None):
    """The exception for an HTTP `status` >= 400 and the decoded Status object `body` (None when it was not JSON).

    `retry_after` is the header of that name.
    """
    body = body or {}
    reason, message = body.get("reason") or "", body.get("message") or "no message"
    if status == 404:
        kind = NotFound
    elif status == 403:
        kind = Forbidden
    elif status == 409:
        kind = AlreadyExists if reason == "AlreadyExists" else Conflict
    else:
        kind = ApiError
    return kind(method, path, status, reason, message, _seconds(retry_after))


def _seconds(retry_after):
    """Retry-After as seconds; API servers send a number, proxies may send a date, which is not understood."""
    try:
        return float(retry_after)
    except (TypeError, ValueError):
        return None
