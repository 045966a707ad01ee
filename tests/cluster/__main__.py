# SPDX-License-Identifier: Apache-2.0
"""Makes `python tests/cluster COMMAND` work from any folder, without an installation."""

from __future__ import annotations

import sys
from pathlib import Path

# Python puts this folder itself in front; the package is found from the folder above it.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from cluster.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
