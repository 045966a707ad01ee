# SPDX-License-Identifier: Apache-2.0
"""The core in its two forms: interpreted from the collection, compiled from the wheel."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

PACKAGES = {
    "interpreted": "ansible_collections.podnet.ipam.plugins.module_utils._core",
    "compiled": "podnet_ipam._core",
}
MODULES = ("assignment", "bitmap", "block", "names", "pool", "selector")
TYPED = ("bitmap", "block")


def load(form: str) -> SimpleNamespace:
    """The core's modules in one of the two forms."""
    return SimpleNamespace(form=form, **{name: importlib.import_module(f"{PACKAGES[form]}.{name}") for name in MODULES})
