# SPDX-License-Identifier: Apache-2.0
"""What the nodes are installed from: wheels that are given, and wheels that are built for another architecture."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from cluster.paths import cache_folder

ROOT = Path(__file__).resolve().parents[2]
WHEELHOUSE = ROOT / "roles/cni_ipam/files/wheelhouse.py"
VERSION = re.search(r"^version: (\S+)$", (ROOT / "galaxy.yml").read_text(), re.MULTILINE)[1]
SHIM = "podnet_ipam/agent/bin/podnet-ipam"
EXTENSION = "podnet_ipam/_core/bitmap.abi3.so"
AARCH64 = 183  # EM_AARCH64


def run(cache, *arguments, **environment):
    command = [sys.executable, WHEELHOUSE, "--collection", ROOT, "--cache", cache, *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


@pytest.fixture
def look(tmp_path):
    """What is found on given wheels, for nodes of some platforms; in the second place, the archives' versions."""

    def look(wheels, *platforms):
        done = run(tmp_path / "cache", *(f"--wheel={wheel}" for wheel in wheels), "--check", *platforms)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        versions = {platform: archive["version"] for platform, archive in told["archives"].items()}
        return [(each["severity"], each["message"]) for each in told["findings"]], versions

    return look


@pytest.fixture
def wheel(tmp_path):
    """Make a file that is to an installer the plugin's wheel."""

    def make(tag, version=VERSION, held=(SHIM, EXTENSION), content="\x7fELF"):
        file = tmp_path / f"podnet_ipam-{version}-{tag}.whl"
        with zipfile.ZipFile(file, "w") as archive:
            for name in held:
                archive.writestr(name, content)
        return file

    return make


def test_one_wheel_for_each_architecture_of_the_nodes_serves_all_of_them(look, wheel):
    given = [wheel("cp311-abi3-linux_x86_64"), wheel("cp311-abi3-manylinux_2_17_aarch64")]
    findings, versions = look(given, "3.11-x86_64", "3.13-x86_64", "3.12-aarch64")
    assert findings == []
    assert len(set(versions.values())) == 3


def test_a_wheel_of_the_wrong_architecture_is_refused_with_its_tag_and_the_nodes_machine(look, wheel):
    given = wheel("cp311-abi3-linux_x86_64")
    [(severity, message)], versions = look([given], "3.11-x86_64", "3.12-aarch64")
    assert severity == "error" and versions == {}
    assert message == f"no wheel fits Python 3.12 on aarch64: {given} has the tag cp311-abi3-linux_x86_64"


@pytest.mark.parametrize("tag", ("cp312-abi3-linux_x86_64", "cp312-cp312-linux_x86_64", "cp310-cp310-linux_x86_64"))
def test_a_wheel_for_another_python_is_refused(look, wheel, tag):
    [(severity, message)], _versions = look([wheel(tag)], "3.11-x86_64")
    assert severity == "error" and "no wheel fits Python 3.11 on x86_64" in message and tag in message


def test_a_wheel_of_another_version_is_refused(look, wheel):
    given = wheel("cp311-abi3-linux_x86_64", version="99.1")
    message = f"{given} is podnet-ipam 99.1; this collection needs podnet-ipam {VERSION}"
    assert look([given], "3.11-x86_64") == ([("error", message)], {})


def test_a_wheel_without_the_cni_executable_is_refused(look, wheel):
    [(severity, message)], _versions = look([wheel("cp311-abi3-linux_x86_64", held=[EXTENSION])], "3.11-x86_64")
    assert severity == "error" and f"holds no CNI executable ({SHIM})" in message


def test_a_wheel_without_compiled_allocator_is_taken_and_its_cost_told(look, wheel):
    [(severity, message)], versions = look([wheel("cp311-abi3-linux_x86_64", held=[SHIM])], "3.11-x86_64")
    assert severity == "warning" and "holds no compiled allocator" in message and "2 to 6 us" in message
    assert versions


def test_a_wheel_whose_cni_executable_is_a_script_is_taken_and_its_cost_told(look, wheel):
    [(severity, message)], versions = look([wheel("cp311-abi3-linux_x86_64", content="#!python")], "3.11-x86_64")
    assert (
        severity == "warning"
        and "holds no compiled CNI executable: each call" in message
        and " ms of a processor in place of " in message
    )
    assert versions


def test_a_wheel_for_all_machines_is_taken_where_no_other_fits(look, wheel):
    of_python, compiled = wheel("py3-none-any", held=[SHIM]), wheel("cp311-abi3-linux_x86_64")
    platforms = ("3.11-x86_64", "3.11-loongarch64", "3.11-any")
    _findings, both = look([of_python, compiled], *platforms)
    _findings, alone = look([of_python], *platforms)
    assert both["3.11-x86_64"] != alone["3.11-x86_64"]
    assert [both[platform] for platform in platforms[1:]] == [alone[platform] for platform in platforms[1:]]


def test_what_is_compiled_serves_no_node_that_wants_nothing_compiled(look, wheel):
    [(severity, message)], _versions = look([wheel("cp311-abi3-linux_x86_64")], "3.11-any")
    assert severity == "error" and message.startswith("no wheel fits Python 3.11 on any machine: ")


@pytest.mark.parametrize(
    ("platform", "words"),
    (("3.11-loongarch64", "Python 3.11 on loongarch64"), ("3.12-any", "Python 3.12 on any machine")),
)
def test_what_it_costs_that_nothing_is_compiled_for_a_machine_is_told_beforehand(look, platform, words):
    [(severity, message)], versions = look([], "3.11-x86_64", platform)
    assert severity == "warning" and message.startswith(f"nodes with {words} get the plugin in Python alone: each call")
    assert all(text in message for text in (" ms of a processor in place of ", "2 to 6 us in place of 0.1"))
    assert versions.keys() == {"3.11-x86_64", platform}


def test_what_is_no_wheel_is_refused_with_its_name(look, tmp_path):
    misnamed, broken = tmp_path / "podnet.zip", tmp_path / f"podnet_ipam-{VERSION}-cp311-abi3-linux_x86_64.whl"
    broken.write_text("no archive")
    absent = tmp_path / f"podnet_ipam-{VERSION}-cp311-abi3-linux_riscv64.whl"
    findings, _versions = look([misnamed, broken, absent], "3.11-x86_64")
    assert [severity for severity, _message in findings] == ["error"] * 3
    for file, (_severity, message) in zip((misnamed, broken, absent), findings, strict=True):
        assert message.startswith(f"{file} cannot be read as a wheel: ")


def test_another_content_of_the_given_wheel_is_another_version_on_the_nodes(look, wheel):
    given = wheel("cp311-abi3-linux_x86_64")
    _findings, before = look([given], "3.11-x86_64")
    wheel("cp311-abi3-linux_x86_64", held=(SHIM, EXTENSION, "more"))
    _findings, after = look([given], "3.11-x86_64")
    assert before.keys() == after.keys() and before != after


def test_nothing_is_made_of_wheels_that_are_refused(tmp_path, wheel):
    cache = tmp_path / "cache"
    done = run(cache, f"--wheel={wheel('cp311-abi3-linux_x86_64')}", "3.11-aarch64")
    assert done.returncode != 0 and done.stderr.startswith("no wheel fits Python 3.11 on aarch64")
    assert not cache.exists()


@pytest.fixture(scope="module")
def cache():
    """A cache in which nothing is made, but the tools and the C libraries are: half a gigabyte, compiled in minutes."""
    cache = cache_folder("cross-wheelhouse")
    for built in (*cache.glob("wheel-*"), *cache.glob("index-*")):
        shutil.rmtree(built)
    for archive in cache.glob("*.tar"):
        archive.unlink()
    return cache


def made(done, platform):
    """The content of the plugin's wheel in the archive that was made, {name: bytes}, and the names beside it."""
    assert done.returncode == 0, done.stderr
    with tarfile.open(json.loads(done.stdout)["archives"][platform]["path"]) as archive:
        names = archive.getnames()
        [ours] = [name for name in names if name.startswith("podnet_ipam-")]
        with zipfile.ZipFile(archive.extractfile(ours)) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist()}, names


@pytest.fixture(scope="module")
def for_aarch64(cache):
    return made(run(cache, "3.11-aarch64"), "3.11-aarch64")


@pytest.mark.slow
def test_nodes_of_another_architecture_get_what_is_compiled_for_them(for_aarch64):
    wheel, names = for_aarch64
    assert f"podnet_ipam-{VERSION}-cp311-abi3-linux_aarch64.whl" in names
    assert [name for name in names if name.startswith("msgspec-") and name.endswith("_aarch64.whl")]
    extensions = {name for name in wheel if name.endswith(".abi3.so")}
    assert extensions == {f"podnet_ipam/_core/{name}.abi3.so" for name in ("bitmap", "block")}
    assert {elf_machine(wheel[name]) for name in (SHIM, *extensions)} == {AARCH64}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-aarch64") is None, reason="needs Debian's qemu-user")
def test_the_cni_executable_for_another_architecture_answers_without_libraries_of_that_architecture(
    for_aarch64, tmp_path
):
    wheel, _names = for_aarch64
    shim = tmp_path / "podnet-ipam"
    shim.write_bytes(wheel[SHIM])
    shim.chmod(0o755)
    answer = subprocess.run(
        ["qemu-aarch64", shim], env={"CNI_COMMAND": "VERSION", "PATH": os.defpath}, capture_output=True, check=True
    )
    assert "1.0.0" in json.loads(answer.stdout)["supportedVersions"]


@pytest.mark.slow
def test_a_controller_without_compiler_takes_that_of_a_package(cache, tmp_path):
    machine = f"3.11-{os.uname().machine}"
    wheel, _names = made(run(cache, machine, PATH=str(tmp_path), CC=""), machine)
    shim = tmp_path / "podnet-ipam"
    shim.write_bytes(wheel[SHIM])
    shim.chmod(0o755)
    answer = subprocess.run([shim], env={"CNI_COMMAND": "VERSION"}, capture_output=True, check=True)
    assert "1.0.0" in json.loads(answer.stdout)["supportedVersions"]
    assert EXTENSION in wheel


@pytest.fixture
def index(tmp_path):
    """Make a package index that has one wheel of the plugin; its URL."""

    def make(held):
        folder = tmp_path / "simple/podnet-ipam"
        folder.mkdir(parents=True)
        name, about = f"podnet_ipam-{VERSION}-cp311-abi3-linux_x86_64.whl", f"podnet_ipam-{VERSION}.dist-info"
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: podnet-ipam\nVersion: {VERSION}\n")
            archive.writestr(
                f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp311-abi3-linux_x86_64\n"
            )
            for each in held:
                archive.writestr(each, "of the index")
        (folder / "index.html").write_text(f'<a href="{name}">{name}</a>')
        return folder.parent.as_uri()

    return make


@pytest.mark.slow
def test_the_wheel_of_a_package_index_is_taken_and_none_is_built(cache, index):
    wheel, _names = made(run(cache, f"--index={index((SHIM, EXTENSION))}", "3.11-x86_64"), "3.11-x86_64")
    assert wheel[SHIM] == b"of the index"


@pytest.mark.slow
def test_a_wheel_of_an_index_that_is_of_no_use_is_refused_as_one_that_is_given(cache, index):
    done = run(cache, f"--index={index(())}", "3.11-x86_64")
    assert done.returncode != 0 and "holds no CNI executable" in done.stderr


@pytest.mark.slow
def test_a_dependency_that_has_no_wheel_for_the_nodes_machine_is_named(cache, tmp_path):
    # Which has not been asked for this machine before.
    done = run(cache, "3.11-sparc64", PIP_INDEX_URL=tmp_path.as_uri())
    assert done.returncode != 0
    assert re.match(r"\S+==\S+ has no wheel for Python 3\.11 on sparc64, without which nodes", done.stderr)


@pytest.mark.slow
def test_a_machine_that_nothing_can_be_compiled_for_gets_python_and_does_without_msgspec(cache):
    done = run(cache, "3.11-armv7l")
    wheel, names = made(done, "3.11-armv7l")
    assert f"podnet_ipam-{VERSION}-py3-none-any.whl" in names
    assert [name for name in names if name.startswith("msgspec")] == []
    assert [name for name in wheel if name.endswith(".so")] == []
    told = json.loads(done.stdout)
    assert told["archives"]["3.11-armv7l"]["script"]
    python, json_by_python = told["findings"]
    assert python["severity"] == json_by_python["severity"] == "warning"
    assert "in Python alone" in python["message"] and "do without msgspec" in json_by_python["message"]


@pytest.mark.slow
def test_for_a_machine_that_an_index_has_no_wheel_for_either_one_of_python_is_built(cache, index):
    _wheel, names = made(run(cache, f"--index={index((SHIM, EXTENSION))}", "3.11-armv7l"), "3.11-armv7l")
    assert f"podnet_ipam-{VERSION}-py3-none-any.whl" in names


@pytest.mark.slow
def test_for_another_machine_an_index_without_a_wheel_is_an_error(cache, index):
    done = run(cache, f"--index={index((SHIM, EXTENSION))}", "3.11-aarch64")
    assert done.returncode != 0 and "has no wheel for Python 3.11 on aarch64" in done.stderr


@pytest.mark.slow
def test_an_archive_for_any_machine_holds_nothing_compiled_and_is_installed_without_a_network(cache, tmp_path):
    platform = "{}.{}-any".format(*sys.version_info)
    _wheel, names = made(run(cache, platform), platform)
    wheels = [name for name in names if name.endswith(".whl")]
    assert wheels and all(name.endswith("-none-any.whl") for name in wheels)
    with tarfile.open(json.loads(run(cache, platform).stdout)["archives"][platform]["path"]) as archive:
        archive.extractall(tmp_path / "wheels", filter="data")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "node"], check=True)
    # As the role does it.
    options = ["--no-index", "--find-links=.", "--require-hashes", "--requirement=requirements.txt"]
    install = [tmp_path / "node/bin/python", "pip.zip/pip", "install", "--quiet", *options]
    subprocess.run(install, cwd=tmp_path / "wheels", check=True)
    assert list((tmp_path / "node").rglob("*.so")) == []
    subprocess.run([tmp_path / "node/bin/podnet-ipam-agent", "--help"], stdout=subprocess.DEVNULL, check=True)


def elf_machine(program: bytes) -> int:
    """`e_machine` of a little-endian ELF file."""
    assert program.startswith(b"\x7fELF")
    return int.from_bytes(program[18:20], "little")
