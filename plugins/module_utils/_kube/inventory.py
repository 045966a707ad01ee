# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading what a whole cluster says about addresses, and holding of each object only what is used.

Ten thousand pods as they are served would fill 60 MB; kept like this they take a tenth.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from .._core import names
from . import resources
from .errors import NotFound

AT_ONCE = 8  # requests for single objects
_MANY = 500  # objects of one kind are read with a list instead
# The API server has the first page of a custom resource at hand, and decodes the others: ten times the work.
_PAGE, _CALICO_PAGE = 1_000, 10_000
_IDENTITY = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp")
_ASSIGNMENT = (*names.POOLS_ANNOTATIONS.values(), names.FAMILIES_ANNOTATION, names.ADDRESSES_ANNOTATION)
_POD_ANNOTATIONS = (
    *_ASSIGNMENT,
    names.POD_IP_ANNOTATION,
    names.POD_IPS_ANNOTATION,
    names.NETWORK_STATUS_ANNOTATION,
)
_POD_LABELS = ("pod-template-hash",)
_SERVED = ("Node", "Pod", "Namespace", "Service")


class Inventory:
    """Lists and single objects of a cluster. `api` is the API group of Calico's kinds, None when there is none."""

    def __init__(self, client, api):
        self._client = client
        self._api = api

    def pods(self):
        return self._list("Pod")

    def namespaces(self):
        return self._list("Namespace")

    def nodes(self):
        return self._list("Node")

    def load_balancers(self):
        """The Services of type LoadBalancer."""
        return [service for service in self._list("Service") if service["spec"].get("type") == "LoadBalancer"]

    def calico(self, kind, unserved=()):
        """All objects of one of Calico's kinds; `unserved` when the cluster does not serve it."""
        try:
            return self._list(kind) if self._api else unserved
        except NotFound:
            return unserved

    def records(self):
        """What Calico's IPAM has noted: `blocks`, `affinities` and `handles`, each a tuple of objects.

        Nothing where blocks are not served: claims and handles without them would seem to be of no use.
        """
        blocks = self.calico("IPAMBlock", unserved=None)
        if blocks is None:
            return {}
        return {
            "blocks": tuple(blocks),
            "affinities": tuple(self.calico("BlockAffinity")),
            "handles": tuple(self.calico("IPAMHandle")),
        }

    def again(self, keys):
        """Single objects, {(kind, namespace, name): the object, or None when it does not exist}."""
        by_kind = {}
        # By kind: blocks come before nodes and pods, so that whoever has got an address by then is seen.
        for key in sorted(keys, key=str):
            by_kind.setdefault(key[0], []).append(key)
        found = {}
        with ThreadPoolExecutor(AT_ONCE) as executor:
            for kind, several in by_kind.items():
                if len(several) > _MANY:
                    listed = {_key(kind, each): each for each in self._list(kind)}
                    found.update({key: listed.get(key) for key in several})
                else:
                    found.update(zip(several, executor.map(self._find, several)))
        return found

    def _find(self, key):
        kind, namespace, name = key
        path = resources.path(kind, name, namespace) if kind in _SERVED else self._api.path(kind, name)
        found = self._client.find(path)
        return found and _KEPT.get(kind, _calico)(found)

    def _list(self, kind):
        path, limit = (resources.path(kind), _PAGE) if kind in _SERVED else (self._api.path(kind), _CALICO_PAGE)
        return self._client.list(path, keep=_KEPT.get(kind, _calico), limit=limit)


def _key(kind, obj):
    return kind, obj["metadata"].get("namespace"), obj["metadata"]["name"]


def templates(client, kinds):
    """The workloads of these kinds, {kind: list}, with what their pod templates say about addresses."""
    return {kind: client.list(resources.path(kind), keep=_TEMPLATES.get(kind, _template)) for kind in kinds}


def _pod(obj):
    metadata, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
    kept = _metadata(metadata, _POD_ANNOTATIONS, _POD_LABELS)
    owner = _controller(obj)
    if owner:
        kept["ownerReferences"] = [owner]
    return {
        "metadata": kept,
        "spec": _some(spec, ("nodeName", "hostNetwork")),
        "status": _some(status, ("phase", "podIP", "podIPs")),
    }


def _namespace(obj):
    return {"metadata": _metadata(obj["metadata"], _ASSIGNMENT)}


def _node(obj):
    return {
        "metadata": _metadata(obj["metadata"], None),
        "status": _some(obj.get("status") or {}, ("addresses",)),
    }


def _service(obj):
    return {
        "metadata": _metadata(obj["metadata"], ()),
        "spec": _some(obj["spec"], ("type",)),
        "status": _some(obj.get("status") or {}, ("loadBalancer",)),
    }


def _calico(obj):
    """An object of Calico's with all that is written back with it: the API server keeps its own notes by itself."""
    return {"kind": obj["kind"], "metadata": _metadata(obj["metadata"], None), "spec": obj["spec"]}


def _metadata(metadata, annotations, labels=None):
    """What is used of an object's metadata; of annotations and labels those with these keys, all of them with None."""
    kept = _some(metadata, _IDENTITY)
    for field, keys in (("annotations", annotations), ("labels", labels)):
        found = metadata.get(field)
        if found and keys is not None:
            found = _some(found, keys)
        if found:
            kept[field] = found
    return kept


def _some(mapping, keys):
    return {key: mapping[key] for key in keys if key in mapping}


def _controller(obj):
    return _some(resources.controller(obj), ("kind", "name", "controller"))


_KEPT = {"Pod": _pod, "Namespace": _namespace, "Node": _node, "Service": _service}


def _workload(obj, spec):
    kept = _some(obj["metadata"], ("name", "namespace"))
    owner = _controller(obj)
    return {"metadata": {**kept, "ownerReferences": [owner]} if owner else kept, "spec": spec}


def _template(obj):
    return _workload(obj, {"template": _annotated(obj["spec"]["template"])})


def _cron_job(obj):
    template = _annotated(obj["spec"]["jobTemplate"]["spec"]["template"])
    return _workload(obj, {"jobTemplate": {"spec": {"template": template}}})


def _annotated(template):
    return {"metadata": _metadata(template.get("metadata") or {}, _ASSIGNMENT, ())}


_TEMPLATES = {"Pod": _pod, "CronJob": _cron_job}
