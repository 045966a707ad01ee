# SPDX-License-Identifier: Apache-2.0
"""The suite of the core runs twice: interpreted, as Ansible runs it, and compiled, as the nodes do."""

from __future__ import annotations

import pytest
from support.core import PACKAGES, TYPED, load


@pytest.fixture(scope="session", params=PACKAGES)
def core(request):
    """The core in one form; asserts that it is the form that it should be."""
    loaded = load(request.param)
    for name in TYPED:
        suffix = getattr(loaded, name).__file__.rpartition(".")[2]
        assert suffix == ("so" if request.param == "compiled" else "py"), f"{name} is not {request.param}"
    assert (request.param == "compiled") == loaded.bitmap.COMPILED
    return loaded
