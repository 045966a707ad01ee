# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Figures for Prometheus that are counted where things happen; gauges.py adds what is looked up when someone asks.

The registry is our own, so that nothing else is exported. One agent per process.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

# A series beside each counter that says when the process started would double their number.
disable_created_metrics()

REGISTRY = CollectorRegistry()

REQUESTS = Counter(
    "podnet_ipam_requests",
    "CNI requests that were answered, by verb and result code; code 0 is success. Tombstones are among them.",
    ("verb", "code"),
    registry=REGISTRY,
)
REQUEST_SECONDS = Histogram(
    "podnet_ipam_request_seconds",
    "From a whole request to its answer, by verb.",
    ("verb",),
    registry=REGISTRY,
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60),
)
STORE_COMMITS = Counter(
    "podnet_ipam_store_commits", "Transactions that the node's own store has committed.", registry=REGISTRY
)
STORE_ERRORS = Counter(
    "podnet_ipam_store_errors", "Transactions of the node's own store that failed.", registry=REGISTRY
)
BLOCK_CONFLICTS = Counter(
    "podnet_ipam_block_conflicts",
    "Writes of a block that the API server refused (409) because someone else had changed the block.",
    registry=REGISTRY,
)
