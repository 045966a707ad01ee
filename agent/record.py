# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What is left of a request when it has been answered: one line in the log and the figures.

The line is logfmt, `key=value` with quotes where a value needs them, and always has the same keys:

    verb=ADD pod=shop/web-0 container=3f2a... addresses=10.244.1.7 pools=rack-1 mode=local-first ms=0.6 code=0

`code` is the CNI code of the answer, 0 for success; a failed one also says why in `error`. A list is separated by
commas, and what is not known is `-`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Sequence
from functools import cache

from prometheus_client import Counter, Histogram

from .attachments import Address, Outcome
from .errors import CniError
from .metrics import REQUEST_SECONDS, REQUESTS
from .protocol import Request

VERBS = ("ADD", "DEL", "CHECK", "GC", "STATUS")
# Runtimes ask for the others every few seconds: they are logged when they fail.
_ALWAYS_LOGGED = ("ADD", "DEL")
POSTPONED = "postponed"

_NEEDS_NO_QUOTES = re.compile(r"[^\s\"=]+")

log = logging.getLogger(__name__)


class Record:
    """One request. Whoever answers it fills this in; whoever received it closes it, once."""

    def __init__(self, request: Request):
        self._started = time.perf_counter()
        self._verb = request.variables.get("CNI_COMMAND", "")
        self._container = request.variables.get("CNI_CONTAINERID", "")
        self.pod = ""
        self._held: Sequence[Address] = ()
        self._mode = ""
        self._code = 0
        self._error = ""

    def note(self, outcome: Outcome) -> None:
        self._held, self._mode = outcome

    def fail(self, error: CniError) -> None:
        self._code, self._error = error.code, error.message

    def postpone(self) -> None:
        """What failed is answered as a success, and will be carried out later."""
        self._code, self._mode = 0, POSTPONED

    def close(self) -> None:
        """The request's time ends now. What is left of it is written in the loop's next turn, after the answer."""
        asyncio.get_running_loop().call_soon(self._write, time.perf_counter() - self._started)

    def _write(self, seconds: float) -> None:
        known = self._verb if self._verb in VERBS else "other"
        _counter(known, self._code).inc()
        _timer(known).observe(seconds)
        if self._verb in _ALWAYS_LOGGED or self._code:
            log.log(logging.ERROR if self._code else logging.INFO, "%s", self._line(seconds))

    def _line(self, seconds: float) -> str:
        fields = {
            "verb": self._verb,
            "pod": self.pod,
            "container": self._container,
            "addresses": ",".join([held.address for held in self._held]),
            "pools": ",".join([held.pool.name if held.pool else "-" for held in self._held]),
            "mode": self._mode,
            "ms": f"{seconds * 1000:.1f}",
            "code": str(self._code),
        }
        if self._error:
            fields["error"] = self._error
        return " ".join([f"{key}={_quoted(value)}" for key, value in fields.items()])


@cache  # looking labels up costs more than counting
def _counter(verb: str, code: int) -> Counter:
    return REQUESTS.labels(verb, str(code))


@cache
def _timer(verb: str) -> Histogram:
    return REQUEST_SECONDS.labels(verb)


def _quoted(value: str) -> str:
    if not value:
        return "-"
    return value if _NEEDS_NO_QUOTES.fullmatch(value) else json.dumps(value, ensure_ascii=False)
