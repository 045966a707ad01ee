# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""A Lease (coordination.k8s.io/v1), by which one of several does what they must not do at the same time.

Whoever holds it renews it. It is anybody's when it has not been renewed for its duration, or when the process that it
was taken for has ended, which only the machine of that process can tell. All times are those of the API server, as the
clocks of those who want the Lease may differ.
"""

from __future__ import annotations

import getpass
import os
import socket
from contextlib import suppress
from datetime import datetime, timedelta, timezone

from .errors import AlreadyExists, Conflict, NotFound

ATTEMPTS = 5
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
_PROCESS = "ipam.podnet.io/process"
_MICRO_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


class Held(Exception):
    """Somebody else has the Lease: the text says who, for how long, and what can be done."""


class Lease:
    """The Lease `namespace`/`name`, for a holder who is described by a text and perhaps works in a process.

    `process` is its id on this machine; 0 where there is none, or where it is not known.
    """

    def __init__(self, client, namespace, name, holder, process=0):
        self._client = client
        self._namespace, self._name = namespace, name
        self._collection = _LEASES.format(namespace)
        self._path = f"{self._collection}/{name}"
        self._holder = f"{holder}, process {process}" if process else holder
        self._process = identity(process) if process else ""

    def take(self, seconds, only_look=False):
        """Take or renew it for so many seconds, and return the verb of what was, or would be, written. Held when
        somebody else has it.
        """
        for attempt in range(ATTEMPTS):
            try:
                return self._take(seconds, only_look)
            except (AlreadyExists, Conflict, NotFound):
                # Somebody else was faster. Who, and whether that is over already, is what the next attempt finds.
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("not reached")

    def _take(self, seconds, only_look):
        found = self._client.find(self._path)
        now = self._client.server_time
        spec = {
            "holderIdentity": self._holder,
            "leaseDurationSeconds": seconds,
            "acquireTime": now.strftime(_MICRO_TIME),
            "renewTime": now.strftime(_MICRO_TIME),
        }
        if found is None:
            if not only_look:
                body = {"metadata": self._metadata(), "spec": spec}
                self._client.create(self._collection, {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **body})
            return "create"
        if self._is_ours(found):
            spec["acquireTime"] = _spec(found).get("acquireTime") or spec["acquireTime"]
        elif not _is_free(found, now):
            raise Held(self._told(found, now))
        if not only_look:
            version = {key: found["metadata"][key] for key in ("uid", "resourceVersion")}
            body = {"metadata": {**self._metadata(), **version}, "spec": spec}
            self._client.replace(self._path, {**found, **body})
        return "replace"

    def release(self, only_look=False):
        """Delete it if it is ours; whether it was."""
        found = self._client.find(self._path)
        if found is None or not self._is_ours(found):
            return False
        if not only_look:
            with suppress(Conflict, NotFound):  # it has lapsed meanwhile, and is another one's
                self._client.delete(self._path, found["metadata"]["uid"], found["metadata"]["resourceVersion"])
        return True

    def _metadata(self):
        labels = {"app.kubernetes.io/managed-by": "podnet.ipam"}
        return {"name": self._name, "labels": labels, "annotations": {_PROCESS: self._process}}

    def _is_ours(self, found):
        return (_spec(found).get("holderIdentity"), _process_of(found)) == (self._holder, self._process)

    def _told(self, found, now):
        taken = _time(_spec(found).get("acquireTime") or found["metadata"]["creationTimestamp"])
        lapse = _lapse(found)
        return (
            f"Lease {self._namespace}/{self._name} is held by {_spec(found)['holderIdentity']} since {_short(taken)}."
            f" Unless it is renewed, it lapses at {_short(lapse)}, in {(lapse - now).total_seconds():.0f} s."
            " Wait until its holder has ended. If that one was broken off, wait until it lapses, or delete it:"
            f" kubectl --namespace {self._namespace} delete lease {self._name}"
        )


def default_holder():
    """Who this is, for people: user and machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as containers have them
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def identity(process):
    """What no other process has, on whichever machine: this start of the machine, the process's namespace, and its id.

    Empty where that cannot be told, as on another system than Linux.
    """
    where = _here()
    return f"{where}/{process}" if where else ""


def _here():
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _has_ended(process):
    """Whether the process of this identity is known to have ended: it was one of this machine."""
    where, _slash, number = process.rpartition("/")
    if not where or where != _here():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is another user's
        pass
    return False


def _spec(found):
    return found.get("spec") or {}


def _process_of(found):
    return (found["metadata"].get("annotations") or {}).get(_PROCESS, "")


def _is_free(found, now):
    return not _spec(found).get("holderIdentity") or _lapse(found) <= now or _has_ended(_process_of(found))


def _lapse(found):
    """When it lapses. One that says nothing of it, which is not ours, has lapsed."""
    renewed = _spec(found).get("renewTime") or found["metadata"]["creationTimestamp"]
    return _time(renewed) + timedelta(seconds=_spec(found).get("leaseDurationSeconds") or 0)


def _time(text):
    # Python 3.9 knows no Z.
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _short(moment):
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
