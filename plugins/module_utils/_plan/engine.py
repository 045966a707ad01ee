# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Which IPAM a cluster uses, as far as it can be seen."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

CNI_ANNOTATION = "ipam.podnet.io/cni"
UNKNOWN = "unknown"
INSTALLATION = "Installation default"
CALICO_CONFIG = "ConfigMap kube-system/calico-config"
_ENGINES = {"calico-ipam": "calico", "host-local": "host-local", "podnet-ipam": "podnet"}
_OPERATOR_ENGINES = {"Calico": "calico", "HostLocal": "host-local"}
_PLACEHOLDER = re.compile(r"__[A-Z0-9_]+__")  # calico-config is a template; some stand where a number must be


@dataclass(frozen=True)
class Observed:
    """Objects as read; None where the cluster has none. `blocks` is None also when they were not asked for.

    `forbidden`: which of INSTALLATION and CALICO_CONFIG is None because the user may not read it.
    """

    nodes: tuple = ()
    installation: dict | None = None
    calico_config: dict | None = None
    forbidden: tuple = ()
    pools: tuple = ()
    blocks: tuple | None = None
    api_group: str | None = None


def engine(observed):
    """(engine, evidence). What nodes run weighs most, then the operator's Installation, then Calico's ConfigMap."""
    findings = [*_node_findings(observed.nodes), *_operator_findings(observed), *_config_findings(observed)]
    evidence = [text for _engine, text in findings]
    evidence += [f"{where} may not be read by this user" for where in observed.forbidden]
    if observed.api_group:
        blocks = "" if observed.blocks is None else f" and {len(observed.blocks)} IPAMBlocks"
        evidence.append(f"{observed.api_group} is served, with {len(observed.pools)} IPPools{blocks}")
    else:
        evidence.append("no API group with IPPools is served")
    found = [name for name, _text in findings if name != UNKNOWN]
    return (found[0] if found else UNKNOWN), evidence


def _node_findings(nodes):
    """One finding for each IPAM plugin that the role recorded on nodes; podnet first, then what most nodes run."""
    by_plugin = {}
    for node in nodes:
        text = _recorded(node)
        if text:
            by_plugin.setdefault(_recorded_ipam(text), []).append(node["metadata"]["name"])
    order = sorted(by_plugin, key=lambda plugin: (plugin != "podnet-ipam", -len(by_plugin[plugin]), plugin))
    for plugin in order:
        names = sorted(by_plugin[plugin])
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        text = f"{len(names)} of {len(nodes)} nodes have IPAM plugin {plugin} (annotation {CNI_ANNOTATION}: {shown})"
        yield _ENGINES.get(plugin, UNKNOWN), text


def record_of(node):
    """What the role has recorded on a Node; {} where that cannot be read."""
    try:
        record = json.loads(_recorded(node) or "{}")
    except ValueError:
        record = {}
    return record if isinstance(record, dict) else {}


def _recorded(node):
    return (node["metadata"].get("annotations") or {}).get(CNI_ANNOTATION)


def _recorded_ipam(text):
    try:
        return str(json.loads(text)["ipam"])
    except (ValueError, KeyError, TypeError):
        return f"unreadable: {text!r}"


def _operator_findings(observed):
    if observed.installation is None:
        return
    cni = (observed.installation.get("spec") or {}).get("cni") or {}
    ipam = (cni.get("ipam") or {}).get("type")
    if ipam:
        yield _OPERATOR_ENGINES.get(ipam, UNKNOWN), f"{INSTALLATION}: spec.cni.ipam.type is {ipam}"
    elif cni.get("type", "Calico") == "Calico":
        yield "calico", f"{INSTALLATION}: spec.cni.ipam.type is not set, which means Calico"
    else:
        yield UNKNOWN, f"{INSTALLATION}: spec.cni.type is {cni['type']}"


def _config_findings(observed):
    if observed.calico_config is None:
        return
    where = f"{CALICO_CONFIG}: cni_network_config"
    text = (observed.calico_config.get("data") or {}).get("cni_network_config")
    if text is None:
        yield UNKNOWN, f"{where} is not set"
        return
    try:
        config = json.loads(_PLACEHOLDER.sub("0", text))
        plugins = config.get("plugins") or [config]
        ipam = next(plugin["ipam"]["type"] for plugin in plugins if plugin.get("ipam"))
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        yield UNKNOWN, f"{where} names no IPAM plugin"
        return
    yield _ENGINES.get(ipam, UNKNOWN), f"{where} has ipam.type {ipam}"
