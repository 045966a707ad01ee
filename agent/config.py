# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The agent's configuration file, a small TOML table.

node        name of this node's Node object
kubeconfig  path of the kubeconfig, written as JSON
pools_file  in place of kubeconfig, where there is no cluster: path of the file that declares the pools (pools_file.py)
datastore   with pools_file: where blocks and claims are kept
socket      path of the Unix socket; only used when systemd does not hand one over
store       the node's own record of its attachments
spool       folder of the DELs that wait to be carried out (tombstones)
results     folder in which the runtime's library keeps the results of its ADDs
network     name of the pod network: what other plugins have served before is taken over as its attachments
cooldown    seconds for which a freed address is not given out again
grace       seconds for which a vanished pod keeps its address
keep_blocks seconds for which an empty block is kept, unless it is the only one with room in its pool
spare_blocks  blocks to claim ahead in each pool in use, for pods that start while the API server is away
control     path of the Unix socket on which podnet-ipam-ctl asks the agent about itself
metrics     loopback address and port of metrics and health, such as "127.0.0.1:9764"; empty for none
token_lifetime  seconds for which the tokens are good that the agent asks for, of those that it renews itself
routes      whether to keep routes to the other nodes' blocks, for main plugins that leave routing to others
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import tomllib

from .._core.endpoint import loopback_endpoint
from .collector import GRACE_SECONDS
from .ctl import CONTROL_SOCKET
from .identity import TOKEN_LIFETIME_SECONDS
from .idle_blocks import KEEP_BLOCKS_SECONDS

_SECONDS = (int, float), "seconds"
_NUMBERS = dict.fromkeys(("cooldown", "grace", "keep_blocks", "token_lifetime"), _SECONDS)
_NUMBERS["spare_blocks"] = (int,), "blocks"
_PATHS = {"kubeconfig", "pools_file", "datastore", "socket", "store", "spool", "results", "control"}


@dataclass(frozen=True)
class AgentConfig:
    node: str
    kubeconfig: Path | None = None
    pools_file: Path | None = None
    datastore: Path = Path("/var/lib/podnet-ipam/datastore.sqlite")
    socket: Path = Path("/run/podnet-ipam/agent.sock")
    store: Path = Path("/var/lib/podnet-ipam/store.sqlite")
    spool: Path = Path("/var/lib/podnet-ipam/spool")
    results: Path = Path("/var/lib/cni/results")
    network: str = ""
    control: Path = CONTROL_SOCKET
    metrics: str = ""
    routes: bool = False
    cooldown: float = 30.0
    grace: float = GRACE_SECONDS
    keep_blocks: float = KEEP_BLOCKS_SECONDS
    spare_blocks: int = 0
    token_lifetime: float = TOKEN_LIFETIME_SECONDS

    @classmethod
    def read(cls, path: Path) -> AgentConfig:
        """Read the file. ValueError names the file, the key and what would be right."""
        with path.open("rb") as file:
            try:
                values = tomllib.load(file)
            except tomllib.TOMLDecodeError as error:
                raise ValueError(f"{path}: not TOML: {error}") from error
        known = {field.name for field in fields(cls)}
        unknown = values.keys() - known
        if unknown:
            raise ValueError(f"{path}: unknown key {sorted(unknown)[0]!r}; known are {', '.join(sorted(known))}")
        if len(values.keys() & {"kubeconfig", "pools_file"}) != 1:
            raise ValueError(f"{path}: either kubeconfig or, where there is no cluster, pools_file must be given")
        for key in ("node", *(values.keys() & _PATHS)):
            if not isinstance(values.get(key), str) or not values[key]:
                raise ValueError(f"{path}: {key} must be a text that is not empty")
        if not isinstance(values.get("routes", False), bool):
            raise ValueError(f"{path}: routes must be true or false")
        for key, (kinds, what) in _NUMBERS.items():
            if type(values.get(key, 0)) not in kinds or values.get(key, 0) < 0:
                raise ValueError(f"{path}: {key} must be a number of {what}, not below 0")
        paths = {key: Path(values[key]) for key in values.keys() & _PATHS}
        config = cls(**{**values, **paths})
        try:
            config.metrics_address()
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        return config

    def metrics_address(self) -> tuple[str, int] | None:
        """Host and port of `metrics`. ValueError for anything but a loopback address: what is said there is for all."""
        if not self.metrics:
            return None
        try:
            return loopback_endpoint(self.metrics)
        except ValueError as error:
            raise ValueError(f"metrics is {error}") from None
