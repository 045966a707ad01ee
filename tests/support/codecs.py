# SPDX-License-Identifier: Apache-2.0
"""The agent's JSON in its two forms: by msgspec, and by Python's own where that is not installed."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from unittest import mock

from podnet_ipam.agent import codec

FORMS = ("msgspec", "json")


def load(form: str) -> ModuleType:
    """The agent's codec as it is where msgspec is installed, or where it is not."""
    # None in place of a module is what Python takes for one that is not there.
    hidden = {"msgspec": None} if form == "json" else {}
    spec = importlib.util.spec_from_file_location(f"codec_{form}", codec.__file__)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where msgspec looks for what annotations mean
    with mock.patch.dict(sys.modules, hidden):
        spec.loader.exec_module(module)
    assert (module.msgspec is None) == (form == "json")
    return module
