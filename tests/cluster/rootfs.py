# SPDX-License-Identifier: Apache-2.0
"""The file tree of a node: Debian packages, Kubernetes' programs, CNI plugins, and the files in `node/`."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

from . import gobuild
from .errors import ClusterError
from .paths import SOURCES, cache_folder
from .preload import kubeadm_images, preload
from .progress import Step, run_logged
from .versions import pinned

NODE = SOURCES / "node"

# File in node/ -> path in the tree, mode.
NODE_FILES = {
    "entrypoint": ("usr/local/bin/entrypoint", 0o755),
    "prepare-kubelet-cgroups": ("usr/local/libexec/prepare-kubelet-cgroups", 0o755),
    "kubelet.service": ("etc/systemd/system/kubelet.service", 0o644),
    "default-storage.yaml": ("kind/manifests/default-storage.yaml", 0o644),
}
# Units of Debian's packages that would reach for the network or for hardware.
MASKED_UNITS = ("apt-daily.timer", "apt-daily-upgrade.timer", "getty.target", "systemd-firstboot.service")


def packages(text: str) -> list[str]:
    """The names in a list of packages: one a line, `#` starts a comment."""
    names = (line.partition("#")[0].strip() for line in text.splitlines())
    return [name for name in names if name]


def suite() -> str:
    """The code name of this machine's Debian release; the node gets the same."""
    name = platform.freedesktop_os_release().get("VERSION_CODENAME")
    if not name:
        raise ClusterError("/etc/os-release has no VERSION_CODENAME: a node image can be built on Debian only")
    return name


def apt_sources() -> list[Path]:
    """This machine's own apt sources for its release."""
    candidates = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    return [
        path for path in candidates
        if path.suffix in (".list", ".sources") and path.is_file() and suite() in path.read_text()
    ]


def debian_tar() -> Path:
    """A tar file with the packages installed, cached by their list and the release."""
    wanted = (NODE / "packages.txt").read_text()
    tar = cache_folder("debian") / f"{suite()}-{packages_hash(wanted)}.tar"
    if tar.exists():
        return tar
    if os.geteuid() != 0:
        raise ClusterError(
            "a node image can only be built as root; else set PODNET_NODE_IMAGE to a kindest/node image that "
            "can be pulled"
        )
    fresh = tar.with_name(f".{os.getpid()}.{tar.name}")
    with Step("installing Debian packages for the node image", 60) as step:
        run_logged(
            ["mmdebstrap", "--variant=minbase", f"--include={','.join(packages(wanted))}",
             suite(), fresh, *apt_sources()],
            "node-debian", step,
        )
    fresh.replace(tar)
    return tar


def packages_hash(text: str) -> str:
    """A hash of the names alone, so that a better comment costs nothing."""
    return gobuild.text_hash(" ".join(packages(text)))


def fill(tree: Path, step: Step) -> None:
    """Makes the whole file tree of a node in the empty folder `tree`."""
    run_logged(["tar", "-C", tree, "--numeric-owner", "-xpf", debian_tar()], "node-unpack", step)
    install_programs(tree)
    install_files(tree)
    configure_containerd(tree)
    preload(tree, step)


def install_programs(tree: Path) -> None:
    """Puts Kubernetes' programs and the CNI plugins where kind and containerd look for them."""
    for name in ("kubelet", "kubeadm", "kubectl"):
        install(gobuild.build(name), tree / "usr/bin" / name, 0o755)
    for name in gobuild.CNI_PLUGINS:
        install(gobuild.build(name), tree / "opt/cni/bin" / name, 0o755)


def install_files(tree: Path) -> None:
    """Puts the files of `node/` in place, with what kind expects beside them."""
    for name, (path, mode) in NODE_FILES.items():
        install(NODE / name, tree / path, mode)
    (tree / "kind/version").write_text(pinned("kubernetes"))
    (tree / "etc/cni/net.d").mkdir(parents=True, exist_ok=True)
    # kind mounts the machine's folder there.
    (tree / "lib/modules").mkdir(parents=True, exist_ok=True)
    units = tree / "etc/systemd/system"
    for unit in MASKED_UNITS:
        (units / unit).symlink_to("/dev/null")
    wanted = units / "multi-user.target.wants"
    wanted.mkdir(parents=True, exist_ok=True)
    (wanted / "kubelet.service").symlink_to("/etc/systemd/system/kubelet.service")


def configure_containerd(tree: Path) -> None:
    """containerd's configuration, and a base specification without the limits that a machine may forbid to raise."""
    folder = tree / "etc/containerd"
    folder.mkdir(parents=True, exist_ok=True)
    template = (NODE / "containerd.toml").read_text()
    (folder / "config.toml").write_text(template.replace("@PAUSE_IMAGE@", kubeadm_images()["pause"]))
    done = subprocess.run(["chroot", tree, "ctr", "oci", "spec"], check=True, capture_output=True, text=True)
    specification = json.loads(done.stdout)
    specification["process"].pop("rlimits", None)
    (folder / "cri-base.json").write_text(json.dumps(specification))


def install(source: Path, target: Path, mode: int) -> None:
    """Copies a file with the given mode, making its folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)
