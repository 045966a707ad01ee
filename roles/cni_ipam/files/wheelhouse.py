# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Make the archives that nodes are installed from, one for each platform, on a machine with network and compiler.

An archive holds the plugin's wheel, the wheels of its locked dependencies, pip to install them with, and the
requirements with all hashes: a node needs nothing but Python. Its name is the hash of all that goes into it, so what is
in the cache is current. Everything is made beside its place and moved there when it is complete, so an interrupted run
leaves nothing half-made. One run at a time makes something; others wait for it.

Prints {"changed": bool, "archives": {platform: {"version": ..., "path": ...}}}. A platform is the node's Python and
machine, such as 3.11-x86_64.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

SOURCE_FOLDERS = ("agent", "plugins/module_utils/_core", "plugins/module_utils/_kube")
SOURCE_SUFFIXES = (".py", ".pxd", ".c")
SOURCE_FILES = ("setup.py", "pyproject.toml", "requirements/build.txt")
# The oldest glibc first; pip takes a wheel for any of them. Nothing older than 2.28 comes with Python 3.11.
MANYLINUX = ("manylinux1", "manylinux2010", "manylinux2014", "manylinux_2_17", "manylinux_2_24", "manylinux_2_28")
DIGITS = 16
UNFINISHED = "unfinished-"


@dataclass(frozen=True)
class Builder:
    """The collection in folder `collection` and what has been made of it in folder `cache`."""

    collection: Path
    cache: Path

    def archives(self, platforms: Iterable[str]) -> dict[str, Path]:
        """Where the archive of each platform is, or would be."""
        locked = (self._requirements("node").read_bytes(), self._requirements("pip").read_bytes())
        return {each: self.cache / f"{digest(self._sources(), *locked, each)}.tar" for each in platforms}

    def make(self, platform: str, archive: Path) -> None:
        """Make one archive, building and downloading what is not in the cache."""
        python, machine = platform.split("-", 1)
        built = self._wheel()
        if not built.name.endswith(f"_{machine}.whl"):
            raise SystemExit(
                f"the wheel built here is {built.name}, but a node's machine is {machine}: "
                "run the play from a controller of the nodes' architecture"
            )
        wheels = {file.name: file for file in (built, *self._downloaded("node", python, machine))}
        # Under a name without version, which the role can call.
        (wheels["pip.zip"],) = self._downloaded("pip", python, machine)
        own = f"podnet-ipam=={self.version} --hash=sha256:{hashlib.sha256(built.read_bytes()).hexdigest()}\n"
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=self.cache) as folder:
            requirements = Path(folder, "requirements.txt")
            requirements.write_text(self._requirements("node").read_text() + own)
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

    def _sources(self) -> str:
        """The hash of all that the wheel is built from."""
        files = [self.collection / name for name in SOURCE_FILES]
        for folder in SOURCE_FOLDERS:
            files += [file for file in (self.collection / folder).rglob("*") if file.suffix in SOURCE_SUFFIXES]
        named = ((str(file.relative_to(self.collection)), file.read_bytes()) for file in sorted(files))
        return digest(self.version, *(part for pair in named for part in pair))

    def _wheel(self) -> Path:
        """The plugin's wheel."""
        folder = self.cache / f"wheel-{self._sources()}"
        if not folder.exists():
            fill(folder, self._build)
        return next(folder.glob("*.whl"))

    def _build(self, target: Path) -> None:
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=self.cache) as name:
            # Building writes beside its sources, and an installed collection may be read-only.
            staged = Path(name)
            for folder in SOURCE_FOLDERS:
                shutil.copytree(self.collection / folder, staged / folder)
            for file in SOURCE_FILES:
                (staged / file).parent.mkdir(exist_ok=True)
                shutil.copy(self.collection / file, staged / file)
            # galaxy.yml does not travel in a collection's archive; the wheel takes its version from it.
            (staged / "galaxy.yml").write_text(f"version: {self.version}\n")
            # The locked tools stand in for build isolation, which would fetch what is newest today.
            self._pip("wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", str(target), str(staged))

    def _downloaded(self, name: str, python: str, machine: str) -> list[Path]:
        """The wheels that requirements file `name` locks, for a platform."""
        locked = self._requirements(name).read_text()
        folder = self.cache / f"{name}-{digest(locked)}-{python}-{machine}"
        if not folder.exists():
            # pip judges markers by the Python that it runs on, not by the node's: without them it takes one wheel too
            # many rather than one too few.
            for_unix = re.sub(r"^\S+ ; sys_platform == 'win32'.*\n( .*\n)*", "", locked, flags=re.MULTILINE)
            unmarked = re.sub(r" ;[^\\\n]*", " ", for_unix)
            platforms = [f"--platform={each}_{machine}" for each in MANYLINUX]

            def download(target: Path) -> None:
                with tempfile.NamedTemporaryFile("w", dir=target.parent) as file:
                    file.write(unmarked)
                    file.flush()
                    self._pip(
                        "download", "--only-binary=:all:", "--no-deps", "--require-hashes", *platforms,
                        f"--python-version={python}", "--dest", str(target), "--requirement", file.name,
                    )  # fmt: skip

            fill(folder, download)
        return sorted(folder.glob("*.whl"))

    def _pip(self, *arguments: str) -> None:
        environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PODNET_REQUIRE_NATIVE": "1"}
        run([str(self._tools() / "bin/python"), "-m", "pip", *arguments], environment)

    def _tools(self) -> Path:
        """A virtual environment of the locked build tools. It cannot be moved; its last file says that it is whole."""
        locked = self._requirements("build")
        folder = self.cache / f"tools-{digest(locked.read_bytes(), sys.version)}"
        complete = folder / "complete"
        if not complete.exists():
            run([sys.executable, "-m", "venv", "--clear", str(folder)])
            run([str(folder / "bin/python"), "-m", "pip", "install", "--require-hashes", "--requirement", str(locked)])
            complete.touch()
        return folder

    def _requirements(self, name: str) -> Path:
        return self.collection / "requirements" / f"{name}.txt"


def fill(folder: Path, filler: Callable[[Path], None]) -> None:
    """Make `folder` with what `filler` puts into the folder that it is called with."""
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder.parent) as temporary:
        filled = Path(temporary, folder.name)
        filled.mkdir()
        filler(filled)
        filled.rename(folder)


def digest(*parts: str | bytes) -> str:
    """A hash of the parts and of where one ends and the next begins."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        whole.update(b"%d:" % len(data) + data)
    return whole.hexdigest()[:DIGITS]


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
    parser.add_argument("--check", action="store_true", help="only say what would be made")
    parser.add_argument("platforms", nargs="+", metavar="PLATFORM", help="such as 3.11-x86_64")
    options = parser.parse_args()
    builder = Builder(options.collection, options.cache.expanduser())
    archives = builder.archives(options.platforms)
    missing = {platform: path for platform, path in archives.items() if not path.exists()}
    if missing and not options.check:
        builder.cache.mkdir(parents=True, exist_ok=True)
        with (builder.cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left in builder.cache.glob(f"{UNFINISHED}*"):
                shutil.rmtree(left)
            for platform, path in missing.items():
                if not path.exists():
                    builder.make(platform, path)
    made = {platform: {"version": path.stem, "path": str(path)} for platform, path in archives.items()}
    print(json.dumps({"changed": bool(missing), "archives": made}))


if __name__ == "__main__":
    main()
