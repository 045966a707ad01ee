# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the agent's process begins."""

from __future__ import annotations

import gc
from importlib import import_module


def main() -> None:
    """Load the agent and run it. Nothing of what is loaded is garbage; to look for some would keep pods waiting."""
    gc.disable()
    agent = import_module(".main", __package__)
    gc.freeze()
    gc.enable()
    agent.main()
