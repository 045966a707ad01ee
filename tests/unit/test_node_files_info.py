# SPDX-License-Identifier: Apache-2.0
"""The module node_files_info: which of several files a node has, told in one call."""

from __future__ import annotations

import os

import pytest
from support.modules import run_module


@pytest.fixture
def look():
    return lambda *patterns, **options: run_module("node_files_info", patterns=list(patterns), **options)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "one.conf").write_text("1\n")
    (tmp_path / "two.conf").write_text("2\n")
    (tmp_path / "version").mkdir()
    (tmp_path / "version/.complete").touch()
    (tmp_path / "current").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    return str(tmp_path)


def test_files_are_told_by_path_with_their_types_and_what_links_point_to(look, folder):
    files = look(f"{folder}/*")["files"]
    assert {os.path.basename(path): known["type"] for path, known in files.items()} == {
        "current": "link",
        "one.conf": "file",
        "pipe": "other",
        "two.conf": "file",
        "version": "directory",
    }
    assert files[f"{folder}/current"]["target"] == "nowhere"
    assert files[f"{folder}/one.conf"]["modified"] == os.stat(f"{folder}/one.conf").st_mtime


def test_patterns_find_hidden_files_only_where_they_have_the_dot(look, folder):
    assert list(look(f"{folder}/*/.complete", f"{folder}/version/*")["files"]) == [f"{folder}/version/.complete"]


@pytest.mark.parametrize("pattern", ["one.conf", "one*", "v*/.complete", "*/.complete", "[o]ne.conf"])
def test_paths_begin_as_their_pattern_does(look, folder, pattern):
    [path] = look(f"{folder}//{pattern}")["files"]
    assert path.startswith(f"{folder}//") and os.path.exists(path)


def test_what_is_not_there_is_left_out(look, folder):
    told = look(f"{folder}/three.conf", f"{folder}/missing/*", contents=[f"{folder}/two.conf", f"{folder}/three.conf"])
    assert (told["files"], told["contents"]) == ({}, {f"{folder}/two.conf": "2\n"})
    assert not told["changed"]


def test_what_cannot_be_read_is_named(look, folder):
    failed = look(contents=[f"{folder}/one.conf", f"{folder}/version"])
    assert failed["failed"] and failed["msg"].startswith(f"{folder}/version: ")
