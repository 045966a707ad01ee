# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The figures that are looked up when Prometheus asks, so that nothing has to be kept up to date between."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from .insight import STATES, CannotTellError, Insight
from .loop import BOUNDS

_BY_POOL = ("pool", "family", "node")


class Gauges(Collector):
    """Of one agent. As long as it does not know the node's state, there are no figures of pools."""

    def __init__(self, insight: Insight):
        self._insight = insight

    def collect(self) -> Iterator[Metric]:
        ready = self._insight.why_unable() is None
        yield GaugeMetricFamily("podnet_ipam_ready", "1 where a pod can get an address now, else 0.", value=ready)
        yield GaugeMetricFamily(
            "podnet_ipam_api_server_away_seconds",
            "For how long no API server that works has been heard of; 0 when the last request found one.",
            value=self._insight.seconds_away,
        )
        yield GaugeMetricFamily(
            "podnet_ipam_tombstones", "DELs that wait to be carried out.", value=self._insight.tombstones
        )
        yield self._of_loop()
        try:
            yield from self._of_pools()
        except CannotTellError:
            return

    def _of_loop(self) -> Metric:
        busy = self._insight.busy
        buckets = zip([*map(str, BOUNDS), "+Inf"], accumulate(busy.counts), strict=True)
        return HistogramMetricFamily(
            "podnet_ipam_loop_busy_seconds",
            "For how long the event loop looked for no new events, each time: what a request may have had to wait for.",
            buckets=list(buckets),
            sum_value=busy.total,
        )

    def _of_pools(self) -> Iterator[Metric]:
        addresses = GaugeMetricFamily(
            "podnet_ipam_addresses", "Addresses of the node's blocks, by state.", labels=(*_BY_POOL, "state")
        )
        blocks = GaugeMetricFamily("podnet_ipam_blocks", "Blocks of the node.", labels=_BY_POOL)
        spare = GaugeMetricFamily("podnet_ipam_spare_blocks", "Blocks of the node claimed ahead.", labels=_BY_POOL)
        lent = GaugeMetricFamily(
            "podnet_ipam_lent_addresses", "Used addresses of the node's blocks that other nodes hold.", labels=_BY_POOL
        )
        borrowed = GaugeMetricFamily(
            "podnet_ipam_borrowed_addresses", "Addresses of other nodes' blocks that the node holds.", labels=_BY_POOL
        )
        for (pool, family), figures in self._insight.figures().items():
            labels = (pool, f"IPv{family}", self._insight.node)
            for state in STATES:
                addresses.add_metric((*labels, state), figures[state])
            for metric, figure in ((blocks, "blocks"), (spare, "spare"), (lent, "lent"), (borrowed, "borrowed")):
                metric.add_metric(labels, figures[figure])
        yield from (addresses, blocks, spare, lent, borrowed)
