# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Build the wheel `podnet-ipam`: the node's half of the collection.

The same files that Ansible runs interpreted from `plugins/module_utils` are packaged as `podnet_ipam._core` and
`podnet_ipam._kube`; what has a `.pxd` beside it is compiled. One wheel serves every Python from 3.11 on (stable ABI).
The CNI executable is a static C program, built here and carried inside the package.

Without a C compiler the wheel is still built, interpreted and with a CNI executable in Python, unless
PODNET_REQUIRE_NATIVE is set, which turns that into an error. With PODNET_IPAM_PURE nothing is compiled, and the wheel
is one for all machines.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Command, Extension, setup
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent
CORE = "plugins/module_utils/_core"
OLDEST_PYTHON = 0x030B0000
REQUIRE_NATIVE = bool(os.environ.get("PODNET_REQUIRE_NATIVE"))
PURE = bool(os.environ.get("PODNET_IPAM_PURE"))

PACKAGE_DIRS = {
    "podnet_ipam._core": CORE,
    "podnet_ipam._kube": "plugins/module_utils/_kube",
    "podnet_ipam.agent": "agent",
}

SHIM_SOURCE = "agent/shim/shim.c"
SHIM_SCRIPT = "agent/shim/shim.py"
# Isolated from the caller's environment (-I), and without site-packages (-S), which take as long as Python itself. The
# role puts the node's Python in the place of this one.
SHIM_FIRST_LINE = "#!/usr/bin/python3 -IS\n"
SHIM_IN_PACKAGE = "podnet_ipam/agent/bin/podnet-ipam"
SHIM_FLAGS = ["-std=gnu11", "-O2", "-static", "-s", "-Wall", "-Wextra", "-Werror", "-fstack-protector-strong"]


def collection_version() -> str:
    """The version in galaxy.yml, which is the only place that states it."""
    match = re.search(r"^version: (\S+)$", (ROOT / "galaxy.yml").read_text(), re.MULTILINE)
    if match is None:
        raise SystemExit("galaxy.yml has no line 'version: X.Y.Z'")
    return match[1]


def core_extensions() -> list[Extension]:
    """One extension for each core module that has a `.pxd` beside it.

    Cython finds a `.pxd` only where the folders spell the module's full name: the sources are staged under that name.
    """
    staged = Path("build/cython/podnet_ipam/_core")
    shutil.rmtree(staged, ignore_errors=True)
    shutil.copytree(ROOT / CORE, staged, ignore=shutil.ignore_patterns("__pycache__"))
    (staged.parent / "__init__.py").touch()
    return [
        Extension(
            f"podnet_ipam._core.{typed.stem}",
            [str(typed.with_suffix(".py"))],
            define_macros=[("Py_LIMITED_API", hex(OLDEST_PYTHON))],
            extra_link_args=["-s"],
            py_limited_api=True,
        )
        for typed in sorted(staged.glob("*.pxd"))
    ]


class BuildShim(Command):
    """Compile the CNI executable, preferring musl: its programs start in a third of glibc's time. Else the script."""

    user_options: list[tuple[str, str, str]] = []

    def initialize_options(self) -> None:
        self.build_lib: str | None = None

    def finalize_options(self) -> None:
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    def run(self) -> None:
        target = Path(self.build_lib) / SHIM_IN_PACKAGE
        target.parent.mkdir(parents=True, exist_ok=True)
        compiler = None if PURE else self._compiler()
        if compiler:
            command = [*shlex.split(compiler), *SHIM_FLAGS, "-o", str(target), str(ROOT / SHIM_SOURCE)]
            subprocess.run(command, check=True)
        else:
            target.write_text(SHIM_FIRST_LINE + (ROOT / SHIM_SCRIPT).read_text())
            target.chmod(0o755)

    @staticmethod
    def _compiler() -> str | None:
        compiler = os.environ.get("PODNET_SHIM_CC") or shutil.which("musl-gcc") or shutil.which("cc")
        if compiler is None:
            message = "no C compiler (looked for PODNET_SHIM_CC, musl-gcc, cc): the CNI executable is a Python script"
            if REQUIRE_NATIVE:
                raise SystemExit(message)
            print(f"warning: {message}", file=sys.stderr)
        return compiler

    def get_outputs(self) -> list[str]:
        return [str(Path(self.build_lib) / SHIM_IN_PACKAGE)]

    def get_source_files(self) -> list[str]:
        return [SHIM_SOURCE, SHIM_SCRIPT]


class Build(build):
    sub_commands = [*build.sub_commands, ("build_shim", None)]


def extensions() -> list[Extension]:
    if PURE:
        return []
    from Cython.Build import cythonize

    built = cythonize(
        core_extensions(),
        # Annotations are documentation here; C types come from the .pxd files alone.
        compiler_directives={"language_level": 3, "annotation_typing": False},
    )
    for extension in built:
        extension.optional = not REQUIRE_NATIVE  # which cythonize does not take over from what it is given
    return built


setup(
    version=collection_version(),
    packages=list(PACKAGE_DIRS),
    package_dir=PACKAGE_DIRS,
    package_data={"podnet_ipam._core": ["*.pxd"]},
    ext_modules=extensions(),
    cmdclass={"build": Build, "build_shim": BuildShim},
    options={} if PURE else {"bdist_wheel": {"py_limited_api": "cp311"}},
)
