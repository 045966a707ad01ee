# SPDX-License-Identifier: Apache-2.0
"""Building the node image: Debian packages, Kubernetes' programs, CNI plugins, and the files in `node/`.

What kind asks of an image: its entrypoint prints the cgroup version, then becomes systemd; `/kind/version`;
kubeadm, kubelet and kubectl; a containerd that already has kubeadm's images.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from pathlib import Path

from . import gobuild
from .commands import output_of, run_logged
from .engine import Engine
from .errors import ClusterError
from .lifetime import CONTAINED
from .paths import SOURCES, cache_folder
from .preload import kubeadm_images, preload
from .progress import Step
from .versions import pinned

NODE = SOURCES / "node"

# File in node/ -> path in the tree, mode.
NODE_FILES = {
    "entrypoint": ("usr/local/bin/entrypoint", 0o755),
    "prepare-kubelet-cgroups": ("usr/local/libexec/prepare-kubelet-cgroups", 0o755),
    "kubelet.service": ("etc/systemd/system/kubelet.service", 0o644),
    "default-storage.yaml": ("kind/manifests/default-storage.yaml", 0o644),
}
# The stop signal is the one on which systemd shuts down.
IMPORT = """
set -o pipefail
tar -C "$1" --numeric-owner -cf - . | "$0" import \\
  --change 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' --change 'STOPSIGNAL SIGRTMIN+3' - "$2"
"""
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
        raise ClusterError("/etc/os-release has no VERSION_CODENAME: node images are built on Debian only")
    return name


def apt_sources() -> list[Path]:
    """This machine's own apt sources for its release."""
    candidates = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    return [
        path
        for path in candidates
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
            [
                *CONTAINED,
                "mmdebstrap",
                "--variant=minbase",
                f"--include={','.join(packages(wanted))}",
                suite(),
                fresh,
                *apt_sources(),
            ],
            "node-debian",
            step,
            env=os.environ | {"TMPDIR": str(cache_folder("tmp"))},
        )
    fresh.replace(tar)
    return tar


def packages_hash(text: str) -> str:
    """A hash of the names alone, so that a better comment costs nothing."""
    return gobuild.text_hash(" ".join(packages(text)))


def build(engine: Engine, name: str) -> None:
    """Builds the node image and gives it its name."""
    prepare_parts()
    with tempfile.TemporaryDirectory(dir=cache_folder("tmp"), prefix="node-") as folder:
        tree = Path(folder) / "tree"
        tree.mkdir()
        with Step("assembling the node image's files", 30) as step:
            fill(tree, step)
        with Step(f"importing the node image into {engine.name}", 40) as step:
            import_tree(engine, tree, name, step)


def import_tree(engine: Engine, tree: Path, name: str, step: Step) -> None:
    """Makes an image of a file tree. It gets its name last: what has the name is complete."""
    unfinished = f"{name}-unfinished"
    run_logged(["bash", "-c", IMPORT, engine.name, tree, unfinished], "node-import", step, env=engine.environment())
    engine.output("tag", unfinished, name)
    engine.output("image", "rm", unfinished)


def prepare_parts() -> None:
    """Makes what `fill` puts together, each part with its own progress, unless it is in the cache."""
    for name in gobuild.PROGRAMS:
        if name not in ("kind", "cnitool"):
            gobuild.build(name)
    debian_tar()


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
    """containerd's configuration, and a base specification without limits: a machine may forbid them."""
    folder = tree / "etc/containerd"
    folder.mkdir(parents=True, exist_ok=True)
    template = (NODE / "containerd.toml").read_text()
    (folder / "config.toml").write_text(template.replace("@PAUSE_IMAGE@", kubeadm_images()["pause"]))
    specification = json.loads(output_of("chroot", tree, "ctr", "oci", "spec"))
    specification["process"].pop("rlimits", None)
    (folder / "cri-base.json").write_text(json.dumps(specification))


def install(source: Path, target: Path, mode: int) -> None:
    """Copies a file with the given mode, making its folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)
