# SPDX-License-Identifier: Apache-2.0
"""The commands."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from pathlib import Path

from . import binaries, cleanup, gobuild, health, kind, paths
from .apiserver import ControlPlane
from .engine import engine
from .errors import ClusterError
from .inventory import inventory
from .progress import say


def main() -> int:
    """Runs one command; returns the exit code."""
    options = parser().parse_args()
    # An ordinary end by signal, so that `finally` and `with` do their work.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return options.command(options) or 0
    except ClusterError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="tests/cluster", description="The project's test clusters.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command, text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text)
        one.set_defaults(command=command)
        return one

    add("up", lambda _: kind.up(), "make sure that a usable cluster is there")
    add("down", lambda _: kind.down(), "delete the cluster")
    add("clean", lambda _: cleanup.clean(), "delete the cluster and everything left running or mounted")
    add("status", status, "tell what is there; exit code 0 usable, 3 absent, 4 half-dead")
    add("kubeconfig", show_kubeconfig, "print the path of the cluster's kubeconfig")
    add("env", show_environment, "print what Ansible needs in its environment to reach the nodes")
    one = add("inventory", show_inventory, "print the Ansible inventory of the nodes")
    one.add_argument("--output", type=Path, help="write it to this file instead")
    one = add("load", lambda options: kind.load(options.archive), "load an image archive into the nodes")
    one.add_argument("archive", type=Path)
    one = add("binaries", show_binaries, "find or build programs and print their paths")
    one.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        default=list(binaries.ENVTEST),
        help=f"of {', '.join([*gobuild.PROGRAMS, *gobuild.PEERS])} (default: {' '.join(binaries.ENVTEST)})",
    )
    add("apiserver", serve, "run a control plane without nodes until interrupted")
    return top


def status(_options: argparse.Namespace) -> int:
    """One line for each node and thing."""
    chosen = engine()
    seen = health.observe(chosen)
    verdict = health.state(seen)
    print(f"engine                {chosen.name}")
    print(f"cluster               {verdict.name.lower().replace('_', '-')}")
    if verdict is health.State.ABSENT:
        return verdict.value
    print(f"node image            {seen.image or 'unknown'}")
    print(f"API server            {seen.api or 'answers'}")
    for name in sorted({*health.NODES, *seen.containers}):
        readiness = {True: "Ready", False: "NotReady", None: "not registered"}[seen.nodes.get(name)]
        print(f"{name:<21} {seen.containers.get(name, 'absent')}, {readiness}")
    for complaint in health.complaints(seen):
        print(f"complaint             {complaint}")
    return verdict.value


def show_kubeconfig(_options: argparse.Namespace) -> None:
    """The path of the kubeconfig."""
    if not paths.kubeconfig().exists():
        raise ClusterError("there is no cluster; `python tests/cluster up` makes one")
    print(paths.kubeconfig())


def show_environment(_options: argparse.Namespace) -> None:
    """The engine's variables as shell exports."""
    for name, value in engine().env.items():
        print(f"export {name}={shlex.quote(value)}")


def show_inventory(options: argparse.Namespace) -> None:
    """The inventory, to stdout or to a file."""
    chosen = engine()
    nodes = health.node_containers(chosen)
    if not nodes:
        raise ClusterError("there is no cluster; `python tests/cluster up` makes one")
    text = inventory(chosen.name, nodes)
    if options.output:
        options.output.write_text(text)
    else:
        print(text, end="")


def show_binaries(options: argparse.Namespace) -> None:
    """One line for each program: name, path."""
    for name in options.names:
        known = {**gobuild.PROGRAMS, **gobuild.PEERS}
        if name not in known:
            raise ClusterError(f"no program {name!r}; there are {', '.join(known)}")
        print(f"{name} {binaries.find(name)}", flush=True)


def serve(_options: argparse.Namespace) -> None:
    """A control plane in the foreground."""
    with ControlPlane() as plane:
        print(f"export KUBECONFIG={plane.kubeconfig} K8S_AUTH_KUBECONFIG={plane.kubeconfig}", flush=True)
        say(f"kube-apiserver answers at {plane.url}; Ctrl-C ends it")
        signal.pause()
