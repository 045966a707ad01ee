# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Carry out planned operations: the only place where modules write."""

from __future__ import annotations

import json

from . import resources, rollout
from .calico import KINDS as CALICO_KINDS
from .calico import METADATA_ANNOTATION, V1
from .errors import ApiError, Conflict

_SOFT_DELETED = ("IPAMBlock", "BlockAffinity", "IPAMHandle")


def apply(operation, observed, writer, api):
    """One write; the object as it was stored, or as it was before a delete.

    `observed` is the object that a patch, a replace or a delete applies to, in the version that was read last.
    Conflict when it changed since, NotFound when it is gone: the caller reads and plans again.
    """
    return _VERBS[operation.verb](operation, observed, writer, api)


def _create(operation, _observed, writer, api):
    if operation.kind in CALICO_KINDS:
        kind, spec = _stored_kind(operation.kind, api), operation.body["spec"]
        if kind == "BlockAffinity":
            spec = {**spec, "deleted": api.affinity_deleted(False)}
        body = api.new(kind, operation.name, spec, operation.body.get("labels"))
        return writer.create(api.path(kind), body)
    return writer.create(resources.path(operation.kind, namespace=operation.namespace), operation.body)


def _patch(operation, observed, writer, api):
    calico = operation.kind in CALICO_KINDS
    body = _calico_patch(operation, observed, api) if calico else operation.body
    # A pool must be the very version that was judged. Of other kinds only own annotations are touched, while their
    # controllers write status all the time: there it is enough that it is the same object.
    guard = "resourceVersion" if calico else "uid"
    body = {**body, "metadata": {**body.get("metadata", {}), guard: observed["metadata"][guard]}}
    try:
        return writer.patch(_path(operation, api), body)
    except ApiError as error:
        raise _as_conflict(error) from None


def _as_conflict(error):
    """What an API server says of a patch for another uid is that the uid cannot be changed: 422, and no conflict."""
    if error.status != 422 or "metadata.uid" not in error.message:
        return error
    conflict = Conflict(error.method, error.path, error.status, error.reason, error.message)
    conflict.origin = error.origin
    return conflict


def _replace(operation, observed, writer, api):
    """Another spec for one of Calico's objects, under compare-and-swap."""
    return writer.replace(_path(operation, api), api.changed(observed, operation.body["spec"]))


def _delete(operation, observed, writer, api):
    """Blocks, affinities and handles are first marked as deleted: the moment that counts for Calico's readers."""
    path, metadata = _path(operation, api), observed["metadata"]
    if operation.kind not in _SOFT_DELETED:
        writer.delete(path, metadata["uid"], metadata["resourceVersion"])
        return observed
    deleted = api.affinity_deleted(True) if operation.kind == "BlockAffinity" else True
    marked = writer.replace(path, api.changed(observed, {**observed["spec"], "deleted": deleted}))
    writer.delete(path, marked["metadata"]["uid"])
    return marked


def _evict(operation, observed, writer, api):
    """`body` says for how long (`timeout`) and how often (`sleep`) to try what a disruption budget forbids."""
    rollout.evict(writer, _path(operation, api), observed, **operation.body)
    return observed


_VERBS = {
    "create": _create,
    "patch": _patch,
    "restart": _patch,  # of a pod template by an annotation; another name, because the user sees it
    "replace": _replace,
    "delete": _delete,
    "evict": _evict,
}


def _path(operation, api):
    if operation.kind in CALICO_KINDS:
        return api.path(_stored_kind(operation.kind, api), operation.name)
    return resources.path(operation.kind, operation.name, operation.namespace)


def _stored_kind(kind, api):
    """The configuration is planned as IPAMConfig, whatever the API group calls it."""
    return api.config_kind if kind == "IPAMConfig" else kind


def _calico_patch(operation, observed, api):
    patch = {"spec": operation.body["spec"]} if operation.body.get("spec") else {}
    labels = operation.body.get("labels")
    if labels:
        patch["metadata"] = {"labels": labels}
        if api is V1:
            patch["metadata"]["annotations"] = {METADATA_ANNOTATION: _repeated(observed, labels)}
    return patch


def _repeated(observed, labels):
    """The v1 metadata annotation with `labels` added: Calico takes its word over that of the real labels."""
    stored = (observed["metadata"].get("annotations") or {}).get(METADATA_ANNOTATION) or "{}"
    try:
        metadata = json.loads(stored)
    except ValueError:
        metadata = {}
    merged = {**(observed["metadata"].get("labels") or {}), **labels}
    return json.dumps({**metadata, "labels": merged}, separators=(",", ":"))
