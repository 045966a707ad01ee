# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging

import pytest
from podnet_ipam.agent import backoff, claims, lull, node_blocks


@pytest.fixture
def hurried(monkeypatch):
    """Pauses that matter on a real node only."""
    monkeypatch.setattr(lull, "QUIET_SECONDS", 0.002)
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.001)
    monkeypatch.setattr(backoff, "LONGEST_SECONDS", 0.01)
    monkeypatch.setattr(claims, "RECLAIM_SECONDS", 0.0)
    monkeypatch.setattr(node_blocks, "CLAIM_SETTLE_SECONDS", 0.002)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
