# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What module `ipam_info` tells: each subset reads no more of a cluster than it needs."""

from __future__ import annotations

from functools import cached_property

from ._kube import observe, resources
from ._kube.calico import CONFIG_NAME
from ._kube.errors import Forbidden
from ._kube.inventory import Inventory, templates
from ._plan import assigned, assignments, engine, explain, listing, usage
from ._plan.workload_kinds import KINDS


class Cluster:
    """A cluster as `client` sees it. What several subsets need is read once."""

    def __init__(self, client):
        self.client = client
        self.api, self.pools = observe.pools(client)
        self.inventory = Inventory(client, self.api)

    @property
    def api_group(self):
        return self.api.group_version if self.api else None

    @cached_property
    def blocks(self):
        return self.inventory.calico("IPAMBlock")

    @cached_property
    def affinities(self):
        return self.inventory.calico("BlockAffinity")

    @cached_property
    def config(self):
        """The configuration of address management, or None."""
        return self.client.find(self.api.path(self.api.config_kind, CONFIG_NAME)) if self.api else None

    @cached_property
    def reservations(self):
        return (observe.labelled(self.client, self.api, "IPReservation") or {}).values()

    def gather(self, subsets):
        """The return values of these subsets."""
        found = {"api_group": self.api_group}
        for subset, tell in _SUBSETS.items():
            if subset in subsets:
                found.update(tell(self, subsets))
        return found

    def explain(self, questions):
        """(answers, problems) to the option `explain`; no answers where there are problems."""
        pods = {(each["namespace"], each["pod"]) for each in questions if each["pod"] and each["annotations"] is None}
        observed = explain.Observed(
            namespaces=observe.namespaces(self.client, {each["namespace"] for each in questions}),
            nodes=observe.named(self.client, "Node", {each["node"] for each in questions}),
            pods={key: self.client.find(resources.path("Pod", key[1], key[0])) for key in sorted(pods)},
            pools=assignments.readable(self.pools),
            blocks=tuple(self.blocks),
            affinities=tuple(self.affinities),
            reserved=usage.reserved_ranges(self.reservations),
            config=self.config,
            now=self.client.server_time.timestamp(),
        )
        problems = list(explain.problems(questions, observed))
        return [] if problems else [explain.explain(each, observed) for each in questions], problems


def _engine(cluster, subsets):
    counts_blocks = subsets & {"pools", "blocks", "addresses"}
    forbidden = []

    def known(where, read):
        try:
            return read(cluster.client)
        except Forbidden:
            forbidden.append(where)
            return None

    found, evidence = engine.engine(
        engine.Observed(
            nodes=tuple(cluster.inventory.nodes()),
            installation=known(engine.INSTALLATION, observe.installation),
            calico_config=known(engine.CALICO_CONFIG, observe.calico_config),
            forbidden=tuple(forbidden),
            pools=tuple(cluster.pools),
            blocks=tuple(cluster.blocks) if counts_blocks else None,
            api_group=cluster.api_group,
        )
    )
    return {"engine": found, "evidence": evidence}


def _pools(cluster, _subsets):
    found = usage.usage(cluster.pools.values(), cluster.blocks, cluster.reservations)
    return {"pools": found, "families": usage.totals(found)}


def _assignments(cluster, _subsets):
    found = {
        "namespaces": assigned.namespaces(cluster.inventory.namespaces()),
        "workloads": assigned.workloads(templates(cluster.client, KINDS)),
    }
    return {"assignments": found}


def _reservations(cluster, _subsets):
    return {"reservations": listing.reservations(cluster.reservations)}


def _config(cluster, _subsets):
    return {"config": listing.config(cluster.config)}


def _blocks(cluster, _subsets):
    return {"blocks": listing.blocks(cluster.pools.values(), cluster.blocks, cluster.affinities)}


def _addresses(cluster, _subsets):
    return {"addresses": listing.addresses(cluster.pools.values(), cluster.blocks)}


_SUBSETS = {
    "engine": _engine,
    "pools": _pools,
    "assignments": _assignments,
    "reservations": _reservations,
    "config": _config,
    "blocks": _blocks,
    "addresses": _addresses,
}
SUBSETS = tuple(_SUBSETS)
