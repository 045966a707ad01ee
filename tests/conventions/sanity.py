# SPDX-License-Identifier: Apache-2.0
"""`ansible-test sanity`, all of its tests, on every Python of the machine that the tested ansible-core supports.

Nothing is ignored: the collection has no ignore file. Tests that ansible-test has and that do not apply find no files
here: `pslint` (PowerShell) and `shellcheck` (it looks only at *.sh).
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from cluster.paths import cache_folder

from . import tree
from .programs import CheckFailed, environment, python_folder, run, variables
from .runner import Check

# Controller Pythons of an ansible-core, oldest first.
CONTROLLERS = {
    "2.18": ("3.11", "3.12", "3.13"),
    "2.19": ("3.11", "3.12", "3.13"),
    "2.20": ("3.12", "3.13", "3.14"),
}
# The only reasons for which a test may be left out.
EXPECTED_SKIPS = re.compile(r'Skipping sanity test "(compile|import)" on Python [0-9.]+ because it could not be found')


def check(core: str | None) -> Check:
    """The check on an ansible-core, by default on the one that the project develops with."""
    name = "sanity" if core is None else f"sanity-{core}"
    return Check(name, lambda folder: _run(core, folder))


def core_environment(core: str) -> Path:
    """The `bin` of an environment with this ansible-core and the oldest libraries that go with it."""
    return environment(f"core-{core}", CONTROLLERS[core])


def _run(core: str | None, folder: Path) -> str:
    programs = Path(sys.executable).parent if core is None else core_environment(core)
    root = tree.export(folder)
    ignored = sorted(path.name for path in root.glob("tests/sanity/ignore*"))
    if ignored:
        raise CheckFailed(f"tests/sanity has ignore files: {', '.join(ignored)}")
    home = cache_folder(f"ansible-test/{core or 'newest'}")
    _provide_pip(programs, home)
    command = [programs / "ansible-test", "sanity", "--color", "no"]
    try:
        output = run(command, cwd=root, env=variables(home, python_folder(), programs, PIP_QUIET="1"))
    except CheckFailed as error:
        raise CheckFailed(_findings(str(error))) from None
    skipped = [line for line in output.splitlines() if "Skipping" in line and not EXPECTED_SKIPS.search(line)]
    if skipped:
        raise CheckFailed("\n".join(skipped))
    tests = {line.split('"')[1] for line in output.splitlines() if line.startswith("Running sanity test")}
    imported = re.findall(r'Running sanity test "import" on Python ([0-9.]+)', output)
    return f"{len(tests)} tests passed, ansible-core {core_version(programs)}, modules on Python {', '.join(imported)}"


def _findings(output: str) -> str:
    """The lines about what is wrong, or all if there are none: then it was the run that went wrong."""
    lines = [line for line in output.splitlines() if line.startswith(("ERROR: ", "FATAL: "))]
    return "\n".join(lines) if any(line.startswith("ERROR: ") for line in lines) else output


def core_version(programs: Path) -> str:
    code = "import ansible.release; print(ansible.release.__version__)"
    return run([programs / "python", "-c", code]).strip()


def _provide_pip(programs: Path, home: Path) -> None:
    """ansible-test downloads its pip from a server of its own, unless it finds the file in its cache."""
    code = "import ansible_test; print(ansible_test.__path__[0])"
    package = Path(run([programs / "python", "-c", code]).strip())
    source = (package / "_internal/python_requirements.py").read_text()
    version = re.search(r"pip='([0-9.]+)'", source)
    if not version:
        raise CheckFailed("ansible-test does not say any more which pip it installs")
    target = home / ".ansible/test/cache" / f"get_pip_{version[1].replace('.', '_')}.py"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(__file__).with_name("get_pip.py"), target)
