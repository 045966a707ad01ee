# SPDX-License-Identifier: Apache-2.0
"""The Ansible inventory of the kind cluster's nodes."""

from __future__ import annotations

from collections.abc import Iterable

CONNECTIONS = {"docker": "community.docker.docker", "podman": "containers.podman.podman"}


def inventory(engine: str, nodes: Iterable[str]) -> str:
    """A YAML inventory for an engine's name and the names of node containers.

    Group `k8s_nodes` has the children `control_plane` and `workers`. Podman needs the environment that the
    command `env` prints.
    """
    nodes = sorted(nodes)
    control_plane = [name for name in nodes if "control-plane" in name]
    workers = [name for name in nodes if name not in control_plane]
    return "\n".join(
        [
            "k8s_nodes:",
            "  vars:",
            f"    ansible_connection: {CONNECTIONS[engine]}",
            "    ansible_python_interpreter: /usr/bin/python3",
            # Commands run as root in the containers, which have no sudo.
            "    ansible_become: false",
            "  children:",
            *group("control_plane", control_plane),
            *group("workers", workers),
            "",
        ]
    )


def group(name: str, hosts: list[str]) -> list[str]:
    """The lines of one child group."""
    return [f"    {name}:", "      hosts:", *(f"        {host}: {{}}" for host in hosts)]
