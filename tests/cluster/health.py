# SPDX-License-Identifier: Apache-2.0
"""What is there of the kind cluster, and whether it is usable, absent or half-dead."""

from __future__ import annotations

import enum
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field

from . import binaries, record
from .engine import Engine
from .paths import kubeconfig

CLUSTER = "podnet"
NODES = (f"{CLUSTER}-control-plane", f"{CLUSTER}-worker", f"{CLUSTER}-worker2")
CLUSTER_LABEL = "io.x-k8s.kind.cluster"


class State(enum.Enum):
    """The value is the exit code of `status`."""

    USABLE = 0
    ABSENT = 3
    HALF_DEAD = 4


@dataclass(frozen=True)
class Observation:
    """What was seen of a cluster."""

    containers: Mapping[str, str] = field(default_factory=dict)
    """Node container -> the engine's word for its state, such as `running` or `exited`."""
    image: str | None = None
    """The node image of the last creation that was finished."""
    api: str = ""
    """Why the API server cannot be used; empty if it answers."""
    nodes: Mapping[str, bool] = field(default_factory=dict)
    """Registered node -> whether it is Ready (without a CNI configuration it is not)."""


def complaints(seen: Observation, wanted_image: str | None = None) -> list[str]:
    """What keeps a cluster from being usable; empty for a usable one. `wanted_image`: None accepts any."""
    if not seen.containers:
        return ["there are no node containers"]
    found = [f"node container {name} is missing" for name in NODES if name not in seen.containers]
    stopped = {name: word for name, word in seen.containers.items() if word != "running"}
    found += [f"node container {name} is {word}" for name, word in stopped.items()]
    if seen.image is None:
        found.append("its creation was never finished")
    elif wanted_image is not None and seen.image != wanted_image:
        found.append(f"its node image is {seen.image}, wanted is {wanted_image}")
    if seen.api:
        found.append(f"its API server cannot be used: {seen.api}")
    elif not found:
        found += [f"node {name} is not registered" for name in NODES if name not in seen.nodes]
    return found


def state(seen: Observation, wanted_image: str | None = None) -> State:
    """The verdict on a cluster."""
    if not seen.containers:
        return State.ABSENT
    return State.HALF_DEAD if complaints(seen, wanted_image) else State.USABLE


def observe(engine: Engine) -> Observation:
    """Looks at the containers and, if there are any, at the API server."""
    containers = node_containers(engine)
    if not containers:
        return Observation()
    api, nodes = ask_api_server()
    return Observation(containers, record.finished_image(), api, nodes)


def node_containers(engine: Engine) -> dict[str, str]:
    """Node container -> state, of all containers that kind made for the cluster."""
    names = engine.output(
        "ps", "--all", "--filter", f"label={CLUSTER_LABEL}={CLUSTER}", "--format", "{{.Names}}"
    ).split()
    if not names:
        return {}
    # `ps` words the state differently in each engine. Docker puts a slash before a container's name.
    wanted = "{{.Name}} {{.State.Status}}"
    told = engine.output("inspect", "--type", "container", "--format", wanted, *sorted(names))
    return dict(line.removeprefix("/").split() for line in told.splitlines())


def ask_api_server() -> tuple[str, dict[str, bool]]:
    """Why the API server cannot be used (or an empty text), and its nodes with their readiness."""
    if not kubeconfig().exists():
        return "there is no kubeconfig", {}
    try:
        done = subprocess.run(
            [
                binaries.find("kubectl"),
                f"--kubeconfig={kubeconfig()}",
                "--request-timeout=5s",
                "get",
                "nodes",
                "--output=json",
            ],
            capture_output=True,
            text=True,
            timeout=15,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "no answer within 15 s", {}
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["unknown reason"])[-1], {}
    return "", {item["metadata"]["name"]: ready(item) for item in json.loads(done.stdout)["items"]}


def ready(node: Mapping) -> bool:
    """The Ready condition of a Node object."""
    conditions = node["status"].get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
