# SPDX-License-Identifier: Apache-2.0
"""Print figures: the allocator in both forms, the plugin and the modules beside their peers. Medians of one run."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import allocator, audit, modules, plugin

if __name__ == "__main__":
    allocator.report()
    plugin.report()
    modules.report()
    audit.report()
