# SPDX-License-Identifier: Apache-2.0
"""The images that are in a locally built node image from the start, so that nothing is ever pulled.

They get exactly the names that kubeadm asks for, each around one static program. CoreDNS is left out: no
test needs names of Services, and its build takes minutes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from . import gobuild
from .archive import write_image
from .commands import output_of, run_logged
from .lifetime import CONTAINED
from .progress import Step
from .versions import pinned

WORKLOAD_IMAGE = "localhost/podnet-workload:1"
STATIC_IMAGES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
PROXY_TOOLS = ("/usr/sbin/nft", "/usr/sbin/conntrack")

# In the tree, with its own containerd: `--no-unpack` because a layer is only unpacked where it runs.
IMPORT = r"""
set -eu
mount -t tmpfs tmpfs /run
containerd --config /preload/containerd.toml > /preload/containerd.log 2>&1 &
for _ in $(seq 100); do ctr version > /dev/null 2>&1 && break; sleep 0.1; done
for archive in /preload/*.tar; do ctr --namespace k8s.io images import --no-unpack "$archive"; done
ctr --namespace k8s.io images ls -q
kill %1
wait
"""
ENTER = 'mount --bind /proc "$0/proc"; exec chroot "$0" /bin/bash -c "$1"'
TEMPORARY_CONTAINERD = 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'


def kubeadm_images() -> dict[str, str]:
    """Program -> image name, of the images that kubeadm wants for the pinned Kubernetes."""
    names = output_of(
        gobuild.build("kubeadm"), "config", "images", "list", "--kubernetes-version", pinned("kubernetes")
    ).split()
    return {name.rpartition("/")[2].partition(":")[0]: name for name in names}


def write_workload(archive: Path) -> None:
    """Writes the image that the tests' pods run."""
    path = "/usr/local/bin/workload"
    write_image(archive, WORKLOAD_IMAGE, [path], {path: gobuild.build("workload")})


def preload(tree: Path, step: Step) -> None:
    """Imports all images into the containerd store of the file tree of a node."""
    folder = tree / "preload"
    folder.mkdir()
    try:
        write_archives(folder, tree, step)
        (folder / "containerd.toml").write_text(TEMPORARY_CONTAINERD)
        run_logged(
            [*CONTAINED, "/bin/sh", "-ec", ENTER, tree, IMPORT],
            "preload-images",
            step,
        )
    finally:
        shutil.rmtree(folder)


def write_archives(folder: Path, tree: Path, step: Step) -> None:
    """Writes one archive for each image into `folder`."""
    names = kubeadm_images()
    for program in STATIC_IMAGES:
        path = f"/usr/local/bin/{program}"
        write_image(folder / f"{program}.tar", names[program], [path], {path: gobuild.build(program)})
        step.tick()
    proxy = {"/usr/local/bin/kube-proxy": gobuild.build("kube-proxy")} | with_libraries(tree, PROXY_TOOLS)
    write_image(folder / "kube-proxy.tar", names["kube-proxy"], ["/usr/local/bin/kube-proxy"], proxy)
    pause = {"/usr/local/bin/pause": gobuild.build("workload")}
    write_image(folder / "pause.tar", names["pause"], ["/usr/local/bin/pause", "pause"], pause)
    write_workload(folder / "workload.tar")


def with_libraries(tree: Path, programs: tuple[str, ...]) -> dict[str, Path]:
    """Path in the tree -> file, for dynamically linked programs, their loader and their libraries."""
    told = output_of("chroot", tree, "ldd", *programs)
    libraries = {word for word in told.split() if word.startswith("/") and not word.endswith(":")}
    return {path: resolve(tree, path) for path in {*programs, *libraries}}


def resolve(tree: Path, path: str) -> Path:
    """The regular file that a path means inside the tree, where links may be absolute."""
    return tree / output_of("chroot", tree, "readlink", "-f", path).strip().lstrip("/")
