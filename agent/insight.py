# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What the agent says about itself: for metrics, health and `podnet-ipam-ctl`. It changes nothing.

Answers are plain data (dicts, lists, texts, numbers) that become JSON as they are.
"""

from __future__ import annotations

import platform
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from importlib.metadata import version

from .._core.bitmap import COMPILED
from .._core.block import COOLING, FREE, RESERVED, USED
from .._core.explanation import addresses_asked_for, explain
from . import codec
from .api import Client
from .attachments import LOCAL_FIRST, WRITTEN_THROUGH
from .blocks import BlockKeeper
from .check import disagreements
from .cluster import Cluster
from .cni import CniServer, configured_families, configured_pools
from .config import AgentConfig
from .ipam import Ipam
from .local import LocalDatastore
from .loop import Busy
from .ranges import configured_ranges
from .spool import Spool
from .sqlite import StoreError
from .store import HELD, RELEASED, Store

STATES = {"used": USED, "reserved": RESERVED, "cooling": COOLING, "free": FREE}
# By pool and family: the node's blocks, the spare ones of them, their addresses in each state, those of them that other
# nodes hold, and those of other nodes' blocks that this node holds.
FIGURES = ("blocks", "spare", *STATES, "lent", "borrowed")
# What stands for the pool of addresses whose pool was removed.
NO_POOL = "-"


class CannotTellError(Exception):
    """The agent does not know what it was asked; the text says why."""


@dataclass(frozen=True)
class BlockUsage:
    """A block of this node. `states` has one letter per address, `lent` counts those that other nodes hold.

    A `spare` one has been claimed ahead; its one used address is the node's own.
    """

    cidr: str
    pool: str
    states: str
    lent: int
    spare: bool

    @property
    def family(self) -> int:
        return _family(self.cidr)

    def count(self, state: str) -> int:
        """How many addresses are in a state, a key of STATES."""
        return self.states.count(STATES[state])


@dataclass(frozen=True)
class _Working:
    """The agent's parts, once it knows the node's state."""

    ipam: Ipam
    cluster: Cluster
    server: CniServer


class Insight:
    """Looks at one agent. Until `ready` is called, everything but `status` raises CannotTellError."""

    def __init__(self, config: AgentConfig, client: Client | LocalDatastore, store: Store, spool: Spool, busy: Busy):
        self._config = config
        self._client = client
        self._store = store
        self._spool = spool
        self.busy = busy
        self._started = time.monotonic()
        self._working: _Working | None = None

    def ready(self, ipam: Ipam, cluster: Cluster, server: CniServer) -> None:
        self._working = _Working(ipam, cluster, server)

    @property
    def node(self) -> str:
        return self._config.node

    @property
    def seconds_away(self) -> float:
        """For how long the API server has been away."""
        return self._client.seconds_away

    @property
    def tombstones(self) -> int:
        """How many DELs wait to be carried out."""
        return len(self._spool.waiting)

    def why_unable(self) -> str | None:
        """Why no pod can get an address now, in the words of the verb STATUS; None when some can."""
        if self._working is not None:
            return self._working.ipam.why_unable()
        away = f"; the API server has not answered for {self.seconds_away:.0f} s" if self.seconds_away else ""
        return f"the agent has not learnt the cluster's state yet{away}"

    def status(self) -> dict:
        reason = self.why_unable()
        return {
            "node": self.node,
            "ready": reason is None,
            "reason": reason,
            "versions": {
                "podnet-ipam": version("podnet-ipam"),
                "python": platform.python_version(),
                "core": "compiled" if COMPILED else "interpreted",
                "json": codec.BY,
            },
            "up_seconds": round(time.monotonic() - self._started, 1),
            "api_server_away_seconds": round(self.seconds_away, 1),
            "longest_busy_ms": round(self.busy.longest * 1000, 1),
            "store": {"path": str(self._config.store), **self._rows()},
            "tombstones": self.tombstones,
            **(self._of_blocks() if self._working else {}),
        }

    def blocks(self) -> list[dict]:
        return [
            {
                "cidr": usage.cidr,
                "pool": usage.pool,
                **{state: usage.count(state) for state in STATES},
                "lent": usage.lent,
                "spare": usage.spare,
                "states": usage.states,
            }
            for usage in self.block_usages()
        ]

    def pools(self) -> list[dict]:
        """Every pool of the cluster and what this node has of it; addresses of removed pools stand under `-`."""
        figures = self.figures()
        pools = {(pool.name, pool.family): pool for pool in self._parts.cluster.pools}
        return [
            {
                "name": name,
                "family": f"IPv{family}",
                "cidr": pools[name, family].cidr if name != NO_POOL else None,
                **{figure: figures[name, family][figure] for figure in FIGURES},
                "not_usable": pools[name, family].why_not_usable() if name != NO_POOL else "it was removed",
            }
            for name, family in sorted(pools.keys() | figures.keys())
        ]

    async def explain(self, namespace: str, pod: str) -> dict:
        """Which pools a pod would draw from on this node, which one gives, and why not the others.

        NotFound without the pod.
        """
        parts = self._parts
        if not self._client.knows_pods:
            raise CannotTellError("this machine serves containers by itself: there is no API server that knows pods")
        found = await self._client.get(f"/api/v1/namespaces/{namespace}/pods/{pod}")
        plugin = parts.server.last_configuration or {}
        ranges = configured_ranges(plugin)
        annotations = found["metadata"].get("annotations") or {}
        configured = configured_pools(plugin, ranges)
        subject = await parts.cluster.subject(self.node, namespace, pod, annotations, configured)
        view = await parts.ipam.blocks.view(addresses_asked_for(subject))
        return {
            "namespace": namespace,
            "pod": pod,
            "node": self.node,
            "scheduled_to": found["spec"].get("nodeName"),
            "configuration": parts.server.last_configuration,
            "holds": [
                held.address
                for attachment in parts.ipam.attachments.values()
                if (attachment.owner.get("namespace"), attachment.owner.get("pod")) == (namespace, pod)
                for held in attachment.addresses
            ],
            **explain(subject, configured_families(plugin, ranges), parts.cluster.pools, view),
        }

    async def check(self) -> list[dict]:
        """Where store, memory, API server and pods disagree: `subject` and `problem` of each; [] when all is well."""
        parts = self._parts
        found = await disagreements(parts.ipam, parts.cluster, self._store, self.node)
        return [asdict(disagreement) for disagreement in found]

    def block_usages(self) -> list[BlockUsage]:
        """The blocks of this node, by pool."""
        usages = [self._usage(keeper) for keeper in self._parts.ipam.blocks if keeper.claimed]
        return sorted(usages, key=lambda usage: usage.pool)

    def figures(self) -> defaultdict[tuple[str, int], Counter[str]]:
        """FIGURES by pool and family (4, 6); what this node has nothing of is missing or 0."""
        usages = self.block_usages()
        figures: defaultdict[tuple[str, int], Counter[str]] = defaultdict(Counter)
        for usage in usages:
            counts = {state: usage.count(state) for state in STATES}
            figures[usage.pool, usage.family].update(counts, blocks=1, spare=usage.spare, lent=usage.lent)
        for keeper in self._parts.ipam.blocks:
            if not keeper.claimed and keeper.attachments:
                key = self._pool_name(keeper.cidr), _family(keeper.cidr)
                figures[key]["borrowed"] += len(keeper.attachments)
        return figures

    @property
    def _parts(self) -> _Working:
        if self._working is None:
            raise CannotTellError(self.why_unable())
        return self._working

    def _usage(self, keeper: BlockKeeper) -> BlockUsage:
        lent = sum(not keeper.is_own(attribute) for _ordinal, attribute in keeper.holders)
        return BlockUsage(keeper.cidr, self._pool_name(keeper.cidr), keeper.states, lent, keeper.is_pinned)

    def _pool_name(self, cidr: str) -> str:
        pool = self._parts.cluster.pool_of(cidr)
        return pool.name if pool else NO_POOL

    def _of_blocks(self) -> dict:
        ipam = self._parts.ipam
        usages = self.block_usages()
        whys = {keeper.cidr: ipam.why_written_through(keeper) for keeper in ipam.blocks}
        left = Counter({"IPv4": 0, "IPv6": 0})
        for usage in usages:
            left[f"IPv{usage.family}"] += usage.count("free")
        return {
            "api": self._parts.cluster.calico.group_version,
            "addresses_left": dict(left),
            "attachments": len(ipam.attachments),
            "unsettled": len(ipam.unsettled),
            "blocks": [
                {
                    "cidr": usage.cidr,
                    "pool": usage.pool,
                    "free": usage.count("free"),
                    "mode": WRITTEN_THROUGH if whys[usage.cidr] else LOCAL_FIRST,
                    "why": whys[usage.cidr] or "strict affinity, and the API server has seen it in use",
                }
                for usage in usages
            ],
        }

    def _rows(self) -> dict:
        try:
            states = Counter(row.state for row in self._store.rows())
        except StoreError as error:
            return {"error": str(error)}
        return {"held": states[HELD], "released": states[RELEASED]}


def _family(cidr: str) -> int:
    return 6 if ":" in cidr else 4
