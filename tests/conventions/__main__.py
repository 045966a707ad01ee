# SPDX-License-Identifier: Apache-2.0
"""`python tests/conventions [CHECK ...]`: run these checks, by default the ones that belong to `make test`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conventions import documentation, galaxy, licences, runner, sanity, versions
from conventions.programs import CheckFailed

CHECKS = [
    sanity.check(None),
    sanity.check("2.18"),
    galaxy.CHECK,
    documentation.CHECK,
    licences.CHECK,
]
# What takes long and changes seldom: `make test-all`.
MATRIX = [
    sanity.check("2.19"),
    sanity.check("2.20"),
    versions.check("2.18"),
    versions.check("2.19"),
    versions.check("2.20"),
]


def main() -> int:
    by_name = {check.name: check for check in (*CHECKS, *MATRIX)}
    parser = argparse.ArgumentParser(prog="tests/conventions", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="CHECK", help=f"`matrix`, or of: {', '.join(by_name)}")
    parser.add_argument("--again", action="store_true", help="run them even if they passed with these very files")
    options = parser.parse_args()
    unknown = set(options.names) - {*by_name, "matrix"}
    if unknown:
        parser.error(f"no check named {', '.join(sorted(unknown))}; there are {', '.join(by_name)} and matrix")
    chosen = [by_name[name] for name in options.names if name != "matrix"]
    chosen += MATRIX if "matrix" in options.names else []
    try:
        return runner.run(chosen or CHECKS, again=options.again)
    except CheckFailed as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
