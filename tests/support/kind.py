# SPDX-License-Identifier: Apache-2.0
"""The kind cluster as the user stories see it: kubectl, the nodes, and playbooks out of an installed collection."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cluster import binaries, health, kind, paths
from cluster.engine import engine
from cluster.inventory import inventory

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
T = TypeVar("T")


class Story:
    """A cluster fresh from `kind create`, and the collection installed from its tarball into `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.collections = folder / "collections"
        self.inventory = folder / "inventory.yml"

    def begin(self) -> None:
        """Make the cluster anew unless nobody has used it yet, and install the collection."""
        if self.is_used():
            kind.down()
        self.join()

    def join(self) -> None:
        """See that there is a cluster, used or not, and install the collection."""
        kind.up()
        self.install_collection()
        self.inventory.write_text(inventory(engine().name, health.node_containers(engine())))

    def is_used(self) -> bool:
        """Whether there is a cluster that somebody has set up."""
        if health.state(health.observe(engine())) is health.State.ABSENT:
            return False
        try:
            return bool(self.get("crds"))
        except subprocess.CalledProcessError:
            return True

    def install_collection(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._galaxy("build", "--output-path", str(self.folder), str(ROOT))
        [archive] = self.folder.glob("podnet-ipam-*.tar.gz")
        # By force, since the checkout counts as installed.
        self._galaxy("install", "--force", "--no-deps", "--collections-path", str(self.collections), str(archive))

    def _galaxy(self, *arguments: str) -> None:
        command = [BIN / "ansible-galaxy", "collection", *arguments]
        subprocess.run(command, env=self.environment(), check=True, stdout=subprocess.DEVNULL)

    def environment(self, **more: str) -> dict[str, str]:
        return {
            **engine().environment(),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "K8S_AUTH_KUBECONFIG": str(paths.kubeconfig()),
            "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            **more,
        }

    def play(self, playbook: Path, *arguments: str) -> None:
        """Run a playbook and show what it does. CalledProcessError when it fails."""
        command = [BIN / "ansible-playbook", "--inventory", self.inventory, playbook, *arguments]
        subprocess.run(command, env=self.environment(), check=True, stdin=subprocess.DEVNULL)

    def start(self, playbook: Path, *arguments: str) -> subprocess.Popen[str]:
        """Begin to run a playbook. Its output, errors included, is to be read with `communicate`."""
        command = [BIN / "ansible-playbook", "--inventory", self.inventory, playbook, *arguments]
        return subprocess.Popen(
            command,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def have_site(self, site: Path) -> None:
        """Bring about what a playbook declares. The plugin that it begins with may be there from another story."""
        installed = all("ipam.podnet.io/cni" in node["metadata"]["annotations"] for node in self.get("nodes"))
        self.play(site, *(("--skip-tags", "node") if installed else ()))

    def play_quietly(self, playbook: Path, *arguments: str) -> dict:
        """Run a playbook. What happened: `tasks` that changed something, as (host, task, result), and `stats`."""
        command = [BIN / "ansible-playbook", "--inventory", self.inventory, playbook, *arguments]
        print(f"... ansible-playbook {' '.join((playbook.name, *arguments))} (about half a minute)", flush=True)
        environment = self.environment(ANSIBLE_STDOUT_CALLBACK="ansible.posix.json")
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise AssertionError(f"ansible-playbook failed:\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}")
        report = json.loads(done.stdout[done.stdout.index("{") :])
        changed = [
            (host, task["task"]["name"], result)
            for play in report["plays"]
            for task in play["tasks"]
            for host, result in task["hosts"].items()
            if result.get("changed")
        ]
        return {"tasks": changed, "stats": report["stats"]}

    def kubectl(self, *arguments: str) -> str:
        """CalledProcessError, with what kubectl said in `stderr`, when it fails."""
        command = [binaries.find("kubectl"), "--kubeconfig", paths.kubeconfig(), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def get(self, *arguments: str) -> list[dict]:
        return json.loads(self.kubectl("get", *arguments, "--output", "json"))["items"]

    def node_log(self, node: str) -> str:
        """The agent's log on a node."""
        return engine().output("exec", node, "journalctl", "--unit", "podnet-ipam", "--no-pager", "--output", "cat")


def wait_for(what: str, condition: Callable[[], T], seconds: float = 120) -> T:
    """Ask until the answer is true, and return it; AssertionError with the last answer when it does not become so."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:.0f} s still not: {what}")
        time.sleep(0.5)
    return answer
