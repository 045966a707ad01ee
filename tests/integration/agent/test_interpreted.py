# SPDX-License-Identifier: Apache-2.0
"""A wheel that was built where the allocator could not be compiled: it serves, interpreted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from support.plane import ROOT, AgentNode

POOLS = '[[pools]]\nname = "main"\ncidr = "10.88.0.0/16"\n'


@pytest.fixture
def package(tmp_path):
    """The folder of the content of a wheel that was built with no more than a compiler for the CNI executable."""
    source, built, unpacked = (tmp_path / name for name in ("source", "built", "unpacked"))
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "dist", "tests", "docs"))
    environment = {name: value for name, value in os.environ.items() if name != "PODNET_REQUIRE_NATIVE"}
    environment |= {"CC": "/bin/false", "PODNET_SHIM_CC": shutil.which("musl-gcc")}
    options = ["--quiet", "--disable-pip-version-check", "--no-build-isolation", "--no-deps", "--wheel-dir", built]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, source], env=environment, check=True)
    [wheel] = built.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    return unpacked


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
