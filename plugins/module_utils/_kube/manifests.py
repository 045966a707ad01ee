# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Objects of any kind, declared whole, brought to the API server by server-side apply.

The field manager is the collection: fields that a former declaration had and the present one has not are removed, and
what others have set beside ours stays. Check mode asks the API server for a dry run, so validation and defaults count.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from .._core.names import OWNER, OWNER_LABEL
from .client import Writer
from .content import merged
from .errors import NotFound, Unreachable

_POLL_SECONDS = 0.2
_SEGMENT = re.compile(r"(?!\.{1,2}$)[^/%?#]+")  # of a path; what else a name may be depends on the kind
# What a Secret holds, and where kubectl repeats it.
_SECRET = ("data", "stringData")
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
# Bookkeeping of the API server: it differs between a dry run and the write, and nobody declares it.
_NOISE = ("managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink")


@dataclass(frozen=True)
class Outcome:
    """What became of one manifest. `before` is None when the object is new, `after` when it is no more.

    `guess` says why `after` is a prediction of ours and not the API server's word; usually it is empty.
    """

    before: dict | None
    after: dict | None
    guess: str = ""

    @property
    def changed(self):
        return comparable(self.before) != comparable(self.after)

    @property
    def object(self):
        """The object as it is, or else as it was; None when there was and is none."""
        return self.after or self.before


def problems(manifest):
    """What a manifest lacks to be one."""
    named = manifest if isinstance(manifest.get("metadata"), dict) else {}
    told = {key: manifest[key] for key in ("apiVersion", "kind", "metadata") if key in manifest}
    shown = f"manifest {told!r:.200}"  # the rest may be secret
    for key, value in (
        ("apiVersion", manifest.get("apiVersion")),
        ("kind", manifest.get("kind")),
        ("metadata.name", named and named["metadata"].get("name")),
    ):
        if not value or not isinstance(value, str):
            yield f"{key} of {shown} must be a text that is not empty"
    for key in ("name", "namespace"):
        value = named and named["metadata"].get(key)
        if value and not _SEGMENT.fullmatch(str(value)):
            yield f"metadata.{key} {value!r} of {shown} is no name: it must not be '.' or '..', nor have one of /%?#"


class Progress:
    """The outcomes so far, and a module's result when that is all of them or when the next one failed."""

    def __init__(self):
        self.outcomes = []

    def result(self, with_diff):
        changed = [outcome for outcome in self.outcomes if outcome.changed]
        diff = {
            "before": {title(each.object): presentable(each.before) for each in changed if each.before is not None},
            "after": {title(each.object): presentable(each.after) for each in changed if each.after is not None},
        }
        resources = [_without_secrets(outcome.after) for outcome in self.outcomes if outcome.after is not None]
        return {**self.failure(), "resources": resources, **({"diff": diff} if with_diff else {})}

    def failure(self):
        operations = [_describe(outcome) for outcome in self.outcomes if outcome.changed]
        return {"changed": bool(operations), "operations": operations}


def _describe(outcome):
    metadata = outcome.object["metadata"]
    named = {key: metadata[key] for key in ("namespace", "name") if metadata.get(key)}
    verb = "create" if outcome.before is None else "delete" if outcome.after is None else "patch"
    return {"verb": verb, "kind": outcome.object["kind"], **named}


def bring_about(applier, manifest, state, overwrite, wait_seconds):
    """Bring one manifest about; the Outcome.

    `state` present: server-side apply, unless the object exists and `overwrite` (always, owned, never) forbids it.
    `state` absent: deletion under the same condition. `state` patched: a merge patch of an object that must exist.
    NotFound, ApiError, Unreachable.
    """
    try:
        path = applier.path(manifest)
        before = applier.find(path)
        if state == "patched":
            return Outcome(before, _patch(applier, path, manifest, before))
        if before is not None and (overwrite == "never" or (overwrite == "owned" and not is_ours(before))):
            return Outcome(before, before)
        if state == "absent":
            return Outcome(before, _delete(applier, path, before, wait_seconds))
        after = applier.apply(path, manifest)
    except NotFound as error:
        if state == "absent":  # not even its kind exists, or someone else was faster
            return Outcome(None, None)
        if state == "patched" or not applier.dry_run:
            raise
        # What this object needs would be made earlier in the same run: its namespace, or its kind.
        guess = f"{title(manifest)} would be created; this could not be checked: {error.message}"
        return Outcome(None, manifest, guess)
    return Outcome(before, after if applier.dry_run else wait_until_ready(applier, path, after, wait_seconds))


def _patch(applier, path, manifest, before):
    if before is None:
        raise applier.missing("PATCH", path, f"{title(manifest)} does not exist")
    return before if merged(before, manifest) == before else applier.merge(path, manifest)


def _delete(applier, path, before, wait_seconds):
    if before is not None and not applier.dry_run:
        applier.delete(path, before["metadata"]["uid"])
        wait_until_gone(applier, path, before, wait_seconds)


class Applier(Writer):
    """Applies objects; with `dry_run` the API server only says what would come of it."""

    def __init__(self, connection, dry_run):
        super().__init__(connection)
        self._options = {"fieldManager": OWNER, "fieldValidation": "Strict", **({"dryRun": "All"} if dry_run else {})}
        self._served = {}
        self.dry_run = dry_run

    def path(self, manifest):
        """The URL path of a manifest's object. NotFound when the cluster does not serve its kind."""
        group_version, kind, metadata = manifest["apiVersion"], manifest["kind"], manifest["metadata"]
        prefix = f"/apis/{group_version}" if "/" in group_version else f"/api/{group_version}"
        if prefix not in self._served:
            found = self.find(prefix)
            if found is None:
                message = f"the cluster does not serve {group_version}, of which {title(manifest)} is"
                raise self.missing("GET", prefix, message)
            self._served[prefix] = {each["kind"]: each for each in _objects(found["resources"])}
        if kind not in self._served[prefix]:
            raise self.missing("GET", prefix, f"{group_version} has no kind {kind}")
        resource = self._served[prefix][kind]
        within = f"/namespaces/{metadata.get('namespace') or 'default'}" if resource["namespaced"] else ""
        return f"{prefix}{within}/{resource['name']}/{metadata['name']}"

    def apply(self, path, manifest):
        """The object as it is after the manifest was applied. Who else set one of its fields loses it."""
        query = {**self._options, "force": "true"}
        return self._request("PATCH", path, query, manifest, "application/apply-patch+yaml")

    def merge(self, path, manifest):
        """The object after a JSON merge patch. NotFound when there is none: unlike `apply`, this never creates one."""
        return self._request("PATCH", path, self._options, manifest, "application/merge-patch+json")

    def missing(self, method, path, message):
        """The error for what the API server did not have to be asked about."""
        error = NotFound(method, path, 404, "NotFound", message)
        error.origin = self.origin
        return error


def is_ours(obj):
    """Whether this collection made the object."""
    return (obj["metadata"].get("labels") or {}).get(OWNER_LABEL) == OWNER


def is_ready(obj):
    """Whether what the cluster adds to a new object by itself is there; objects that get nothing are ready."""
    if obj["kind"] == "CustomResourceDefinition":
        conditions = (obj.get("status") or {}).get("conditions") or ()
        return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)
    return True


def wait_until_ready(client, path, obj, seconds):
    """The object once it is ready. Unreachable when whatever makes it so has not done it after `seconds`."""
    give_up = time.monotonic() + seconds
    while not is_ready(obj):
        if time.monotonic() > give_up:
            raise Unreachable(
                f"{title(obj)} was written to {client.origin}, but is not ready after {seconds} seconds:"
                " is the kube-controller-manager running?"
            )
        time.sleep(_POLL_SECONDS)
        obj = client.get(path)
    return obj


def wait_until_gone(client, path, obj, seconds):
    """Wait for what holds a deletion up: a namespace's contents, finalizers. Unreachable when it lasts longer."""
    give_up = time.monotonic() + seconds
    while (left := client.find(path)) is not None and left["metadata"]["uid"] == obj["metadata"]["uid"]:
        if time.monotonic() > give_up:
            finalizers = left["metadata"].get("finalizers") or left.get("spec", {}).get("finalizers") or ()
            raise Unreachable(
                f"{title(obj)} was deleted from {client.origin}, but is still there after {seconds} seconds"
                + (f": it waits for {', '.join(finalizers)}" if finalizers else "")
            )
        time.sleep(_POLL_SECONDS)


def comparable(obj):
    """An object without bookkeeping and status: what a change is judged by."""
    if obj is None:
        return {}
    metadata = {key: value for key, value in obj["metadata"].items() if key not in _NOISE}
    return {**{key: value for key, value in obj.items() if key != "status"}, "metadata": metadata}


def presentable(obj):
    """What a diff shows: what can change, without secrets."""
    return {} if obj is None else _without_secrets(comparable(obj))


def _without_secrets(obj):
    if obj["kind"] != "Secret":
        return obj
    metadata = dict(obj["metadata"])
    if metadata.get("annotations"):
        metadata["annotations"] = {key: text for key, text in metadata["annotations"].items() if key != _LAST_APPLIED}
    return {**{key: value for key, value in obj.items() if key not in _SECRET}, "metadata": metadata}


def title(manifest):
    """An object as messages name it: its kind, and its name with its namespace."""
    metadata = manifest["metadata"]
    namespace = metadata.get("namespace")
    return f"{manifest['kind']} {namespace + '/' if namespace else ''}{metadata['name']}"


def _objects(resources):
    """Of what a group serves, the objects' own kinds, without parts of them such as `nodes/status`."""
    return [each for each in resources if "/" not in each["name"]]
