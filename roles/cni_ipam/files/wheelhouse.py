# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Make the archives that nodes are installed from, one for each platform, on a machine with network and compiler.

An archive holds the plugin's wheel, the wheels of its locked dependencies, pip to install them with, and the
requirements with all hashes: a node needs nothing but Python. Its name is the hash of all that goes into it, so what is
in the cache is current. Everything is made beside its place and moved there when it is complete, so an interrupted run
leaves nothing half-made. One run at a time makes something; others wait for it.

The wheel is one of those that are given, or the one that a package index has of this version, or else built here: for
nodes of this machine's kind with this machine's compiler where it has one, else with that of the package ziglang. For
machines that neither compiles for, it is built of Python alone, and msgspec is left out where the index has no wheel of
it. Of the machine `any`, nothing in the archive is compiled, the dependencies included.

Prints {"changed": bool, "archives": {platform: {"version": ..., "path": ..., "script": bool}}, "findings": [...]}. A
platform is the node's Python and machine, such as 3.11-x86_64. `script` says of an archive that is there whether its
CNI executable is a script. Findings have the form of those of the module node_preflight.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import platform as this_machine
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

SOURCE_FOLDERS = ("agent", "plugins/module_utils/_core", "plugins/module_utils/_kube")
SOURCE_SUFFIXES = (".py", ".pxd", ".c")
PYCONFIG = "roles/cni_ipam/files/pyconfig.h"
SOURCE_FILES = ("setup.py", "pyproject.toml", "requirements/build.txt", "requirements/cross.txt", PYCONFIG)
# The oldest glibc first; pip takes a wheel for any of them. Nothing older than 2.28 comes with Python 3.11.
MANYLINUX = ("manylinux1", "manylinux2010", "manylinux2014", "manylinux_2_17", "manylinux_2_24", "manylinux_2_28")
# Machines for which the first wheels were made with a newer one.
MANYLINUX_OF = {"riscv64": ("manylinux_2_31", "manylinux_2_35", "manylinux_2_39")}
GLIBC = "2.28"
# The machines that zig compiles for, by the kernel's names.
ZIG_NAMES = {"x86_64": "x86_64", "aarch64": "aarch64", "riscv64": "riscv64", "ppc64le": "powerpc64le"}
# The machine of which nothing is asked but Python.
ANY = "any"
# The one dependency that the agent does without (agent/codec.py).
OPTIONAL = "msgspec"
SHIM = "podnet_ipam/agent/bin/podnet-ipam"
EXTENSIONS = re.compile(r"podnet_ipam/_core/\w+\.[\w-]+\.so")
DIGITS = 16
UNFINISHED = "unfinished-"

# What is lost without a compiled form. Medians, on a virtual machine with two cores, each at a time.
SCRIPT_COST = "each call of the CNI executable starts Python, which takes 10 to 15 ms of a processor in place of 0.2"
ALLOCATOR_COST = "an address is found in 2 to 6 us in place of 0.1"
JSON_COST = "a block of 10 kB is read in 50 us in place of 26 and written in 58 in place of 12"
OF_AN_ADD = "out of 2 ms that the agent takes for an ADD"


@dataclass(frozen=True)
class Platform:
    """What decides which wheels fit a node: the version of its Python and its machine, as the kernel names it."""

    python: str
    machine: str

    def __str__(self) -> str:
        return f"{self.python}-{self.machine}"

    @property
    def words(self) -> str:
        return f"Python {self.python} on {'any machine' if self.machine == ANY else self.machine}"

    @property
    def tags(self) -> list[str]:
        """What wheels for it are marked with."""
        if self.machine == ANY:
            return [ANY]
        return [f"{each}_{self.machine}" for each in (*MANYLINUX_OF.get(self.machine, MANYLINUX), "linux")]

    def takes(self, tags: Iterable[Tag]) -> bool:
        """Whether a wheel with these tags can be installed there."""
        version, interpreter = tuple(map(int, self.python.split("."))), f"cp{self.python.replace('.', '')}"
        own = (
            *cpython_tags(version, [interpreter], self.tags),
            *compatible_tags(version, interpreter, self.tags),
        )
        return any(tag in own for tag in tags)


@dataclass(frozen=True)
class Builder:
    """The collection in folder `collection`, what is made of it in folder `cache`, and wheels to take as they are.

    `index` is the URL of a package index that has the plugin's wheels; empty where they are given or built.
    """

    collection: Path
    cache: Path
    given: tuple[Path, ...] = ()
    index: str = ""

    def archives(self, platforms: Iterable[Platform]) -> dict[Platform, Path]:
        """Where the archive of each platform is, or would be; for given wheels on which `findings` has no error."""
        locked = (self._requirements("node").read_bytes(), self._requirements("pip").read_bytes())
        return {each: self.cache / f"{digest(self._origin(each), *locked, str(each))}.tar" for each in platforms}

    def make(self, platform: Platform, archive: Path) -> None:
        """Make one archive, building and downloading what is not in the cache."""
        # First what takes seconds: without a dependency's wheel there is nothing to build for.
        locked, dependencies = self._dependencies(platform)
        wheels = {file.name: file for file in dependencies}
        # Under a name without version, which the role can call.
        (wheels["pip.zip"],) = self._downloaded("pip", self._requirements("pip").read_text(), platform)
        ours = self._given_to(platform) or self._indexed(platform) or self._built_for(platform)
        wheels[ours.name] = ours
        own = f"podnet-ipam=={self.version} --hash=sha256:{hashlib.sha256(ours.read_bytes()).hexdigest()}\n"
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=self.cache) as folder:
            requirements = Path(folder, "requirements.txt")
            requirements.write_text(locked + own)
            with tarfile.open(Path(folder, archive.name), "w") as tar:
                for name, file in {"requirements.txt": requirements, **wheels}.items():
                    tar.add(file, name)
            os.replace(Path(folder, archive.name), archive)

    @property
    def version(self) -> str:
        """The collection's: galaxy.yml in a checkout, MANIFEST.json where it was installed."""
        manifest = self.collection / "MANIFEST.json"
        if manifest.exists():
            return json.loads(manifest.read_text())["collection_info"]["version"]
        return re.search(r"^version: (\S+)$", (self.collection / "galaxy.yml").read_text(), re.MULTILINE)[1]

    def findings(self, platforms: Iterable[Platform]) -> Iterator[dict[str, str]]:
        """What is wrong with the given wheels, and what should be known of them and of those that are built."""
        if not self.given and not self.index:
            yield from (pure_finding(platform) for platform in platforms if self._builds_pure(platform))
        refused = False
        for file in self.given:
            for found in self._findings_on(file):
                refused |= found["severity"] == "error"
                yield found
        if not self.given or refused:
            return
        offered = "; ".join(f"{file} has the tag {file.stem.split('-', 2)[2]}" for file in self.given)
        for platform in platforms:
            if self._given_to(platform) is None:
                yield finding("error", f"no wheel fits {platform.words}: {offered}")

    def _findings_on(self, file: Path) -> Iterator[dict[str, str]]:
        try:
            name, version, _build, _tags = parse_wheel_filename(file.name)
            with zipfile.ZipFile(file) as wheel:
                held = wheel.namelist()
                script = SHIM in held and is_script(wheel)
        except (InvalidWheelFilename, zipfile.BadZipFile, OSError) as error:
            yield finding("error", f"{file} cannot be read as a wheel: {error}")
            return
        if (name, version) != ("podnet-ipam", Version(self.version)):
            yield finding("error", f"{file} is {name} {version}; this collection needs podnet-ipam {self.version}")
        if SHIM not in held:
            yield finding("error", f"{file} holds no CNI executable ({SHIM}): build it where there is a C compiler")
        if not any(map(EXTENSIONS.fullmatch, held)):
            message = f"{file} holds no compiled allocator: it is interpreted, and {ALLOCATOR_COST}, {OF_AN_ADD}"
            yield finding("warning", message)
        if script:
            yield finding("warning", f"{file} holds no compiled CNI executable: {SCRIPT_COST}")

    def archive_findings(self, platform: Platform, archive: Path) -> Iterator[dict[str, str]]:
        """What should be known of what an archive holds, if it is there, beside a wheel that was given."""
        if not archive.exists():
            return
        with tarfile.open(archive) as tar:
            names = tar.getnames()
        [ours] = (name for name in names if name.startswith("podnet_ipam-"))
        if ours.endswith("-any.whl") and not self.given:
            yield pure_finding(platform)
        if not any(name.startswith(f"{OPTIONAL}-") for name in names):
            yield finding("warning", f"nodes with {platform.words} do without {OPTIONAL}: {JSON_COST}, {OF_AN_ADD}")

    def _builds_pure(self, platform: Platform) -> bool:
        """Whether a wheel that is built here for it is of Python alone."""
        return platform.machine not in ZIG_NAMES and not is_native(platform.machine)

    def _given_to(self, platform: Platform) -> Path | None:
        """The first given wheel that fits, one for all machines after all others."""
        fitting = (file for file in self.given if platform.takes(parse_wheel_filename(file.name)[3]))
        return min(fitting, key=lambda file: file.stem.endswith("-any"), default=None)

    def _origin(self, platform: Platform) -> str:
        """The hash of what the wheel is, or is built from."""
        given = self._given_to(platform)
        if given:
            return digest(given.name, given.read_bytes())
        if self._builds_pure(platform):
            return digest(self.index, self._sources(), ANY)
        # A version on an index never changes.
        return digest(self.index, self.version) if self.index else self._sources()

    def _sources(self) -> str:
        files = [self.collection / name for name in SOURCE_FILES]
        for folder in SOURCE_FOLDERS:
            files += [file for file in (self.collection / folder).rglob("*") if file.suffix in SOURCE_SUFFIXES]
        named = ((str(file.relative_to(self.collection)), file.read_bytes()) for file in sorted(files))
        return digest(self.version, *(part for pair in named for part in pair))

    def _indexed(self, platform: Platform) -> Path | None:
        """The wheel that the index has for a platform; None without an index, or where one of Python alone will do."""
        if not self.index:
            return None
        folder = self.cache / f"index-{digest(self.index, self.version)}-{platform}"
        if not folder.exists():
            wanted = (f"--index-url={self.index}", f"podnet-ipam=={self.version}")
            try:
                fill(folder, lambda target: self._fetch(platform, target, *wanted))
            except NoWheel:
                if self._builds_pure(platform):
                    return None
                raise
        wheel = next(folder.glob("*.whl"))
        if errors := errors_in(self._findings_on(wheel)):
            raise SystemExit("\n".join(errors))
        return wheel

    def _built_for(self, platform: Platform) -> Path:
        """The plugin's wheel, built here."""
        machine = ANY if self._builds_pure(platform) else platform.machine
        folder = self.cache / f"wheel-{self._sources()}-{machine}"
        if not folder.exists():
            fill(folder, lambda target: self._build(machine, target))
        return next(folder.glob("*.whl"))

    def _build(self, machine: str, target: Path) -> None:
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=self.cache) as name:
            # Building writes beside its sources, and an installed collection may be read-only.
            staged = Path(name)
            for folder in SOURCE_FOLDERS:
                shutil.copytree(self.collection / folder, staged / folder)
            for file in SOURCE_FILES:
                (staged / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.collection / file, staged / file)
            # galaxy.yml does not travel in a collection's archive; the wheel takes its version from it.
            (staged / "galaxy.yml").write_text(f"version: {self.version}\n")
            crossing = machine != ANY and not is_native(machine)
            tools = self._tools("build", "cross") if crossing else self._tools("build")
            environment = {"PODNET_IPAM_PURE": "1"} if machine == ANY else {"PODNET_REQUIRE_NATIVE": "1"}
            if crossing:
                environment |= self._cross(tools, machine, staged)
            # The locked tools stand in for build isolation, which would fetch what is newest today.
            wanted = ("--no-build-isolation", "--no-deps", "--wheel-dir", str(target), str(staged))
            pip(tools, "wheel", *wanted, **environment)

    def _cross(self, tools: Path, machine: str, staged: Path) -> dict[str, str]:
        """The environment in which setuptools builds for another machine.

        Python's headers are the controller's: with the limited API they differ between machines in nothing but
        pyconfig.h, which they look for beside themselves.
        """
        present = Path(sysconfig.get_path("include"))
        if not (present / "Python.h").exists():
            wanted = f"install that of {sys.executable}, such as python3-dev, or set cni_ipam_pure"
            raise SystemExit(f"{present} has no Python.h: {wanted}")
        headers = staged / "include"
        shutil.copytree(present, headers)
        shutil.copy(staged / PYCONFIG, headers / "pyconfig.h")
        zig = f"{shlex.quote(str(tools / 'bin/python'))} -m ziglang cc -target {ZIG_NAMES[machine]}-linux"
        return {
            "CC": f"{zig}-gnu.{GLIBC}",
            "LDSHARED": f"{zig}-gnu.{GLIBC} -shared",
            # In place of the flags that the controller's Python was built with.
            "CFLAGS": f"-O2 -I{shlex.quote(str(headers))}",
            "PODNET_SHIM_CC": f"{zig}-musl",
            "_PYTHON_HOST_PLATFORM": f"linux-{machine}",
            # The C libraries, which zig compiles at the first use of each.
            "ZIG_GLOBAL_CACHE_DIR": str(self.cache / "zig"),
        }

    def _dependencies(self, platform: Platform) -> tuple[str, list[Path]]:
        """What the agent needs on a platform: the locked requirements, and the wheels of them."""
        locked = self._requirements("node").read_text()
        try:
            return locked, self._downloaded("node", locked, platform)
        except NoWheel as missing:
            if missing.name != OPTIONAL:
                raise
        rest = re.sub(rf"^{OPTIONAL}==.*\n( .*\n)*", "", locked, flags=re.MULTILINE)
        return rest, self._downloaded("node", rest, platform)

    def _downloaded(self, name: str, locked: str, platform: Platform) -> list[Path]:
        """The wheels that requirements lock, for a platform; `name` is what the folder of them is called."""
        folder = self.cache / f"{name}-{digest(locked)}-{platform}"
        if not folder.exists():
            # pip judges markers by the Python that it runs on, not by the node's: without them it takes one wheel too
            # many rather than one too few.
            for_unix = re.sub(r"^\S+ ; sys_platform == 'win32'.*\n( .*\n)*", "", locked, flags=re.MULTILINE)
            unmarked = re.sub(r" ;[^\\\n]*", " ", for_unix)
            fill(folder, lambda target: self._download(unmarked, platform, target))
        return sorted(folder.glob("*.whl"))

    def _download(self, requirements: str, platform: Platform, target: Path) -> None:
        with tempfile.NamedTemporaryFile("w", dir=target.parent) as file:
            file.write(requirements)
            file.flush()
            self._fetch(platform, target, "--require-hashes", "--requirement", file.name)

    def _fetch(self, platform: Platform, target: Path, *wanted: str) -> None:
        """Download wheels for a platform from a package index."""
        platforms = [f"--platform={each}" for each in platform.tags]
        where = (*platforms, f"--python-version={platform.python}", "--dest", str(target))
        try:
            pip(self._tools("build"), "download", "--only-binary=:all:", "--no-deps", *where, *wanted)
        except SystemExit as error:
            if missing := re.search(r"No matching distribution found for (\S+)", str(error)):
                raise NoWheel(missing[1], platform, error) from error
            raise

    def _tools(self, *names: str) -> Path:
        """A virtual environment of what the requirements files lock.

        It cannot be moved; its last file says that it is whole.
        """
        locked = [self._requirements(name) for name in names]
        folder = self.cache / f"tools-{digest(*(each.read_bytes() for each in locked), sys.version)}"
        complete = folder / "complete"
        if not complete.exists():
            run([sys.executable, "-m", "venv", "--clear", str(folder)])
            pip(folder, "install", "--require-hashes", *(f"--requirement={each}" for each in locked))
            complete.touch()
        return folder

    def _requirements(self, name: str) -> Path:
        return self.collection / "requirements" / f"{name}.txt"


class NoWheel(SystemExit):
    """An index has no wheel of a requirement for a platform."""

    def __init__(self, requirement: str, platform: Platform, error: SystemExit):
        told = f"{requirement} has no wheel for {platform.words}"
        super().__init__(f"{told}, without which nodes of this kind cannot be served. {error}")
        self.name = requirement.partition("==")[0]


def fill(folder: Path, filler: Callable[[Path], None]) -> None:
    """Make `folder` with what `filler` puts into the folder that it is called with."""
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder.parent) as temporary:
        filled = Path(temporary, folder.name)
        filled.mkdir()
        filler(filled)
        filled.rename(folder)


def is_native(machine: str) -> bool:
    """Whether this is such a machine, and has a compiler."""
    return (sys.platform, this_machine.machine()) == ("linux", machine) and has_compiler()


def has_compiler() -> bool:
    """Whether this machine has the C compiler that its Python builds extensions with."""
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    return shutil.which(shlex.split(compiler)[0]) is not None and shutil.which("cc") is not None


def is_script(wheel: zipfile.ZipFile) -> bool:
    """Whether the CNI executable in the plugin's wheel is a script."""
    with wheel.open(SHIM) as shim:
        return shim.read(2) == b"#!"


def described(archive: Path) -> dict[str, object]:
    """What the role needs to know of an archive."""
    known = {"version": archive.stem, "path": str(archive)}
    if not archive.exists():
        return known
    with tarfile.open(archive) as tar:
        [ours] = (name for name in tar.getnames() if name.startswith("podnet_ipam-"))
        with zipfile.ZipFile(tar.extractfile(ours)) as wheel:
            return {**known, "script": is_script(wheel)}


def pure_finding(platform: Platform) -> dict[str, str]:
    """What it costs that nothing of the plugin is compiled."""
    told = f"nodes with {platform.words} get the plugin in Python alone: {SCRIPT_COST}"
    return finding("warning", f"{told}; {ALLOCATOR_COST}, {OF_AN_ADD}")


def finding(severity: str, message: str) -> dict[str, str]:
    return {"severity": severity, "check": "wheel", "message": message}


def errors_in(findings: Iterable[dict[str, str]]) -> list[str]:
    """The messages of those that forbid to go on."""
    return [found["message"] for found in findings if found["severity"] == "error"]


def digest(*parts: str | bytes) -> str:
    """A hash of the parts and of where one ends and the next begins."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        whole.update(b"%d:" % len(data) + data)
    return whole.hexdigest()[:DIGITS]


def pip(tools: Path, *arguments: str, **environment: str) -> None:
    """Run the pip of a virtual environment."""
    run(
        [str(tools / "bin/python"), "-m", "pip", *arguments],
        {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment},
    )


def run(command: list[str], environment: dict[str, str] | None = None) -> None:
    """Run a command; when it fails, its last lines are the error."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        raise SystemExit(f"{' '.join(command)}\nfailed with exit status {done.returncode}:\n{last}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collection", type=Path, required=True, help="the collection's folder")
    parser.add_argument("--cache", type=Path, required=True, help="where archives and their parts are kept")
    parser.add_argument("--wheel", type=Path, action="append", default=[], help="take this one, build none")
    parser.add_argument("--index", default="", help="URL of a package index to take it from")
    parser.add_argument("--check", action="store_true", help="only say what would be made")
    parser.add_argument("platforms", nargs="+", metavar="PLATFORM", help="such as 3.11-x86_64")
    options = parser.parse_args()
    given = tuple(file.expanduser() for file in options.wheel)
    builder = Builder(options.collection, options.cache.expanduser(), given, options.index)
    platforms = [Platform(*name.split("-", 1)) for name in options.platforms]
    findings = list(builder.findings(platforms))
    errors = errors_in(findings)
    if errors and not options.check:
        raise SystemExit("\n".join(errors))
    archives = {} if errors else builder.archives(platforms)
    missing = {platform: path for platform, path in archives.items() if not path.exists()}
    if missing and not options.check:
        make(builder, missing)
    made = {str(platform): described(path) for platform, path in archives.items()}
    for platform, path in archives.items():
        findings += (found for found in builder.archive_findings(platform, path) if found not in findings)
    print(json.dumps({"changed": bool(missing), "archives": made, "findings": findings}))


def make(builder: Builder, missing: dict[Platform, Path]) -> None:
    """Make archives, while no other run makes any."""
    builder.cache.mkdir(parents=True, exist_ok=True)
    with (builder.cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in builder.cache.glob(f"{UNFINISHED}*"):
            shutil.rmtree(left)
        for platform, path in missing.items():
            if not path.exists():
                builder.make(platform, path)


if __name__ == "__main__":
    main()
