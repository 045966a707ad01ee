# SPDX-License-Identifier: Apache-2.0
"""`python tests/scenarios.py [SCENARIO ...]`: run Molecule scenarios on the kind cluster, by default all of them.

What this machine cannot run is left out, and said at the end with the reason.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from cluster.paths import cache  # noqa: E402
from support.netns import kernel_has  # noqa: E402

MOLECULE = Path(sys.executable).parent / "molecule"
FOLDER = HERE.parent / "extensions/molecule"
# The plain one first: its cluster serves the others.
FIRST = "default"
# Scenarios of a main plugin whose links, of its own name, not every kernel makes.
LINKS = ("macvlan", "ipvlan")


def scenarios() -> list[str]:
    names = {file.parent.name for file in FOLDER.glob("*/molecule.yml")}
    return [FIRST, *sorted(names - {FIRST})]


def why_not(scenario: str) -> str:
    """Why this machine cannot run a scenario; empty when it can."""
    lacks = scenario in LINKS and not kernel_has(scenario)
    return f"this kernel makes no links of the type {scenario}" if lacks else ""


def run(scenario: str) -> str:
    """Run one scenario and say what became of it."""
    started = time.monotonic()
    command = [MOLECULE, "test", "--scenario-name", scenario, "--destroy", "never"]
    environment = {**os.environ, "PODNET_CACHE": str(cache())}
    done = subprocess.run(command, cwd=HERE.parent, env=environment, stdin=subprocess.DEVNULL, check=False)
    return f"{'failed' if done.returncode else 'passed'} in {time.monotonic() - started:.0f} s"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="SCENARIO", help=f"of: {', '.join(scenarios())}")
    names = parser.parse_args().names or scenarios()
    if unknown := set(names) - set(scenarios()):
        parser.error(f"no scenario named {', '.join(sorted(unknown))}; there are {', '.join(scenarios())}")
    subprocess.run([MOLECULE, "reset"], cwd=HERE.parent, check=True)
    outcomes = {}
    for name in names:
        reason = why_not(name)
        outcomes[name] = f"left out: {reason}" if reason else run(name)
    print("\n" + "\n".join(f"{name:<12} {outcome}" for name, outcome in outcomes.items()))
    return any(outcome.startswith("failed") for outcome in outcomes.values())


if __name__ == "__main__":
    sys.exit(main())
