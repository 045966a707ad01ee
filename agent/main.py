# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The node agent: takes over the socket, fills the caches, takes over the node's blocks, and then answers."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from .._core.bitmap import COMPILED
from .._kube.calico import CalicoApi
from .._kube.errors import ApiError, Unreachable
from . import codec
from .api import Client, read_kubeconfig
from .backoff import Backoff
from .cluster import Cluster, detect_calico_api
from .cni import CniServer, error_answer
from .collector import Collector
from .config import AgentConfig
from .errors import LIMITED_CONNECTIVITY, NOT_AVAILABLE, TRY_AGAIN_LATER, CniError
from .identity import keep_token
from .idle_blocks import IdleBlocks
from .insight import Insight
from .ipam import Ipam
from .local import LocalDatastore
from .loop import Busy, MeasuredLoop
from .protocol import Answer, Listener, Request
from .record import Record
from .running import Records
from .spares import Spares
from .spool import Spool
from .sqlite import StoreError
from .store import Store
from .systemd import activated_socket, notify

DEFAULT_CONFIG = Path("/etc/podnet-ipam/agent.toml")
# 110 pods start at once after a reboot, and each connects twice at most.
BACKLOG = 512
# A request that comes before the agent is ready waits, but not until the kubelet gives up on the pod.
READY_SECONDS = 60.0
# Nor may the runtime wait for long that asks how it is, every few seconds: what it tells the kubelet waits with it.
STATUS_SECONDS = 2.0
RETRY_SECONDS = 1.0
STOP_SECONDS = 2.0
SPOOL_SECONDS = 5.0
CHECKPOINT_SECONDS = 2.0
# After those who waited for the start are answered, which the collection of garbage would keep waiting.
FREEZE_SECONDS = 1.0
EARLIER_ENDS_FIRST = "DELs that came while there was no agent are carried out before anything else"

T = TypeVar("T")

log = logging.getLogger(__name__)


class Agent:
    """One run of the agent. It listens at once and answers once it knows the node's state; until then callers wait."""

    def __init__(self, config: AgentConfig, client: Client | LocalDatastore, busy: Busy):
        self._config = config
        self._client = client
        self._ready = asyncio.Event()
        self._store = Store(config.store)
        self._spool = Spool(config.spool)
        # What is done when a DEL that is under way has been answered, and of which container it is.
        self._ending: dict[asyncio.Future[None], str] = {}
        self.insight = Insight(config, client, self._store, self._spool, busy)

    async def answer(self, request: Request) -> Answer:
        record = Record(request)
        container = request.variables.get("CNI_CONTAINERID", "")
        if request.command == "ADD":
            await self._wait_for_earlier_ends(container)
        if request.command != "DEL":
            return await self._answer(request, record)
        over = asyncio.get_running_loop().create_future()
        self._ending[over] = container
        try:
            return await self._answer(request, record)
        finally:
            del self._ending[over]
            over.set_result(None)

    async def _wait_for_earlier_ends(self, container: str) -> None:
        """Until the DELs of a container that came before its ADD are answered: each may yet leave a tombstone."""
        earlier = [over for over, ending in self._ending.items() if ending == container]
        if earlier:
            await asyncio.wait(earlier)

    async def _answer(self, request: Request, record: Record) -> Answer:
        if not await self._is_ready(STATUS_SECONDS if request.command == "STATUS" else READY_SECONDS):
            answer = self._refuse_unready(request, record)
        elif not await self._is_settled(request):
            answer = _refuse(record, "an earlier DEL of this container could not be carried out yet")
        else:
            answer = await self._server.handle(request, record)
            if answer.again and request.command == "DEL":
                answer = self._postpone(request, record)
        record.close()
        return answer

    async def _is_settled(self, request: Request) -> bool:
        """Whether no DEL of a container that starts is still to come, which would free what it gets now."""
        if request.command != "ADD":
            return True
        return await self._spool.consume(self._carry_out, request.variables.get("CNI_CONTAINERID", ""))

    async def _is_ready(self, patience: float) -> bool:
        """Whether the agent knows the node's state, for which a request waits for `patience` seconds."""
        if not self._ready.is_set():
            try:
                async with asyncio.timeout(patience):
                    await self._ready.wait()
            except TimeoutError:
                return False
        return True

    def _refuse_unready(self, request: Request, record: Record) -> Answer:
        """Routes of an earlier run are still there, but nobody keeps them until the cluster's state is known."""
        code = TRY_AGAIN_LATER
        if request.command == "STATUS":
            code = LIMITED_CONNECTIVITY if self._config.routes else NOT_AVAILABLE
        return _refuse(record, self.insight.why_unable() or EARLIER_ENDS_FIRST, code)

    def _postpone(self, request: Request, record: Record) -> Answer:
        """A DEL that could not be carried out now is carried out later: a runtime may never ask again."""
        try:
            self._spool.leave(request)
        except OSError as error:
            return _refuse(record, f"the spool folder cannot be written: {error}")
        record.postpone()
        return Answer(0, b"")

    async def _carry_out(self, request: Request) -> Answer:
        record = Record(request)
        answer = await self._server.handle(request, record)
        record.close()
        return answer

    async def _work_off_spool(self) -> None:
        while True:
            await self._spool.consume(self._carry_out)
            await asyncio.sleep(SPOOL_SECONDS)

    async def _keep_store(self) -> None:
        """Record what the store refused, and keep its log short."""
        changes = 0
        while True:
            await asyncio.sleep(CHECKPOINT_SECONDS)
            self._ipam.recording.catch_up()
            if self._store.changes != changes:
                changes = self._store.changes
                try:
                    await asyncio.to_thread(self._store.checkpoint)
                except StoreError as error:
                    log.warning("the store's write-ahead log stays as it is: %s", error)

    def listen(self) -> Listener:
        """Accept requests on the socket that systemd hands over, else on one of our own."""
        listening = activated_socket()
        if listening is None:
            path = self._config.socket
            path.unlink(missing_ok=True)
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listening.bind(str(path))
            path.chmod(0o600)
        listening.listen(BACKLOG)
        listener = Listener(self.answer, listening)
        listener.start()
        return listener

    async def work(self) -> None:
        """Learn the cluster's state and follow it until cancelled."""
        node = self._config.node
        async with asyncio.TaskGroup() as tasks:

            def keep_up(what: str, run: Callable[[], Awaitable[None]]) -> None:
                tasks.create_task(_keep_up(what, run))

            if isinstance(self._client, Client):
                keep_up("the token", lambda: keep_token(self._client, self._config.token_lifetime))
            cluster = Cluster(self._client, await self._find_calico_api())
            for reflector in cluster.reflectors:
                keep_up("a watch", reflector.run)
            for reflector in cluster.reflectors:
                await reflector.synced.wait()
            self._ipam = Ipam(cluster, node, self._store, self._config.cooldown, self._config.routes)
            records = Records(self._config.results, self._config.network)
            await self._retry(lambda: self._ipam.start(records))
            collector = Collector(self._ipam, self._client, node, self._config.grace)
            self._server = CniServer(self._ipam, cluster, node, collector)
            self.insight.ready(self._ipam, cluster, self._server)
            # What ended while there was no agent is free before anybody asks, where that needs no API server.
            await asyncio.wait({tasks.create_task(self._spool.consume(self._carry_out))}, timeout=SPOOL_SECONDS)
            self._ready.set()
            # There may be thousands of them.
            keep_up("a watch", cluster.namespaces.run)
            if self._config.routes:
                keep_up("routes", lambda: _keep_routes(cluster, node))
            keep_up("the spool", self._work_off_spool)
            keep_up("the store", self._keep_store)
            keep_up("the search for vanished pods", collector.run)
            keep_up("empty blocks", IdleBlocks(cluster, self._ipam.blocks, self._config.keep_blocks).run)
            spares = Spares(cluster, node, self._ipam.blocks, self._config.spare_blocks)
            keep_up("spare blocks", lambda: spares.run(self._config.keep_blocks))
            notify("STATUS=answering")
            log.info("ready: node %s, %s core, JSON by %s", node, "compiled" if COMPILED else "interpreted", codec.BY)
            await asyncio.sleep(FREEZE_SECONDS)
            # What is there now stays: the garbage collector need not look at it again and again.
            gc.collect()
            gc.freeze()

    async def finish(self) -> None:
        """Let what goes on behind answered requests come to its end, for a bounded time."""
        if self._ready.is_set():
            await self._ipam.stop(STOP_SECONDS)
        self._store.close()

    async def _find_calico_api(self) -> CalicoApi:
        while True:
            calico = await self._retry(lambda: detect_calico_api(self._client))
            if calico is not None:
                return calico
            notify("STATUS=waiting for the IPPool resource")
            log.error("the cluster serves no IPPools, neither as crd.projectcalico.org/v1 nor as projectcalico.org/v3")
            await asyncio.sleep(RETRY_SECONDS)

    async def _retry(self, attempt: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await attempt()
            except (ApiError, Unreachable) as error:
                notify(f"STATUS=waiting for {self._client.name}: {error}")
                log.warning("%s", error)
                await asyncio.sleep(RETRY_SECONDS)


def connect(config: AgentConfig) -> Client | LocalDatastore:
    """What holds the objects: the cluster's API server, or this machine by itself. All else is the same for both."""
    if config.pools_file is None:
        return Client(read_kubeconfig(config.kubeconfig))
    datastore = LocalDatastore(config.datastore, config.pools_file)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, datastore.reload)
    return datastore


def _refuse(record: Record, why: str, code: int = TRY_AGAIN_LATER) -> Answer:
    error = CniError(code, why)
    record.fail(error)
    return error_answer(error)


async def _keep_up(what: str, run: Callable[[], Awaitable[None]]) -> None:
    """Have something go on behind the answers: what fails there must not keep pods from starting."""
    backoff = Backoff()
    while True:
        try:
            return await run()
        except Exception:
            log.exception("%s: begun anew", what)
        await backoff.pause(None)


async def _keep_routes(cluster: Cluster, node: str) -> None:
    # The library behind it takes a tenth of a second to load, for which no pod should wait.
    routes = await asyncio.to_thread(import_module, ".routes", __package__)
    await routes.keep_routes(cluster, node)


async def serve(config: AgentConfig, busy: Busy) -> None:
    """Run until SIGTERM or SIGINT, or until something fails that a restart may mend."""
    # Where Python has it (3.12), a task begins at once: an ADD that need not wait is answered without another turn.
    asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory", None))
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    client = connect(config)
    try:
        agent = Agent(config, client, busy)
        listener = agent.listen()
        # Ready as soon as nothing is refused: a node that boots while the API server is away must not wait for it.
        notify("READY=1", "STATUS=learning the cluster's state")
        work = asyncio.create_task(agent.work())
        # While the API server is asked for the first things.
        served = await asyncio.to_thread(import_module, ".endpoints", __package__)
        async with served.endpoints(agent.insight, config.control, config.metrics_address()):
            stop = asyncio.create_task(stopped.wait())
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            notify("STOPPING=1")
            await listener.stop(STOP_SECONDS)
        if work.done():
            await work
        await agent.finish()
        work.cancel()
        await asyncio.wait({work})
    finally:
        await client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="node agent of the CNI IPAM plugin podnet-ipam")
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help=f"default: {DEFAULT_CONFIG}")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    # Where a line was written and by which thread and process is not in it, and costs as much as the line itself.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = logging.logAsyncioTasks = False
    try:
        config = AgentConfig.read(options.config)
        with asyncio.Runner(loop_factory=MeasuredLoop) as runner:
            runner.run(serve(config, runner.get_loop().busy))
    except (OSError, ValueError, StoreError, Unreachable) as error:
        raise SystemExit(f"podnet-ipam-agent: {error}") from None
