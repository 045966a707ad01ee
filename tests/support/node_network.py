# SPDX-License-Identifier: Apache-2.0
"""The network side of a node: real main plugins, run by cnitool, that connect pods by the agent's addresses."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from cluster import binaries

from .netns import run
from .plane import SHIM, AgentNode

MAIN_PLUGINS = ("ptp", "bridge", "macvlan", "ipvlan")


class NodeNetwork:
    """The network side of a node: its namespace, and cnitool with the real plugins and the agent of `node` in it."""

    def __init__(self, node: AgentNode, netns: str):
        self.netns = netns
        self._node = node
        self._plugins = node.folder / "plugins"
        self._plugins.mkdir()
        self._configs = node.folder / "net.d"
        self._configs.mkdir()
        self._state = node.folder / "var-lib"
        self._state.mkdir()
        for name in MAIN_PLUGINS:
            (self._plugins / name).symlink_to(binaries.find(name))
        for name in ("podnet-ipam", "calico-ipam"):
            (self._plugins / name).symlink_to(SHIM)
        self._cnitool = binaries.find("cnitool")

    def configure(self, network: str, plugin: dict, version: str) -> None:
        """Write the configuration of a network with one plugin."""
        config = {"cniVersion": version, "name": network, "plugins": [plugin]}
        (self._configs / f"{network}.conflist").write_text(json.dumps(config))

    async def cni(self, command: str, network: str, netns: str, interface: str = "eth0") -> dict:
        """Run cnitool for the pod with a namespace. CommandFailedError with what the plugins said."""
        environment = {
            **os.environ,
            "NETCONFPATH": str(self._configs),
            "CNI_PATH": str(self._plugins),
            "CNI_IFNAME": interface,
            "PODNET_IPAM_SOCKET": str(self._node.socket),
            "PODNET_IPAM_SPOOL": str(self._node.spool),
        }
        # libcni keeps what it was answered in /var/lib/cni: here in a folder of the node's.
        own_state = 'mount --bind "$0" /var/lib && exec "$@"'
        printed = await asyncio.to_thread(
            run,
            *("ip", "netns", "exec", self.netns, "sh", "-c", own_state, self._state),
            *(self._cnitool, command, network, Path("/run/netns") / netns),
            env=environment,
        )
        return json.loads(printed) if printed.strip() else {}
