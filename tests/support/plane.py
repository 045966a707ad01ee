# SPDX-License-Identifier: Apache-2.0
"""A real API server with the collection's resource definitions, and nodes that run the agent against it."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import resource
import signal
import subprocess
import sysconfig
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from cluster.apiserver import ControlPlane
from cluster.gobuild import build
from cluster.lifetime import BOUND
from podnet_ipam._kube.calico import V1, CalicoApi
from podnet_ipam._kube.errors import NotFound
from podnet_ipam.agent.api import Client, read_kubeconfig

ROOT = Path(__file__).resolve().parents[2]
DEFINITIONS = ROOT / "roles/cni_ipam/files/crds"
SHIM = Path(sysconfig.get_path("platlib")) / "podnet_ipam/agent/bin/podnet-ipam"
AGENT = Path(sysconfig.get_path("scripts")) / "podnet-ipam-agent"
CTL = Path(sysconfig.get_path("scripts")) / "podnet-ipam-ctl"
READY_SECONDS = 60.0

KINDS = ("IPPool", "IPAMBlock", "BlockAffinity", "IPAMHandle", "IPReservation")


def json_kubeconfig(plane: ControlPlane, path: Path) -> Path:
    """The control plane's kubeconfig in JSON, the form that the agent reads."""
    path.write_text(json.dumps(yaml.safe_load(plane.kubeconfig.read_text())))
    return path


@asynccontextmanager
async def client_of(plane: ControlPlane, folder: Path) -> AsyncIterator[Client]:
    client = Client(read_kubeconfig(json_kubeconfig(plane, folder / "kubeconfig.json")))
    try:
        yield client
    finally:
        await client.close()


async def install_definitions(client: Client) -> None:
    """Create the resource definitions and wait until they are served."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for file in sorted(DEFINITIONS.glob("*.yaml")):
        await client.create(path, yaml.safe_load(file.read_text()))
    async with asyncio.timeout(READY_SECONDS):
        for kind in (*KINDS, V1.config_kind):
            while not await _served(client, V1, kind):
                await asyncio.sleep(0.05)


async def _served(client: Client, calico: CalicoApi, kind: str) -> bool:
    try:
        await client.list(calico.path(kind))
    except NotFound:
        return False
    return True


async def remove_everything(client: Client, calico: CalicoApi = V1) -> None:
    """All pools, blocks, claims, handles, reservations and the configuration."""
    for kind in (*KINDS, calico.config_kind):
        for obj in (await client.list(calico.path(kind)))[0]:
            await client.delete(calico.path(kind, obj["metadata"]["name"]), obj["metadata"]["uid"])


async def create_pool(client: Client, name: str, cidr: str, calico: CalicoApi = V1, **spec) -> None:
    await client.create(calico.path("IPPool"), calico.new("IPPool", name, {"cidr": cidr, **spec}))


async def stored(client, kind):
    objects, _version = await client.list(V1.path(kind))
    return {obj["metadata"]["name"]: obj for obj in objects}


async def allocated(client):
    """{address: handle} of everything that is allocated in any block."""
    found = {}
    for block in (await stored(client, "IPAMBlock")).values():
        base = ipaddress.ip_network(block["spec"]["cidr"]).network_address
        for ordinal, index in enumerate(block["spec"]["allocations"]):
            if index is not None:
                found[str(base + ordinal)] = block["spec"]["attributes"][index]["handle_id"]
    return found


async def settled(client, expected):
    """Wait until exactly the addresses `expected` are allocated, and each handle's object says just where it has them.

    There is no handle without an address.
    """
    try:
        async with asyncio.timeout(READY_SECONDS):
            while True:
                held = await allocated(client)
                objects = (await stored(client, "IPAMHandle")).values()
                handles = {obj["spec"]["handleID"]: obj["spec"]["block"] for obj in objects}
                if held.keys() == set(expected) and handles == await _holdings(client):
                    return
                await asyncio.sleep(0.02)
    except TimeoutError:
        message = f"expected {sorted(expected)}, but {held} are allocated and the handles are {handles}"
        raise AssertionError(message) from None


async def _holdings(client):
    """{handle: {block: how many addresses of it}}, as the blocks have it."""
    found = defaultdict(Counter)
    for block in (await stored(client, "IPAMBlock")).values():
        for index in block["spec"]["allocations"]:
            if index is not None:
                found[block["spec"]["attributes"][index]["handle_id"]][block["spec"]["cidr"]] += 1
    return found


@dataclass(frozen=True)
class CniReply:
    """What the executable printed, and its exit status."""

    status: int
    body: dict

    @property
    def address(self) -> str:
        """The first address without its prefix length."""
        return self.body["ips"][0]["address"].partition("/")[0]


@dataclass(frozen=True)
class CtlReply:
    """What podnet-ipam-ctl printed, and its exit status."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> object:
        return json.loads(self.stdout)


class AgentNode:
    """A node's agent as a process, and its CNI executable."""

    def __init__(
        self,
        name: str,
        folder: Path,
        kubeconfig: Path | None = None,
        *,
        pools_file: Path | None = None,
        grace: float = 60.0,
        cooldown: float = 0,
        keep_blocks: float = 900.0,
        spare_blocks: int = 0,
        routes: bool = False,
        metrics: str = "",
        token_lifetime: float = 3600.0,
        shim: Path = SHIM,
        agent: Path = AGENT,
    ):
        self.name = name
        self._shim = shim
        self._agent = agent
        self.folder = folder / name
        self.folder.mkdir(exist_ok=True)
        self.socket = self.folder / "agent.sock"
        self.log = self.folder / "agent.log"
        self.config = self.folder / "agent.toml"
        self.store = self.folder / "store.sqlite"
        self.spool = self.folder / "spool"
        self.results = self.folder / "results"
        self.datastore = self.folder / "datastore.sqlite"
        self.control = self.folder / "control.sock"
        # One of the first two is given.
        paths = {"kubeconfig": kubeconfig, "pools_file": pools_file, "datastore": self.datastore}
        paths |= {"socket": self.socket, "store": self.store, "spool": self.spool, "results": self.results}
        paths |= {"control": self.control}
        lines = [
            f'node = "{name}"',
            'network = "podnet"',
            *(f'{key} = "{path}"' for key, path in paths.items() if path),
            f"grace = {grace}",
            f"cooldown = {cooldown}",
            f"keep_blocks = {keep_blocks}",
            f"spare_blocks = {spare_blocks}",
            f"routes = {str(routes).lower()}",
            f'metrics = "{metrics}"',
            f"token_lifetime = {token_lifetime}",
        ]
        self.config.write_text("\n".join(lines))
        self._process: subprocess.Popen | None = None

    def launch(self) -> None:
        """Start the process; it may not know anything yet."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([*BOUND, self._agent, "--config", self.config], stdout=log, stderr=log)

    async def start(self) -> AgentNode:
        self.launch()
        async with asyncio.timeout(READY_SECONDS):
            while "ready: node" not in self.log.read_text():
                assert self._process.poll() is None, self.log.read_text()
                await asyncio.sleep(0.002)
        return self

    def tell(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def limit(self, limit: int, value: int) -> None:
        """Change one of the process's resource limits (resource.RLIMIT_...), the soft one."""
        _soft, hard = resource.prlimit(self._process.pid, limit)
        resource.prlimit(self._process.pid, limit, (value, hard))

    @property
    def is_running(self) -> bool:
        """Whether it is still the process that was started."""
        return self._process.poll() is None

    @property
    def resident_bytes(self) -> int:
        """How much of the process is in memory."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    @property
    def cpu_seconds(self) -> float:
        """For how long the process has kept a core busy."""
        ticks = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    async def logged(self, text: str) -> str:
        """The log, once it contains a text: what became of a request is written after its answer."""
        async with asyncio.timeout(READY_SECONDS):
            while text not in (log := self.log.read_text()):
                await asyncio.sleep(0.02)
        return log

    async def worked_off(self) -> None:
        """Wait until no tombstone is left."""
        async with asyncio.timeout(15):
            while list(self.spool.iterdir()):
                await asyncio.sleep(0.1)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(READY_SECONDS)
            self._process = None
            self.log.rename(self.log.with_suffix(f".{len(list(self.folder.iterdir()))}"))

    async def call(
        self,
        command: str,
        container: str,
        *,
        namespace: str | None = "default",
        pod: str | None = None,
        annotations: dict[str, str] | None = None,
        version: str = "1.1.0",
        network: str = "podnet",
        ipam: dict | None = None,
        netns: str | None = None,
        interface: str = "eth0",
        arguments: str | None = None,
        **config,
    ) -> CniReply:
        """Run the executable as a runtime does, for a pod named after the container unless `pod` says otherwise."""
        own = f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={pod or container}"
        return await self.run(
            {
                "CNI_COMMAND": command,
                "CNI_CONTAINERID": container,
                "CNI_NETNS": netns or f"/run/netns/{container}",
                "CNI_IFNAME": interface,
                "CNI_PATH": "/opt/cni/bin",
                "CNI_ARGS": arguments or (own if namespace else ""),
            },
            {
                "cniVersion": version,
                "name": network,
                "type": "ptp",
                "ipam": {"type": "podnet-ipam", **(ipam or {})},
                "runtimeConfig": {"io.kubernetes.cri.pod-annotations": annotations or {}},
                **config,
            },
        )

    async def run(self, variables: dict[str, str], config: dict | bytes) -> CniReply:
        """Run the executable with exactly these variables and this standard input."""
        process = await asyncio.create_subprocess_exec(
            self._shim,
            env={
                "PODNET_IPAM_SOCKET": str(self.socket),
                "PODNET_IPAM_SPOOL": str(self.spool),
                "PATH": os.defpath,
                **variables,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return await _reply(process, config)

    async def ctl(self, *arguments: str) -> CtlReply:
        """Run podnet-ipam-ctl as an operator does."""
        process = await asyncio.create_subprocess_exec(
            CTL, "--socket", self.control, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        stdout, stderr = await process.communicate()
        return CtlReply(process.returncode, stdout.decode(), stderr.decode())

    async def add(self, container: str, **options) -> CniReply:
        return await self.call("ADD", container, **options)

    async def delete(self, container: str, **options) -> CniReply:
        return await self.call("DEL", container, **options)


class CalicoNode:
    """A node with Calico's own calico-ipam. The API server has to know a Node of this name."""

    def __init__(self, name: str, folder: Path, kubeconfig: Path):
        self.name = name
        self._kubeconfig = kubeconfig
        self.lock = folder / f"{name}.lock"
        self._program = build("calico-ipam")

    async def add(
        self, container: str, pools: Sequence[str] = (), ipam: dict | None = None, arguments: str = ""
    ) -> CniReply:
        return await self._call("ADD", container, {"ipv4_pools": list(pools), **(ipam or {})}, arguments)

    async def delete(self, container: str) -> CniReply:
        return await self._call("DEL", container, {})

    async def _call(self, command: str, container: str, ipam: dict, arguments: str = "") -> CniReply:
        variables = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{container}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/opt/cni/bin",
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={container};{arguments}".rstrip(";"),
            "PATH": os.defpath,
        }
        config = {
            "cniVersion": "1.0.0",
            "name": "podnet",
            "type": "calico",
            "nodename": self.name,
            "datastore_type": "kubernetes",
            "kubernetes": {"kubeconfig": str(self._kubeconfig)},
            "ipam": {"type": "calico-ipam", **ipam},
            "ipam_lock_file": str(self.lock),
            "log_level": "error",
        }
        process = await asyncio.create_subprocess_exec(
            self._program, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        return await _reply(process, config)


async def _reply(process: asyncio.subprocess.Process, config: dict | bytes) -> CniReply:
    stdin = config if isinstance(config, bytes) else json.dumps(config).encode()
    stdout, _stderr = await process.communicate(stdin)
    return CniReply(process.returncode, json.loads(stdout) if stdout else {})
