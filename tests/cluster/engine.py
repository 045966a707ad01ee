# SPDX-License-Identifier: Apache-2.0
"""The container engine under kind: Docker where its engine answers, else Podman."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import ClusterError
from .paths import cache

ANSWER_SECONDS = 15.0

# `default_ulimits`: Podman otherwise raises limits, which a machine may forbid. `runc`: crun refuses the
# hybrid cgroup layout. `k8s-file`: kind reads the nodes' logs, and there may be no journal.
CONTAINERS_CONF = """\
[containers]
default_ulimits = []
log_driver = "k8s-file"

[engine]
runtime = "runc"
"""


@dataclass(frozen=True)
class Engine:
    """`name`: `docker` or `podman`. `env`: what its client, kind and Ansible need in the environment."""

    name: str
    env: Mapping[str, str]

    def environment(self) -> dict[str, str]:
        """The whole environment for a child process."""
        return {**os.environ, **self.env}

    def run(self, *arguments: str | Path, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Runs the engine's client, whatever its return code. ClusterError after `timeout` s."""
        try:
            return subprocess.run(
                [self.name, *arguments],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            command = f"{self.name} {arguments[0]}"
            raise ClusterError(f"`{command}` gave no answer within {timeout:.0f} s") from None

    def output(self, *arguments: str | Path, timeout: float = 60.0) -> str:
        """The output of the engine's client. Raises ClusterError with its words when it fails."""
        done = self.run(*arguments, timeout=timeout)
        if done.returncode:
            raise ClusterError(f"`{self.name} {' '.join(map(str, arguments))}`: {done.stderr.strip()}")
        return done.stdout


@functools.cache
def engine() -> Engine:
    """The engine to use; `KIND_EXPERIMENTAL_PROVIDER`, kind's own variable, decides if it is set."""
    wanted = os.environ.get("KIND_EXPERIMENTAL_PROVIDER") or found()
    if wanted == "docker":
        return Engine("docker", {})
    if wanted == "podman":
        conf = cache() / "containers.conf"
        if not conf.exists() or conf.read_text() != CONTAINERS_CONF:
            conf.write_text(CONTAINERS_CONF)
        return Engine("podman", {"KIND_EXPERIMENTAL_PROVIDER": "podman", "CONTAINERS_CONF": str(conf)})
    raise ClusterError(f"KIND_EXPERIMENTAL_PROVIDER is {wanted!r}; docker and podman are supported")


def found() -> str:
    """`docker` if its engine answers (the client alone is not enough), else `podman`, else ClusterError."""
    if shutil.which("docker") and docker_answers():
        return "docker"
    if shutil.which("podman"):
        return "podman"
    raise ClusterError("neither a Docker engine (`docker info`) nor `podman` is there; install one of them")


def docker_answers() -> bool:
    """Whether `docker info` reaches an engine."""
    try:
        done = subprocess.run(
            ["docker", "info", "--format", "{{.ServerVersion}}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0 and bool(done.stdout.strip())
