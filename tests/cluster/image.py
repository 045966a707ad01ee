# SPDX-License-Identifier: Apache-2.0
"""The node image: the one asked for, else kind's stock image, else one built here.

A local image's tag is the hash of everything that goes into it: if it exists, it is current.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from .commands import run_logged
from .engine import Engine
from .errors import ClusterError
from .gobuild import inputs_hash, module_hash
from .paths import SOURCES
from .progress import Step, say
from .rootfs import NODE, build, suite
from .versions import STOCK_NODE_IMAGE

LOCAL_NAME = "localhost/podnet-node"
MODULES = ("go/kubernetes", "go/etcd", "go/cni", "workload")
RECIPE = ("archive.py", "preload.py", "rootfs.py")
PROBE_SECONDS = 20
PULL_SECONDS = 900


@dataclass(frozen=True)
class NodeImage:
    """`local`: built here, so with Python, the workload image, and nft for kube-proxy inside."""

    name: str
    local: bool


def local_name() -> str:
    """The name that the local image has or would have, by the hash of its inputs."""
    recipe = [(SOURCES / name).read_text() for name in RECIPE]
    return f"{LOCAL_NAME}:{inputs_hash(NODE, suite(), *map(module_hash, MODULES), *recipe)}"


def node_image(engine: Engine) -> NodeImage:
    """The image to use, pulled or built now if need be."""
    chosen = os.environ.get("PODNET_NODE_IMAGE")
    if chosen:
        return NodeImage(chosen, local=chosen.startswith(f"{LOCAL_NAME}:"))
    if present(engine, STOCK_NODE_IMAGE):
        return NodeImage(STOCK_NODE_IMAGE, local=False)
    name = local_name()
    if not present(engine, name):
        if pulled(engine, STOCK_NODE_IMAGE):
            return NodeImage(STOCK_NODE_IMAGE, local=False)
        say(f"{STOCK_NODE_IMAGE.partition('@')[0]} cannot be pulled: the node image is built here")
        build(engine, name)
    return NodeImage(name, local=True)


def present(engine: Engine, name: str) -> bool:
    """Whether the engine has the image."""
    return engine.run("image", "inspect", "--format", "{{.Id}}", name).returncode == 0


def pulled(engine: Engine, name: str) -> bool:
    """Tries to pull an image. A short probe comes first: without a registry a pull may hang for minutes."""
    try:
        if engine.run("manifest", "inspect", name, timeout=PROBE_SECONDS).returncode:
            return False
        with Step(f"pulling {name.partition('@')[0]}", 60) as step:
            run_logged(
                ["timeout", str(PULL_SECONDS), engine.name, "pull", name],
                "node-pull",
                step,
                env=engine.environment(),
            )
        return True
    except ClusterError:
        return False
