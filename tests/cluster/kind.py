# SPDX-License-Identifier: Apache-2.0
"""The kind cluster: one control plane, two workers in two racks, dual stack, and no CNI configuration."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from . import binaries, health, record, stock
from .commands import run_logged
from .engine import Engine, engine
from .errors import ClusterError
from .health import CLUSTER, CLUSTER_LABEL, NODES, Observation, State, node_containers
from .image import NodeImage, node_image
from .lifetime import exclusive, processes_with_argument
from .paths import cache_folder, kubeconfig
from .preload import write_workload
from .progress import Step, say

POD_CIDRS = "10.244.0.0/16,fd00:10:244::/56"
SERVICE_CIDRS = "10.96.0.0/16,fd00:10:96::/112"
ORPHAN_SECONDS = 60

# skipPhases replaces kind's own list, so kind's `preflight` is named again. CoreDNS would ask resolvers
# outside the machine, and no test needs it. From 1.35 on the kubelet refuses cgroup v1 unless told otherwise.
CONFIG = """\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking:
  disableDefaultCNI: true
  ipFamily: dual
  kubeProxyMode: {proxy_mode}
  podSubnet: {pod_cidrs}
  serviceSubnet: {service_cidrs}
nodes:
- role: control-plane
- role: worker
  labels: {{rack: "1"}}
- role: worker
  labels: {{rack: "2"}}
kubeadmConfigPatches:
- |
  kind: InitConfiguration
  skipPhases: [preflight, addon/coredns]
- |
  kind: KubeletConfiguration
  failCgroupV1: false
"""


def config(image: NodeImage) -> str:
    """kind's configuration. Only the local image is sure to have what kube-proxy's nftables mode needs."""
    return CONFIG.format(
        proxy_mode="nftables" if image.local else "iptables", pod_cidrs=POD_CIDRS, service_cidrs=SERVICE_CIDRS
    )


def up() -> None:
    """Makes sure that a usable cluster with the current node image is there."""
    with exclusive():
        chosen = engine()
        image = node_image(chosen)
        seen = health.observe(chosen)
        verdict = health.state(seen, image.name)
        if verdict is State.USABLE:
            say(f"cluster {CLUSTER} is up and is used again")
            return
        if verdict is State.HALF_DEAD:
            explain(seen, image)
        delete(chosen)
        create(chosen, image)


def explain(seen: Observation, image: NodeImage) -> None:
    """Says why a cluster is not used again."""
    say(f"cluster {CLUSTER} is there but cannot be used, so it is replaced:")
    for complaint in health.complaints(seen, image.name):
        say(f"  - {complaint}")


def create(chosen: Engine, image: NodeImage) -> None:
    """Creates the cluster. Without a CNI configuration its nodes stay NotReady, and nobody waits for it."""
    provide_modules_folder()
    program = binaries.find("kind")
    with Step(f"creating cluster {CLUSTER} with {chosen.name}", 60) as step:
        run_logged(
            [
                program,
                "create",
                "cluster",
                "--name",
                CLUSTER,
                "--image",
                image.name,
                "--kubeconfig",
                kubeconfig(),
                "--config",
                "-",
            ],
            "kind-create",
            step,
            env=chosen.environment(),
            stdin=config(image).encode(),
        )
    if not image.local:
        stock.complete(chosen, node_containers(chosen))
        with tempfile.TemporaryDirectory(dir=cache_folder("tmp")) as folder:
            archive = Path(folder) / "workload.tar"
            write_workload(archive)
            load(archive)
    record.finish(image.name)


def provide_modules_folder() -> None:
    """kind mounts /lib/modules of this machine, which need not exist where the kernel has no modules."""
    folder = Path("/lib/modules")
    if not folder.exists():
        say(f"making the empty folder {folder}, which kind mounts into the nodes")
        folder.mkdir()


def load(archive: Path) -> None:
    """Loads an image archive into all nodes."""
    if not archive.is_file():
        raise ClusterError(f"image archive {archive} is not a file; `docker save` or `podman save` makes one")
    chosen, program = engine(), binaries.find("kind")
    with Step(f"loading {archive.name} into the nodes") as step:
        run_logged(
            [program, "load", "image-archive", archive, "--name", CLUSTER],
            "kind-load",
            step,
            env=chosen.environment(),
        )


def down() -> None:
    """Deletes the cluster, if there is one."""
    with exclusive():
        delete(engine())


def delete(chosen: Engine) -> None:
    """Deletes node containers, their volumes and the kubeconfig, of a whole or of a half-made cluster."""
    record.forget()
    await_orphans()
    containers = node_containers(chosen)
    if containers:
        program = binaries.find("kind")
        with Step(f"deleting cluster {CLUSTER}") as step:
            # Nothing in them is worth the 10 s that an orderly end may take. Some may have ended already.
            chosen.run("kill", *containers)
            run_logged(
                [program, "delete", "cluster", "--name", CLUSTER, "--kubeconfig", kubeconfig()],
                "kind-delete",
                step,
                env=chosen.environment(),
            )
    remove_volumes(chosen)
    kubeconfig().unlink(missing_ok=True)


def await_orphans() -> None:
    """Waits for engine clients that a killed run left: the containers they make are not listed yet."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    while orphans := processes_with_argument(f"{CLUSTER_LABEL}={CLUSTER}"):
        if time.monotonic() > deadline:
            raise ClusterError(f"a killed run's processes {orphans} are still making containers; end them")
        time.sleep(0.2)


def remove_volumes(chosen: Engine) -> None:
    """Removes volumes that kind made for a node that never came to be; their label is the node's name."""
    for node in NODES:
        volumes = chosen.output("volume", "ls", "--quiet", "--filter", f"label={node}").split()
        if volumes:
            chosen.output("volume", "rm", "--force", *volumes)
