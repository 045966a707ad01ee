# SPDX-License-Identifier: Apache-2.0
"""The module node_files: several files of a node in one call, each of them whole at any time."""

from __future__ import annotations

import json
import os

import pytest
from support.modules import run_module


@pytest.fixture
def run():
    return lambda check_mode=False, **options: run_module("node_files", _ansible_check_mode=check_mode, **options)


@pytest.fixture
def declaration(tmp_path):
    folder = tmp_path / "podnet-ipam"
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF\xff")
    return {
        "folders": [{"path": str(folder), "mode": "0700"}],
        "files": [
            {"path": str(folder / "agent.toml"), "content": "cooldown = 30\n"},
            {"path": str(folder / "kubeconfig"), "content": {"kind": "Config"}, "mode": "0600"},
            {"path": str(folder / "shim"), "source": str(program), "mode": "0755"},
        ],
        "links": [{"path": str(folder / "current"), "target": "v1"}],
    }


def paths(declaration):
    return [each["path"] for part in ("folders", "files", "links") for each in declaration[part]]


def content(path):
    with open(path) as file:
        return file.read()


def mode(path):
    return os.stat(path).st_mode & 0o7777


def test_folders_and_files_are_made_and_a_second_call_changes_nothing(run, declaration):
    folder, configuration, kubeconfig, shim, current = paths(declaration)
    first = run(**declaration)
    assert first["changed"] and first["paths"] == [folder, configuration, kubeconfig, shim, current]
    assert (mode(folder), mode(configuration), mode(kubeconfig), mode(shim)) == (0o700, 0o644, 0o600, 0o755)
    assert first["diff"][3]["after"] == "mode: 0755\n5 bytes\n"
    assert os.readlink(current) == "v1"
    assert content(configuration) == "cooldown = 30\n"
    assert json.loads(content(kubeconfig)) == {"kind": "Config"}
    second = run(**declaration)
    assert (second["changed"], second["paths"]) == (False, [])


def test_check_mode_predicts_what_is_changed_and_changes_nothing(run, declaration):
    folder = paths(declaration)[0]
    predicted = run(check_mode=True, **declaration)
    assert not os.path.exists(folder)
    assert {key: predicted[key] for key in ("changed", "paths", "diff")} == {
        key: value for key, value in run(**declaration).items() if key in ("changed", "paths", "diff")
    }


@pytest.mark.parametrize("drift", ["content", "mode", "link"])
def test_what_has_drifted_is_corrected_and_shown_and_nothing_else_is_touched(run, declaration, drift, tmp_path):
    _folder, configuration, kubeconfig, _shim, _current = paths(declaration)
    run(**declaration)
    untouched = os.stat(kubeconfig).st_ino
    if drift == "content":
        with open(configuration, "w") as file:
            file.write("cooldown = 5\n")
    elif drift == "mode":
        os.chmod(configuration, 0o666)
    else:
        os.rename(configuration, tmp_path / "elsewhere")
        os.symlink(tmp_path / "elsewhere", configuration)
    corrected = run(**declaration)
    assert corrected["paths"] == [configuration]
    [difference] = corrected["diff"]
    assert difference["before"] != difference["after"] == "mode: 0644\ncooldown = 30\n"
    assert content(configuration) == "cooldown = 30\n" and not os.path.islink(configuration)
    assert mode(configuration) == 0o644
    assert os.stat(kubeconfig).st_ino == untouched


def test_a_link_is_led_elsewhere_and_takes_the_place_of_a_file(run, declaration):
    current = paths(declaration)[-1]
    run(**declaration)
    declaration["links"][0]["target"] = "v2"
    [difference] = run(**declaration)["diff"]
    assert (difference["before"], difference["after"]) == ("-> v1\n", "-> v2\n")
    os.unlink(current)
    with open(current, "w") as file:
        file.write("a file")
    run(**declaration)
    assert os.readlink(current) == "v2"


def test_what_is_to_be_copied_need_not_be_there_yet_in_check_mode(run, declaration, tmp_path):
    (tmp_path / "program").unlink()
    assert run(check_mode=True, **declaration)["changed"]
    failed = run(**declaration)
    assert failed["failed"] and "shim: " in failed["msg"] and "program" in failed["msg"]


@pytest.fixture
def kept(tmp_path):
    """Two files, one that is a link and one that is not there; where copies of them are to be kept."""
    (tmp_path / "kubeconfig").write_text("secret")
    (tmp_path / "kubeconfig").chmod(0o600)
    (tmp_path / "link").symlink_to("kubeconfig")
    names = ("kubeconfig", "link", "missing")
    return {name: {"path": f"{tmp_path}/kept{tmp_path}/{name}", "source": f"{tmp_path}/{name}"} for name in names}


def test_copies_are_as_what_they_are_copies_of_and_a_second_call_changes_nothing(run, kept):
    copies = list(kept.values())
    predicted = run(check_mode=True, copies=copies)
    assert not os.path.exists(os.path.dirname(copies[0]["path"]))
    made = run(copies=copies)
    assert made["paths"] == predicted["paths"] == [kept["kubeconfig"]["path"], kept["link"]["path"]]
    assert made["diff"] == predicted["diff"]
    assert (content(kept["kubeconfig"]["path"]), mode(kept["kubeconfig"]["path"])) == ("secret", 0o600)
    assert os.readlink(kept["link"]["path"]) == "kubeconfig"
    assert not os.path.lexists(kept["missing"]["path"])
    assert not run(copies=copies)["changed"]


def test_a_copy_of_what_is_gone_goes_as_well(run, kept):
    run(copies=list(kept.values()))
    for name in ("kubeconfig", "link"):
        os.unlink(kept[name]["source"])
    gone = run(copies=list(kept.values()))
    assert gone["paths"] == [kept["kubeconfig"]["path"], kept["link"]["path"]]
    assert [each["before"] for each in gone["diff"]] == ["mode: 0600\nsecret", "-> kubeconfig\n"]
    assert not any(os.path.lexists(each["path"]) for each in kept.values())


def test_what_was_copied_can_be_put_back(run, kept):
    run(copies=list(kept.values()))
    with open(kept["kubeconfig"]["source"], "w") as file:
        file.write("of the new version")
    with open(kept["missing"]["source"], "w") as file:
        file.write("of the new version")
    run(copies=[{"path": each["source"], "source": each["path"]} for each in kept.values()])
    assert content(kept["kubeconfig"]["source"]) == "secret"
    assert not os.path.exists(kept["missing"]["source"])


def test_a_file_that_cannot_be_written_is_named_and_leaves_no_rest(run, declaration, tmp_path):
    missing = str(tmp_path / "missing" / "file")
    failed = run(folders=[], files=[{"path": missing, "content": "x"}])
    assert failed["failed"] and failed["msg"].startswith(f"{missing}: ")
    obstacle = tmp_path / "obstacle"
    obstacle.mkdir()
    failed = run(folders=[], files=[{"path": str(obstacle), "content": "x"}])
    assert failed["failed"] and str(obstacle) in failed["msg"]
    assert sorted(os.listdir(tmp_path)) == ["obstacle", "program"]


def test_a_mode_that_is_no_octal_number_is_refused_before_anything_is_written(run, declaration):
    declaration["files"][1]["mode"] = "rw"
    failed = run(**declaration)
    assert failed["failed"] and "mode 'rw' of" in failed["msg"] and "kubeconfig" in failed["msg"]
    assert not os.path.exists(paths(declaration)[0])
