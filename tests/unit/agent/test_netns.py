# SPDX-License-Identifier: Apache-2.0
"""Whether a network namespace counts as gone."""

from __future__ import annotations

import os

import pytest
from podnet_ipam.agent.netns import may_exist


def test_what_is_there_exists_and_what_is_not_there_does_not(tmp_path):
    assert may_exist("/proc/self/ns/net")
    assert not may_exist(str(tmp_path / "missing"))
    assert not may_exist("/proc/self/comm/below-a-file")
    assert not may_exist("")


def test_what_cannot_be_looked_at_does_not_count_as_gone(tmp_path):
    loop = tmp_path / "loop"
    os.symlink(loop, loop)
    with pytest.raises(OSError):
        os.stat(loop)
    assert may_exist(str(loop))
