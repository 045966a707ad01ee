# SPDX-License-Identifier: Apache-2.0
"""Agents of which not everything is compiled: they serve as the others do, slower.

Either the allocator alone could not be compiled when the wheel was built, or nothing at all is: the wheel for all
machines, in an environment without msgspec, whose CNI executable is a script.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.plane import ROOT, AgentNode, create_pool, settled

POOLS = '[[pools]]\nname = "main"\ncidr = "10.88.0.0/16"\n'
# Which do without what is compiled of them when a variable says so.
COMPILED_DEPENDENCIES = ("AIOHTTP", "FROZENLIST", "MULTIDICT", "PROPCACHE", "YARL")


def build(folder: Path, **environment: str) -> Path:
    """The wheel that is built in an environment."""
    source, built = folder / "source", folder / "built"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "dist", "tests", "docs"))
    inherited = {name: value for name, value in os.environ.items() if name != "PODNET_REQUIRE_NATIVE"}
    options = ["--quiet", "--disable-pip-version-check", "--no-build-isolation", "--no-deps", "--wheel-dir", built]
    command = [sys.executable, "-m", "pip", "wheel", *options, source]
    subprocess.run(command, env={**inherited, **environment}, check=True)
    [wheel] = built.iterdir()
    return wheel


@pytest.fixture
def package(tmp_path):
    """The folder of the content of a wheel that was built with no more than a compiler for the CNI executable."""
    with zipfile.ZipFile(build(tmp_path, CC="/bin/false", PODNET_SHIM_CC=shutil.which("musl-gcc"))) as archive:
        archive.extractall(tmp_path / "unpacked")
    return tmp_path / "unpacked"


@pytest.fixture(scope="module")
def pure(tmp_path_factory):
    """An agent and a CNI executable in a virtual environment with the wheel for all machines, and without msgspec."""
    folder = tmp_path_factory.mktemp("pure")
    wheel = build(folder, PODNET_IPAM_PURE="1")
    assert wheel.name.endswith("-py3-none-any.whl")
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    options = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", wheel]
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", environment / "bin/python", "install", *options], check=True
    )
    [packages] = environment.glob("lib/python*/site-packages")
    for name in dependencies():
        (packages / name).symlink_to(Path(sysconfig.get_path("purelib"), name))
    shim = packages / "podnet_ipam/agent/bin/podnet-ipam"
    # As the role does it.
    shim.write_text(re.sub(r"\A#!\S+", f"#!{sys.executable}", shim.read_text()))
    assert list(packages.glob("podnet_ipam/**/*.so")) == []
    return SimpleNamespace(shim=shim, agent=environment / "bin/podnet-ipam-agent")


def dependencies() -> set[str]:
    """The names in site-packages of all that the agent needs, but for msgspec."""
    locked = re.findall(r"^([\w-]+)==", (ROOT / "requirements/node.txt").read_text(), re.MULTILINE)
    installed = {each.name.lower().replace("_", "-"): each for each in metadata.distributions()}
    files = [file for name in locked if name in installed and name != "msgspec" for file in installed[name].files]
    return {file.parts[0] for file in files} - {"..", "__pycache__"}


async def test_an_agent_without_compiled_allocator_gives_addresses(package, tmp_path, monkeypatch):
    assert (package / "podnet_ipam/agent/bin/podnet-ipam").stat().st_size > 0
    assert list(package.rglob("*.so")) == []
    monkeypatch.setenv("PYTHONPATH", str(package))
    pools = tmp_path / "pools.toml"
    pools.write_text(POOLS)
    node = await AgentNode("machine", tmp_path, pools_file=pools).start()
    try:
        assert "interpreted core" in node.log.read_text()
        first, second = await node.add("first"), await node.add("second")
        assert {first.address, second.address} < {f"10.88.{high}.{low}" for high in range(256) for low in range(256)}
        assert first.address != second.address
        await node.delete("first")
    finally:
        node.stop()


async def test_a_machine_without_anything_compiled_gives_addresses_over_a_restart(start_machine, pure):
    machine = await start_machine(POOLS, shim=pure.shim, agent=pure.agent)
    assert "interpreted core, JSON by Python" in machine.log.read_text()
    added = await machine.add("c1")
    assert added.address.startswith("10.88.")
    machine.stop(signal.SIGKILL)
    await machine.start()
    assert (await machine.add("c1")).body == added.body
    assert (await machine.delete("c1")).status == 0
    await settled(machine, [])


async def test_a_node_without_anything_compiled_gives_checks_and_releases_addresses(
    client, start_node, pure, monkeypatch
):
    for name in COMPILED_DEPENDENCIES:
        monkeypatch.setenv(f"{name}_NO_EXTENSIONS", "1")
    await create_pool(client, "main", "10.244.0.0/20")
    node = await start_node("node-1", shim=pure.shim, agent=pure.agent)
    first, second = await node.add("c1"), await node.add("c2")
    assert first.status == second.status == 0
    await settled(client, [first.address, second.address])
    assert (await node.call("CHECK", "c1", prevResult=first.body)).status == 0
    assert (await node.call("CHECK", "c1", prevResult=second.body)).body["code"] == 101
    assert (await node.call("STATUS", "")).status == 0
    assert (await node.delete("c1")).status == 0
    await settled(client, [second.address])
    node.stop()
    assert (await node.delete("c2")).status == 0
    await node.start()
    await settled(client, [])
