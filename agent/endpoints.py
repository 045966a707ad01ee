# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The two places where the agent is asked about itself: metrics and health over TCP, on loopback only, and a Unix
socket for root, where `podnet-ipam-ctl` asks.

Pods get their addresses without them: one that cannot be opened is reported, and the agent goes on.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from inspect import isawaitable
from pathlib import Path

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from .._kube.errors import ApiError, NotFound, Unreachable
from .gauges import Gauges
from .insight import CannotTellError, Insight
from .metrics import REGISTRY
from .sqlite import StoreError

# A scrape or a question is answered in milliseconds; whoever still reads when the agent ends is not waited for.
_STOP_SECONDS = 1.0

log = logging.getLogger(__name__)


@asynccontextmanager
async def endpoints(insight: Insight, control: Path, metrics: tuple[str, int] | None) -> AsyncIterator[None]:
    """Answer until the block ends. `metrics` is host and port; None for no TCP at all."""
    async with AsyncExitStack() as stack:
        control.unlink(missing_ok=True)
        if await _serve(stack, _control(insight), lambda runner: web.UnixSite(runner, control), str(control)):
            control.chmod(0o600)
        if metrics is not None:
            host, port = metrics
            await _serve(stack, _health(insight), lambda runner: web.TCPSite(runner, host, port), f"{host}:{port}")
        yield


async def _serve(
    stack: AsyncExitStack, app: web.Application, site: Callable[[web.AppRunner], web.BaseSite], where: str
) -> bool:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_STOP_SECONDS)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        await site(runner).start()
    except OSError as error:
        log.error("nobody can ask the agent about itself on %s: %s", where, error)
        return False
    return True


def _health(insight: Insight) -> web.Application:
    REGISTRY.register(Gauges(insight))

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(REGISTRY), headers={"Content-Type": content_type})

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        reason = insight.why_unable()
        return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    return app


def _control(insight: Insight) -> web.Application:
    answers = {
        "/status": lambda _request: insight.status(),
        "/pools": lambda _request: insight.pools(),
        "/blocks": lambda _request: insight.blocks(),
        "/explain/{namespace}/{pod}": lambda request: insight.explain(**request.match_info),
        "/check": lambda _request: insight.check(),
    }
    app = web.Application()
    app.add_routes([web.get(path, _as_json(answer)) for path, answer in answers.items()])
    return app


def _as_json(answer: Callable[[web.Request], object]) -> Callable[[web.Request], Awaitable[web.Response]]:
    """What `answer` returns, now or later, as JSON; what it raises as `{"error": ...}` with the status that fits."""

    async def handler(request: web.Request) -> web.Response:
        try:
            found = answer(request)
            return web.json_response(await found if isawaitable(found) else found)
        except NotFound as error:
            return web.json_response({"error": str(error)}, status=404)
        except (CannotTellError, ApiError, Unreachable, StoreError) as error:
            return web.json_response({"error": str(error)}, status=503)

    return handler
