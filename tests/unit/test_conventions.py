# SPDX-License-Identifier: Apache-2.0
"""What the checks of the conventions share while they run beside each other. `make test` runs the checks themselves."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conventions import programs, versions


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PODNET_CACHE", str(tmp_path / "cache"))


def test_checks_that_start_together_with_an_empty_cache_all_find_the_pythons():
    for _turn in range(20):
        with ThreadPoolExecutor(8) as checks:
            folders = [check.result() for check in [checks.submit(programs.python_folder) for _check in range(8)]]
        assert len(set(folders)) == 1
        links = {link.name: link.readlink() for link in folders[0].iterdir()}
        assert links == {f"python{version}": path for version, path in programs.pythons().items()}
        for link in folders[0].iterdir():
            link.unlink()


# Collects the tests that its arguments name, as in an environment without the wheel podnet-ipam.
WITHOUT_THE_WHEEL = """
import sys
import pytest
sys.modules["podnet_ipam"] = None
sys.exit(pytest.main(["--collect-only", "--quiet", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


def test_the_tests_that_run_with_other_versions_need_nothing_that_is_not_locked_for_them():
    command = [sys.executable, "-c", WITHOUT_THE_WHEEL, *versions.TESTS]
    done = subprocess.run(command, cwd=programs.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
