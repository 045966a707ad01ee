# SPDX-License-Identifier: Apache-2.0
"""The lock that is shared with Calico's own plugin on the machine."""

from __future__ import annotations

import asyncio
import fcntl
import logging

import pytest
from podnet_ipam.agent import host_lock
from podnet_ipam.agent.host_lock import HostLock


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "ipam.lock"
    path.touch()
    return path


def is_free(path):
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


async def test_requests_hold_it_together_until_the_last_one_ends(file):
    lock = HostLock(str(file))
    async with lock.held():
        async with lock.held():
            assert not is_free(file)
        assert not is_free(file)
    assert is_free(file)
    async with lock.held():
        assert not is_free(file)


async def test_a_file_that_does_not_exist_is_not_created(tmp_path):
    async with HostLock(str(tmp_path / "missing")).held():
        assert list(tmp_path.iterdir()) == []


async def test_who_waits_too_long_goes_on_and_says_so(file, monkeypatch, caplog):
    monkeypatch.setattr(host_lock, "WAIT_SECONDS", 0.1)
    with file.open() as other, caplog.at_level(logging.WARNING):
        fcntl.flock(other, fcntl.LOCK_EX)
        async with HostLock(str(file)).held():
            assert f"going on without calico-ipam's lock {file}: another holds it" in caplog.text
    assert is_free(file)


async def test_a_file_that_cannot_be_opened_holds_nobody_up(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        async with HostLock(str(tmp_path / ("b" * 300))).held():
            assert "File name too long" in caplog.text


async def test_a_request_that_is_cancelled_while_it_waits_leaves_nothing_behind(file):
    lock = HostLock(str(file))

    async def request():
        async with lock.held():
            pass

    with file.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        task = asyncio.create_task(request())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    async with asyncio.timeout(30), lock.held():
        assert not is_free(file)
