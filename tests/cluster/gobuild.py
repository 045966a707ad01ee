# SPDX-License-Identifier: Apache-2.0
"""Static Go binaries from pinned modules, cached by the hash of everything that makes them what they are."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from .commands import output_of, run_logged
from .errors import ClusterError
from .paths import SOURCES, cache_folder
from .progress import Step
from .versions import pinned


@dataclass(frozen=True)
class Program:
    """A main package of one of the modules in `go/` (or of `workload/`)."""

    name: str
    module: str
    package: str
    first_time: float
    """Seconds that the first build takes on 2 cores, downloads included."""


def _kubernetes(name: str, first_time: float) -> Program:
    return Program(name, "go/kubernetes", f"k8s.io/kubernetes/cmd/{name}", first_time)


def _cni(path: str) -> Program:
    return Program(path.rpartition("/")[2], "go/cni", f"github.com/containernetworking/{path}", 10)


CNI_PLUGINS = {
    program.name: program
    for program in (
        _cni("plugins/plugins/main/ptp"),
        _cni("plugins/plugins/main/bridge"),
        _cni("plugins/plugins/main/macvlan"),
        _cni("plugins/plugins/main/ipvlan"),
        _cni("plugins/plugins/main/loopback"),
        _cni("plugins/plugins/ipam/host-local"),
        _cni("plugins/plugins/meta/portmap"),
    )
}

PROGRAMS = CNI_PLUGINS | {
    program.name: program
    for program in (
        Program("etcd", "go/etcd", "go.etcd.io/etcd/server/v3", 60),
        _kubernetes("kube-apiserver", 270),
        _kubernetes("kubectl", 20),
        _kubernetes("kubeadm", 20),
        _kubernetes("kubelet", 60),
        _kubernetes("kube-controller-manager", 50),
        _kubernetes("kube-scheduler", 10),
        _kubernetes("kube-proxy", 10),
        Program("kind", "go/kind", "sigs.k8s.io/kind", 20),
        _cni("cni/cnitool"),
        Program("workload", "workload", ".", 10),
    )
}


# What tests compare with; nothing of it is part of a cluster.
PEERS = {
    "calicoctl": Program("calicoctl", "go/calico", "github.com/projectcalico/calico/calicoctl/calicoctl", 100),
    # Both of Calico's CNI plugins; it is the IPAM plugin when it is called `calico-ipam`.
    "calico-ipam": Program("calico-ipam", "go/calico", "github.com/projectcalico/calico/cni-plugin/cmd/calico", 60),
}


def linker_flags() -> str:
    """Strips the binaries and gives Kubernetes its version, which a module build leaves at v0.0.0."""
    version = pinned("kubernetes")
    major, minor, _patch = version.removeprefix("v").split(".")
    variables = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return " ".join(["-s -w", *(f"-X k8s.io/component-base/version.{k}={v}" for k, v in variables.items())])


@functools.cache
def go_release() -> str:
    """The Go release and target, such as `go1.26.8 linux amd64`. Raises ClusterError without Go."""
    if not shutil.which("go"):
        raise ClusterError("`go` is not on PATH: the cluster's programs are built with Go 1.26 or newer")
    return " ".join(output_of("go", "env", "GOVERSION", "GOOS", "GOARCH").split())


def inputs_hash(sources: Path, *settings: str) -> str:
    """A hash of the files of a module's folder (names and contents) and of the settings; 16 hex digits."""
    digest = hashlib.sha256()
    for path in sorted(sources.iterdir()):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    for setting in settings:
        digest.update(f"\0{setting}".encode())
    return digest.hexdigest()[:16]


def text_hash(text: str) -> str:
    """A hash of a text; 16 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def module_hash(module: str) -> str:
    """The hash that the binaries of a module are cached under."""
    return inputs_hash(SOURCES / module, go_release(), linker_flags())


def built_path(program: Program) -> Path:
    """Where the program is or will be in the cache."""
    return cache_folder("bin") / module_hash(program.module) / program.name


def build(name: str) -> Path:
    """The path of a program of `PROGRAMS` or `PEERS`, built now unless it is in the cache."""
    program = (PROGRAMS | PEERS)[name]
    path = built_path(program)
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{name}.{os.getpid()}")
    with Step(f"building {name}", program.first_time) as step:
        run_logged(
            ["go", "build", "-trimpath", "-ldflags", linker_flags(), "-o", fresh, program.package],
            f"build-{name}",
            step,
            cwd=SOURCES / program.module,
            env=os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"},
        )
    fresh.replace(path)
    return path
