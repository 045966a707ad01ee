# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Calico's stored objects: in which API group they stand, under which path, and what their metadata looks like.

Source: Calico 3.29 to 3.32. A cluster serves them as `crd.projectcalico.org/v1` (the usual form), or as native
`projectcalico.org/v3` objects. Both have the same kinds but for the configuration, and differ in three ways that are
settled here: v1 repeats labels in an annotation, v1 keeps an affinity's `deleted` as a string, and the name of the
configuration's kind.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from .._core import names

_PLURALS = {
    "IPPool": "ippools",
    "IPAMBlock": "ipamblocks",
    "BlockAffinity": "blockaffinities",
    "IPAMHandle": "ipamhandles",
    "IPReservation": "ipreservations",
    "IPAMConfig": "ipamconfigs",
    "IPAMConfiguration": "ipamconfigurations",
    "ClusterInformation": "clusterinformations",
}
KINDS = tuple(_PLURALS)
METADATA_ANNOTATION = "projectcalico.org/metadata"
CONFIG_NAME = "default"


@dataclass(frozen=True)
class CalicoApi:
    """One of the two API groups, as `group/version`."""

    group_version: str

    @property
    def config_kind(self):
        return "IPAMConfig" if self is V1 else "IPAMConfiguration"

    def path(self, kind, name=None):
        """The URL path of a kind's collection, or of one object. All kinds are cluster-scoped."""
        collection = f"/apis/{self.group_version}/{_PLURALS[kind]}"
        return collection if name is None else f"{collection}/{name}"

    def new(self, kind, name, spec, labels=None):
        """An object to create."""
        metadata = {"name": name}
        if labels:
            metadata["labels"] = dict(labels)
        if self is V1:
            repeated = {"labels": dict(labels)} if labels else {}
            metadata["annotations"] = {METADATA_ANNOTATION: json.dumps(repeated, separators=(",", ":"))}
        return {"apiVersion": self.group_version, "kind": kind, "metadata": metadata, "spec": spec}

    def new_affinity(self, node, cidr, state):
        """A node's claim on a block, in `state` pending or confirmed."""
        spec = {"state": state, "node": node, "type": "host", "cidr": cidr, "deleted": self.affinity_deleted(False)}
        labels = names.affinity_labels(node, cidr)
        return self.new("BlockAffinity", names.affinity_name(node, cidr), spec, labels)

    def affinity_deleted(self, deleted):
        """The value of an affinity's `spec.deleted`: a string in v1, a boolean in v3."""
        return str(deleted).lower() if self is V1 else deleted

    def changed(self, obj, spec):
        """`obj` with another spec, to be written under compare-and-swap: everything else stays as it was read."""
        return {**obj, "apiVersion": self.group_version, "spec": spec}


V1 = CalicoApi("crd.projectcalico.org/v1")
V3 = CalicoApi("projectcalico.org/v3")
