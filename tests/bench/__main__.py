# SPDX-License-Identifier: Apache-2.0
"""Print figures: the allocator in both forms, and the plugin beside its peer. Medians of one run on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import allocator, plugin

if __name__ == "__main__":
    allocator.report()
    plugin.report()
