# SPDX-License-Identifier: Apache-2.0
"""Container images of one layer, written as the archives that `docker save` writes.

The same inputs give the same bytes: owners, modes and times are fixed.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write_image(archive: Path, name: str, entrypoint: Sequence[str], files: Mapping[str, Path]) -> None:
    """Writes the image `name` to `archive`. `files`: absolute path in the image -> file on this machine."""
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        layer = Path(folder) / "layer.tar"
        write_layer(layer, files)
        with layer.open("rb") as content:
            layer_digest = hashlib.file_digest(content, "sha256").hexdigest()
        config = image_config(entrypoint, layer_digest)
        config_name = f"{hashlib.sha256(config).hexdigest()}.json"
        manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
        with tarfile.open(archive, "w") as out:
            out.add(layer, "layer.tar")
            add_bytes(out, config_name, config)
            add_bytes(out, "manifest.json", manifest)


def image_config(entrypoint: Sequence[str], layer_digest: str) -> bytes:
    """The image's configuration object."""
    config = {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {"Env": [f"PATH={SEARCH_PATH}"], "Entrypoint": list(entrypoint), "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
    }
    return json.dumps(config, sort_keys=True).encode()


def write_layer(layer: Path, files: Mapping[str, Path]) -> None:
    """Writes the files as executables, with their folders, /tmp, and a passwd that knows root."""
    with tarfile.open(layer, "w") as out:
        folders = {str(parent) for path in files for parent in PurePosixPath(path).parents}
        for folder in sorted((folders | {"/etc", "/tmp"}) - {"/"}):
            entry = tarfile.TarInfo(folder.lstrip("/"))
            entry.type = tarfile.DIRTYPE
            entry.mode = 0o1777 if folder == "/tmp" else 0o755
            out.addfile(entry)
        add_bytes(out, "etc/passwd", b"root:x:0:0:root:/:/\n")
        for path, source in sorted(files.items()):
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.mode = 0o755
            entry.size = source.stat().st_size
            with source.open("rb") as content:
                out.addfile(entry, content)


def add_bytes(out: tarfile.TarFile, name: str, content: bytes) -> None:
    """Adds a small file."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = 0o644
    out.addfile(entry, io.BytesIO(content))
