# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Below Calico's own main plugin, which takes this one for its `calico-ipam` when it is installed under that name.

Source: Calico 3.29 to 3.32. The main plugin has read the annotations of pod and namespace itself, and has put what they
say into the configuration and CNI_ARGS, one call for each address that is asked for; so here they do not count. What it
is told when that fails are calico-ipam's own words, as people search for them; ours follow as details.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from .._core.assignment import Subject
from .._core.pool import WORKLOAD, Pool

CALICO_IPAM = "calico-ipam"


def is_calico(config: dict) -> bool:
    """Whether a network configuration comes from Calico's main plugin, or from someone who means calico-ipam."""
    return (config.get("ipam") or {}).get("type") == CALICO_IPAM


def refusal(subject: Subject, families: Iterable[int], pools: Sequence[Pool]) -> str | None:
    """What calico-ipam says when no pool serves the pod in one of the families; None where it would find one."""
    named = {family: subject.configured.get(family) or [] for family in families}
    for family, names in named.items():
        for name in names:
            network = _network(name, pools)
            if network is None:
                return f'error parsing pool "{name}": invalid CIDR address: {name}'
            if network.version != family:
                return f'"{network.network_address}" isn\'t a IPv{family} address'
    for family, names in named.items():
        networks = [_network(name, pools) for name in names]
        text = _unqualified(subject, networks, [pool for pool in pools if pool.family == family and pool.enabled])
        if text:
            return text
    return None


def _network(name: str, pools: Sequence[Pool]) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """What an entry of a pool list means: a CIDR, else the name of a pool."""
    if "/" in name:
        try:
            return ipaddress.ip_network(name, strict=False)
        except ValueError:
            pass
    return next((pool.network for pool in pools if pool.name == name), None)


def _unqualified(subject: Subject, networks: Sequence, enabled: Sequence[Pool]) -> str | None:
    if not enabled:
        return "cannot find a qualified ippool"
    by_network = {pool.network: pool for pool in enabled}
    unknown = next((network for network in networks if network not in by_network), None)
    if unknown is not None:
        return f"the given pool ({unknown}) does not exist, or is not enabled"
    candidates = [by_network[network] for network in networks] or [
        pool for pool in enabled if pool.why_not_automatic(subject.node_labels, subject.namespace_labels) is None
    ]
    if not candidates:
        return f"no configured Calico pools for node {subject.node}"
    if not any(WORKLOAD in pool.allowed_uses for pool in candidates):
        return f"cannot find a qualified ippool, no pools match the required use ({WORKLOAD})"
    return None
