# SPDX-License-Identifier: Apache-2.0
"""The modules' integration tests with other versions of Ansible, of Python and of the libraries that modules import."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from .programs import ROOT, CheckFailed, run
from .runner import Check
from .sanity import core_environment, core_version

TESTS = ("tests/integration/modules", "tests/unit/plan", "tests/unit/plugins")
LIBRARIES = ("kubernetes", "netaddr")


def check(core: str) -> Check:
    """The check with this ansible-core and what requirements/core-`core`.txt locks beside it."""
    return Check(f"modules-{core}", lambda folder: _run(core))


def _run(core: str) -> str:
    programs = core_environment(core)
    _link(programs)
    # The environment is the user's own: these tests bring the API server up with the cluster tool's cache.
    command = [programs / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CheckFailed(done.stdout)
    code = "import importlib.metadata as m, sys; print(*(f'{n} {m.version(n)}' for n in sys.argv[1:]), sep=', ')"
    libraries = run([programs / "python", "-c", code, *LIBRARIES]).strip()
    passed = re.search(r"\d+ passed", done.stdout)
    return f"{passed[0] if passed else 'nothing ran'}, ansible-core {core_version(programs)}, {libraries}"


def _link(programs: Path) -> None:
    """Ansible and pytest find the checkout as the collection podnet.ipam, as in the development environment."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    link = Path(run([programs / "python", "-c", code]).strip()) / "ansible_collections/podnet/ipam"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(ROOT)
