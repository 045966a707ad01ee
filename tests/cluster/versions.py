# SPDX-License-Identifier: Apache-2.0
"""The pinned versions. The go.mod files are their only source; this module reads them.

The stock node image is the one exception: an image has no go.mod. Its digest is from the notes of the
kind release that go/kind/go.mod names, and its minor version is Kubernetes' there; change them together.
"""

from __future__ import annotations

import re

from .errors import ClusterError
from .paths import SOURCES

STOCK_NODE_IMAGE = "kindest/node:v1.36.4@sha256:099e049362a1526b2db71494e1947aae99bd16290d7c895f2b7ea312e3cbfaed"

GO_MODULES = {
    "kubernetes": "k8s.io/kubernetes",
    "etcd": "go.etcd.io/etcd/server/v3",
    "cni": "github.com/containernetworking/plugins",
    "kind": "sigs.k8s.io/kind",
}


def required_version(go_mod: str, module: str) -> str:
    """The version that the text of a go.mod requires of `module`, such as `v1.36.3`."""
    found = re.search(rf"^(?:require)?\s+{re.escape(module)} (v\S+)", go_mod, re.MULTILINE)
    if not found:
        raise ClusterError(f"go.mod requires no version of {module}")
    return found[1]


def pinned(name: str) -> str:
    """The pinned version of one of `GO_MODULES`."""
    return required_version((SOURCES / "go" / name / "go.mod").read_text(), GO_MODULES[name])


def numbers(version: str) -> tuple[int, int, int]:
    """The three numbers of the first version in a program's output, such as `etcd Version: 3.6.8`."""
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", version)
    if not found:
        raise ClusterError(f"no version number in {version!r}")
    return int(found[1]), int(found[2]), int(found[3])


def same_minor_or_newer(found: str, wanted: str) -> bool:
    """Whether `found` is at least the minor release of `wanted`; patch levels do not count."""
    return numbers(found)[:2] >= numbers(wanted)[:2]
