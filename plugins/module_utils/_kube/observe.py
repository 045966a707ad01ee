# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What modules read from a cluster before they plan."""

from __future__ import annotations

import json

from . import resources
from .calico import METADATA_ANNOTATION, V1, V3
from .errors import ApiError, NotFound

_FEW = 3  # up to so many objects of one collection are read one by one, more with one list


def pools(client):
    """(api, {name: IPPool}): V1 if the cluster serves IPPools there, else V3 if there, else (None, {}).

    That is Calico's own order of preference. The list itself tells which group is served, without any discovery.
    Labels that Calico keeps only in its metadata annotation (v1) stand among the labels.
    """
    for api in (V1, V3):
        try:
            found = client.list(api.path("IPPool"))
        except NotFound:
            continue
        return api, {pool["metadata"]["name"]: _with_all_labels(pool) for pool in found}
    return None, {}


def collection(client, api, kind):
    """All objects of one of Calico's kinds; none when the cluster does not serve the kind."""
    try:
        return client.list(api.path(kind)) if api else []
    except NotFound:
        return []


def named(client, kind, names, namespace=None):
    """Those of `names` that exist, as {name: object}."""
    if len(names) <= _FEW:
        found = [client.find(resources.path(kind, name, namespace)) for name in sorted(names)]
    else:
        found = client.list(resources.path(kind, namespace=namespace))
    return {each["metadata"]["name"]: each for each in found if each and each["metadata"]["name"] in names}


def pod_cidrs(client):
    """The cluster's pod CIDRs as kubeadm recorded them (networking.podSubnet), or [] when that cannot be read."""
    try:
        config = client.find(resources.path("ConfigMap", "kubeadm-config", "kube-system"))
    except ApiError as error:
        if error.status != 403:
            raise
        return []
    import yaml  # comes with the kubernetes client

    text = ((config or {}).get("data") or {}).get("ClusterConfiguration") or ""
    networking = (yaml.safe_load(text) or {}).get("networking") or {}
    return [cidr.strip() for cidr in (networking.get("podSubnet") or "").split(",") if cidr.strip()]


def workloads(client, keys):
    """The workloads that exist out of (kind, namespace, name) keys, by key."""
    wanted = {}
    for kind, namespace, name in keys:
        wanted.setdefault((kind, namespace), set()).add(name)
    return {
        (kind, namespace, name): found
        for (kind, namespace), names in sorted(wanted.items())
        for name, found in named(client, kind, names, namespace).items()
    }


def pods_of(client, existing):
    """The pods of each workload, by its key. A CronJob has none of its own: they belong to its Jobs."""
    found = {}
    for (kind, namespace, name), workload in existing.items():
        if kind == "Pod":
            found[kind, namespace, name] = [workload]
        elif kind != "CronJob":
            selector = resources.selector_text(workload["spec"]["selector"])
            found[kind, namespace, name] = client.list(
                resources.path("Pod", namespace=namespace), labelSelector=selector
            )
    return found


def nodes(client):
    return client.list(resources.path("Node"))


def installation(client):
    """The Calico operator's Installation `default`, or None."""
    return client.find("/apis/operator.tigera.io/v1/installations/default")


def calico_config(client):
    """The ConfigMap with the CNI configuration of a Calico installed from manifests, or None."""
    return client.find(resources.path("ConfigMap", "calico-config", "kube-system"))


def _with_all_labels(pool):
    metadata = pool["metadata"]
    repeated = (metadata.get("annotations") or {}).get(METADATA_ANNOTATION)
    try:
        labels = (json.loads(repeated) if repeated else {}).get("labels") or {}
    except (ValueError, AttributeError):
        labels = {}
    return {**pool, "metadata": {**metadata, "labels": {**labels, **(metadata.get("labels") or {})}}}
