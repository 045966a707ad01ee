# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Names and keys of Calico's objects, labels and annotations.

Source: Calico 3.29 to 3.32, Kubernetes datastore. Everything that two programs must spell alike is spelled here once.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
from functools import lru_cache

# What a pod is to get.
POOLS_ANNOTATIONS = {4: "cni.projectcalico.org/ipv4pools", 6: "cni.projectcalico.org/ipv6pools"}
FAMILIES_ANNOTATION = "cni.projectcalico.org/ipFamilies"
ADDRESSES_ANNOTATION = "cni.projectcalico.org/ipAddrs"
# Those that count on its namespace, too.
NAMESPACE_ANNOTATIONS = (*POOLS_ANNOTATIONS.values(), FAMILIES_ANNOTATION)
# How long a freed address is kept for the pod of the same name, e.g. `10m`; of this collection.
STICKY_ANNOTATION = "ipam.podnet.io/sticky"
# What a pod has got: written by Calico's CNI plugin, and by Multus.
POD_IP_ANNOTATION, POD_IPS_ANNOTATION = "cni.projectcalico.org/podIP", "cni.projectcalico.org/podIPs"
NETWORK_STATUS_ANNOTATION = "k8s.v1.cni.cncf.io/network-status"

# The label of what this collection creates.
OWNER_LABEL, OWNER = "app.kubernetes.io/managed-by", "podnet.ipam"

# Kubernetes' names of objects: DNS subdomains, of 253 characters at most.
OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")

LABEL_HOSTNAME_HASH = "projectcalico.org/hostname-hash"
LABEL_AFFINITY_TYPE = "projectcalico.org/affinity-type"
LABEL_IP_VERSION = "projectcalico.org/ip-version"

# Calico keeps affinity names below the 253 characters of a Kubernetes name by cutting the node name and adding
# the first hex digits of a hash.
_LONGEST_NAME = 253
_HASH_DIGITS = 11


@lru_cache(maxsize=16384)  # a declaration of a thousand pools asks for each of its networks many times
def network(text, strict=True):
    """The `ipaddress` network of a text. ValueError when it is none, names a zone or, if `strict`, has host bits."""
    found = ipaddress.ip_network(text, strict)
    if getattr(found.network_address, "scope_id", None):
        raise ValueError(f"{text!r} names a zone, which only an address on a link can have")
    return found


def canonical_cidr(text):
    """The canonical text of a network, e.g. `fd00:10:244::/122`. ValueError when `text` is none or has host bits."""
    return str(network(text))


def cidr_name(cidr):
    """The object name of a block: `10.244.1.0/26` is `10-244-1-0-26`."""
    return cidr.replace(".", "-").replace(":", "-").replace("/", "-")


def affinity_name(node, cidr):
    """The object name of a node's claim on a block."""
    block = cidr_name(cidr)
    name = f"{node}-{block}"
    if len(name) < _LONGEST_NAME:
        return name
    digest = hashlib.sha256(f"{node}+{block}".encode()).hexdigest()[:_HASH_DIGITS]
    kept = _LONGEST_NAME - 1 - len(block) - (_HASH_DIGITS + 2)
    return f"{node[:kept]}-{block}-{digest}"


def affinity_labels(node, cidr):
    """The labels by which Calico 3.31 and newer finds a node's affinities; one without them is invisible to it."""
    return {
        LABEL_HOSTNAME_HASH: hostname_hash(node),
        LABEL_AFFINITY_TYPE: "host",
        LABEL_IP_VERSION: "6" if ":" in cidr else "4",
    }


def hostname_hash(node):
    """Base32 without padding of SHA3-256 of the node name, 52 characters: fits a label value whatever the name."""
    return base64.b32encode(hashlib.sha3_256(node.encode()).digest()).decode().rstrip("=")


def host_affinity(node):
    """The value of a block's `spec.affinity` for a node."""
    return f"host:{node}"


def handle_id(network, container_id):
    """The owner of an attachment's addresses, both families together."""
    return f"{network}.{container_id}"


def handle_name(handle):
    """The object name of a handle. `spec.handleID` keeps the case, the name does not."""
    return handle.lower()


def spare_handle(node):
    """The owner of the addresses that keep a node's spare blocks its own, one of each; of this collection."""
    return f"podnet-ipam-spare-{node}"


def is_deleted(obj):
    """Whether an object is soft-deleted, which readers treat as absent. Understands both forms of `deleted`."""
    return obj["spec"].get("deleted") in (True, "true")
