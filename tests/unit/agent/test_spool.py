# SPDX-License-Identifier: Apache-2.0
"""DELs that wait in files: each is carried out once, whatever the disk is like and whoever asks first."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest
from podnet_ipam.agent.cni import error_answer
from podnet_ipam.agent.errors import INTERNAL, UNDECODABLE, CniError
from podnet_ipam.agent.protocol import Answer, Request
from podnet_ipam.agent.spool import Spool


def delete(container):
    return Request({"CNI_COMMAND": "DEL", "CNI_CONTAINERID": container}, b"{}")


class Deletes:
    """Carries out DELs, of which those of `refused` are to be tried again later; `answers` are others, by container."""

    def __init__(self, *refused, seconds=0.0, answers=()):
        self.refused = set(refused)
        self.answers = dict(answers)
        self.carried_out = []
        self._seconds = seconds

    async def __call__(self, request):
        await asyncio.sleep(self._seconds)
        container = request.variables["CNI_CONTAINERID"]
        if container in self.refused:
            return Answer(1, b"", again=True)
        self.carried_out.append(container)
        return self.answers.get(container, Answer(0, b""))


@pytest.fixture
def spool(tmp_path):
    spool = Spool(tmp_path / "spool")
    for container in ("a", "b", "a"):
        spool.leave(delete(container))
    return spool


def test_tombstones_are_carried_out_the_oldest_first_and_stay_until_they_have_been(spool):
    deletes = Deletes("b")
    asyncio.run(spool.consume(deletes))
    assert deletes.carried_out == ["a", "a"] and len(spool.waiting) == 1
    deletes.refused.clear()
    asyncio.run(spool.consume(deletes))
    assert deletes.carried_out == ["a", "a", "b"] and not spool.waiting


def test_whoever_asks_for_a_container_gets_its_tombstones_carried_out_and_no_others(spool):
    deletes = Deletes()
    assert asyncio.run(spool.consume(deletes, "a"))
    assert deletes.carried_out == ["a", "a"] and len(spool.waiting) == 1


def test_whoever_asks_for_a_container_is_told_that_a_tombstone_of_it_has_to_wait(spool):
    assert not asyncio.run(spool.consume(Deletes("a"), "a"))
    assert asyncio.run(spool.consume(Deletes("a"), "b"))


def test_a_tombstone_that_no_try_can_carry_out_is_dropped_and_reported(spool, caplog):
    deletes = Deletes(answers={"b": error_answer(CniError(UNDECODABLE, "the network configuration is not JSON"))})
    for _time in range(2):
        assert asyncio.run(spool.consume(deletes))
    assert deletes.carried_out == ["a", "b", "a"] and not spool.waiting
    [dropped] = caplog.messages
    assert "is dropped" in dropped and "the network configuration is not JSON" in dropped


def test_a_tombstone_that_an_internal_error_kept_from_being_carried_out_stays(spool):
    deletes = Deletes(answers={"b": error_answer(CniError(INTERNAL, "internal error: KeyError('b')"))})
    asyncio.run(spool.consume(deletes))
    assert len(spool.waiting) == 1


def test_a_tombstone_is_on_the_disk_with_its_name_before_the_runtime_is_told(tmp_path, monkeypatch):
    spool, steps = Spool(tmp_path / "spool"), []

    def fsync(descriptor):
        steps.append((Path(os.readlink(f"/proc/self/fd/{descriptor}")), list(spool.waiting)))

    monkeypatch.setattr(os, "fsync", fsync)
    spool.leave(delete("a"))
    assert steps[-1] == (spool.folder, spool.waiting) and len(spool.waiting) == 1


def test_two_that_ask_at_once_carry_nothing_out_twice(spool):
    deletes = Deletes(seconds=0.001)

    async def ask():
        await asyncio.gather(spool.consume(deletes), spool.consume(deletes, "a"), spool.consume(deletes, "b"))

    asyncio.run(ask())
    assert sorted(deletes.carried_out) == ["a", "a", "b"]


def test_a_tombstone_that_cannot_be_removed_is_not_carried_out_again(spool, monkeypatch):
    def unlink(path, missing_ok=False):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    deletes = Deletes()
    with monkeypatch.context() as disk:
        disk.setattr(Path, "unlink", unlink)
        for _time in range(2):
            asyncio.run(spool.consume(deletes))
    assert deletes.carried_out == ["a", "b", "a"]
    asyncio.run(spool.consume(deletes))
    assert deletes.carried_out == ["a", "b", "a"]
    assert not list(spool.folder.iterdir())


def test_what_cannot_be_read_keeps_no_other_tombstone_from_being_carried_out(spool):
    (spool.folder / "0-folder").mkdir()
    (spool.folder / "0-garbage").write_bytes(b"P1CNI_COMMAND")
    deletes = Deletes()
    asyncio.run(spool.consume(deletes))
    assert deletes.carried_out == ["a", "b", "a"]
    assert [path.name for path in spool.waiting] == ["0-folder"]


def test_a_spool_folder_that_has_gone_holds_nothing(tmp_path):
    spool = Spool(tmp_path / "spool")
    spool.folder.rmdir()
    assert asyncio.run(spool.consume(Deletes()))
    assert spool.waiting == []
