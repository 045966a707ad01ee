# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What modules read from a cluster before they plan."""

from __future__ import annotations

import json

from .._core.names import OBJECT_NAME, cidr_name
from . import resources
from .calico import METADATA_ANNOTATION, V1, V3
from .errors import Forbidden, NotFound

INSTALLATIONS = "/apis/operator.tigera.io/v1/installations"
_FEW = 3  # up to so many objects of one collection are read one by one, more with one list


def pools(client):
    """(api, {name: IPPool}): V1 if the cluster serves IPPools there, else V3 if there, else (None, {}).

    That is Calico's own order of preference. The list itself tells which group is served, without any discovery, unless
    the user may not read it: then discovery does, which every user may read.
    Labels that Calico keeps only in its metadata annotation (v1) stand among the labels.
    """
    for api in (V1, V3):
        try:
            found = client.list(api.path("IPPool"))
        except NotFound:
            continue
        except Forbidden:
            if serves(client, api.path("IPPool")):
                raise
            continue
        return api, {pool["metadata"]["name"]: _with_all_labels(pool) for pool in found}
    return None, {}


def serves(client, path):
    """Whether the cluster serves a collection, by the list of what its API group has."""
    group_version, _slash, plural = path.rpartition("/")
    found = client.find(group_version) or {}
    return any(each["name"] == plural for each in found.get("resources") or ())


def collection(client, api, kind, unserved=()):
    """All objects of one of Calico's kinds; `unserved` when the cluster does not serve the kind."""
    try:
        return client.list(api.path(kind)) if api else unserved
    except NotFound:
        return unserved


def labelled(client, api, kind):
    """Objects of one of Calico's kinds by name, with labels as `pools` has them; None when the kind is not served."""
    found = collection(client, api, kind, unserved=None)
    return found if found is None else {each["metadata"]["name"]: _with_all_labels(each) for each in found}


def named(client, kind, names, namespace=None, keep=None):
    """Those of `names` that exist, as {name: object}. `keep` as for `list`."""
    # What cannot be a name leads to something else: an empty text to the collection, one with a slash to a part of it.
    names = {name for name in names if OBJECT_NAME.fullmatch(name)}
    if len(names) <= _FEW:
        found = [client.find(resources.path(kind, name, namespace)) for name in sorted(names)]
    else:
        found = client.list(resources.path(kind, namespace=namespace), keep=keep)
    return {each["metadata"]["name"]: each for each in found if each and each["metadata"]["name"] in names}


def namespaces(client, names=None):
    """Namespaces by name: those of `names` that exist, or all of the cluster. Only what is used of their metadata."""
    if names is not None:
        return named(client, "Namespace", names, keep=_bare)
    return {each["metadata"]["name"]: each for each in client.list(resources.path("Namespace"), keep=_bare)}


def _bare(obj):
    metadata = obj["metadata"]
    used = ("name", "uid", "resourceVersion", "labels", "annotations")
    return {"metadata": {name: metadata[name] for name in used if name in metadata}}


def blocks(client, api, cidrs):
    """The IPAMBlocks with these CIDRs, as far as they exist."""
    paths = [api.path("IPAMBlock", cidr_name(cidr)) for cidr in sorted(cidrs)] if api else []
    return [block for block in map(client.find, paths) if block]


def installation(client):
    """The Calico operator's Installation `default`, or None."""
    return client.find(f"{INSTALLATIONS}/default")


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
