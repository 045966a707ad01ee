# SPDX-License-Identifier: Apache-2.0
"""Long steps: what is being done, for how long, how long it took before, and where its output is.

On a terminal one line is rewritten every second; elsewhere a new line appears every 20 seconds, so that a
log shows life without filling up. The times of earlier runs are kept in the cache, in `durations.json`.
"""

from __future__ import annotations

import json
import os
import sys
import time

from .paths import cache

QUIET_SECONDS = 20.0


def say(text: str) -> None:
    """One line of progress. It goes to stderr: stdout belongs to the commands' results."""
    print(text, file=sys.stderr, flush=True)


def human(seconds: float) -> str:
    """`75.2` as `1m15s`, `9.4` as `9s`, `0.42` as `0.4s`."""
    if seconds < 1:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


class Step:
    """One long step, as a context manager. Call `tick()` while waiting, as often as convenient."""

    def __init__(self, what: str, first_time: float | None = None):
        """`first_time`: seconds it typically takes when it has never run here."""
        self.what = what
        self.typical = typical_time(what, first_time)
        self.started = self.shown = 0.0
        self.on_terminal = sys.stderr.isatty()

    def __enter__(self) -> Step:
        self.started = self.shown = time.monotonic()
        if self.on_terminal:
            self._rewrite(f"{self.what}{self.typical} ...")
        else:
            say(f"{self.what}{self.typical} ...")
        return self

    def __exit__(self, kind, error, trace) -> None:
        elapsed = time.monotonic() - self.started
        line = f"{self.what}: {'failed after' if kind else 'done in'} {human(elapsed)}"
        if self.on_terminal:
            self._rewrite(line)
            say("")
        else:
            say(line)
        if not kind:
            remember(self.what, elapsed)

    def tick(self) -> None:
        """Shows the elapsed time if it is time to."""
        now = time.monotonic()
        if now - self.shown < (1.0 if self.on_terminal else QUIET_SECONDS):
            return
        self.shown = now
        elapsed = human(now - self.started)
        if self.on_terminal:
            self._rewrite(f"{self.what}{self.typical} ... {elapsed}")
        else:
            say(f"{self.what} ... {elapsed}")

    def _rewrite(self, text: str) -> None:
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def typical_time(what: str, first_time: float | None) -> str:
    """The remark on how long a step takes: what it took last here, else what a first run typically takes."""
    last = durations().get(what)
    if last is not None and last >= 5:
        return f" (last time {human(last)})"
    if last is None and first_time:
        return f" (the first time about {human(first_time)})"
    return ""


def durations() -> dict[str, float]:
    """Seconds that each step took when it last succeeded here."""
    try:
        return json.loads((cache() / "durations.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}


def remember(what: str, seconds: float) -> None:
    """Keeps the time of a step for the next run."""
    known = durations() | {what: round(seconds, 1)}
    fresh = cache() / f"durations.json.{os.getpid()}"
    fresh.write_text(json.dumps(known, indent=1, sort_keys=True))
    fresh.replace(cache() / "durations.json")
