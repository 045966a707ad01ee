# SPDX-License-Identifier: Apache-2.0
"""Print figures: allocator, plugin and modules beside their peers; one agent; claims; an audit; the role, and pods.

    tests/bench [--figures FILE] [PART ...]

In FILE, the figures of the parts that are measured take the place of older ones.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import agent, allocator, audit, claims, modules, nodes, plugin

PARTS = {part.__name__.rpartition(".")[2]: part for part in (allocator, plugin, agent, claims, modules, audit, nodes)}

QUIET_LOAD, MOST_QUIET_SECONDS = 0.5, 180


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests/bench", description="Print figures, medians of one run.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all of them by default")
    parser.add_argument("--figures", type=Path, metavar="FILE", help="keep the figures there, too, as JSON")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    for name in options.parts or PARTS:
        _wait_for_quiet()
        circumstances = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "load": round(os.getloadavg()[0], 1)}
        figures = {**circumstances, **PARTS[name].report()}
        if options.figures:
            _keep(name, figures, options.figures)


def _keep(part: str, figures: dict, file: Path) -> None:
    """Write a part's figures to the file. Those of the other parts stay, unless they are another machine's."""
    kept = json.loads(file.read_text()) if file.exists() else {}
    if kept.get("machine") != _machine():
        kept = {"machine": _machine()}
    file.write_text(json.dumps({**kept, part: figures}, indent=1) + "\n")


def _wait_for_quiet() -> None:
    """Let what earlier parts and others have left come to its end, for a bounded time."""
    latest = time.monotonic() + MOST_QUIET_SECONDS
    while os.getloadavg()[0] > QUIET_LOAD and time.monotonic() < latest:
        print(f"... load {os.getloadavg()[0]:.1f}: waiting for a quiet machine", file=sys.stderr)
        time.sleep(15)


def _machine() -> str:
    model = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    name = " ".join(model.partition(":")[2].split())
    return f"{os.cpu_count()} cores of a virtual machine, {name}, Linux, CPython {platform.python_version()}"


if __name__ == "__main__":
    main()
