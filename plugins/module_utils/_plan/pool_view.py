# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""A pool in the user's vocabulary and in Calico's, both with every default filled in.

A *view* is a dict with one key per option of `ip_pools`. Two pools are the same exactly when their views are equal.
"""

from __future__ import annotations

from .._core import names
from .._core.pool import ALLOWED_USES, AUTOMATIC, DEFAULT_BLOCK_SIZE, WORKLOAD
from . import ranges
from .ownership import label_texts

IMMUTABLE = ("cidr", "block_size")

# (option, field of the spec, default). What has no default here depends on other fields, see `_complete`.
_FIELDS = (
    ("cidr", "cidr", None),
    ("block_size", "blockSize", None),
    ("node_selector", "nodeSelector", "all()"),
    ("namespace_selector", "namespaceSelector", ""),
    ("nat_outgoing", "natOutgoing", False),
    ("ipip_mode", "ipipMode", "Never"),
    ("vxlan_mode", "vxlanMode", "Never"),
    ("disabled", "disabled", False),
    ("disable_bgp_export", "disableBGPExport", False),
    ("allowed_uses", "allowedUses", None),
    ("assignment_mode", "assignmentMode", AUTOMATIC),
)
OPTION_OF_FIELD = {spec_field: option for option, spec_field, _default in _FIELDS}
_DEFAULTS = {option: default for option, _spec_field, default in _FIELDS}
# Written even when they have their default value, because it is then seen by whoever looks at the object. All others
# are written only when they differ: an older Calico does not know all of them and would refuse the object.
_ALWAYS_WRITTEN = ("cidr", "block_size", "node_selector", "ipip_mode", "vxlan_mode", "nat_outgoing")


def declared(options):
    """The view of a pool as an item of option `pools` declares it; suboptions that are None get their defaults."""
    view = {option: options.get(option) for option, _spec_field, _default in _FIELDS}
    if not view["allowed_uses"] and view["namespace_selector"]:
        # Tunnels belong to no namespace: Calico refuses a pool for them that has a namespace selector.
        view["allowed_uses"] = [WORKLOAD]
    return _complete(options["name"], view, label_texts(options.get("labels")))


def stored(pool, label_keys=None):
    """The view of an IPPool object, with all of its labels, or with those of `label_keys` that it has."""
    view = {option: pool["spec"].get(spec_field) for option, spec_field, _default in _FIELDS}
    view["cidr"] = ranges.pool_network(pool) or view["cidr"]
    labels = dict(pool["metadata"].get("labels") or {})
    if label_keys is not None:
        labels = {key: value for key, value in labels.items() if key in label_keys}
    return _complete(pool["metadata"]["name"], view, labels)


def full_spec(view):
    """Every field of the spec, also those that are not written."""
    return {spec_field: view[option] for option, spec_field, _default in _FIELDS}


def spec(view):
    """The spec of a pool to create."""
    written = {}
    for option, spec_field, default in _FIELDS:
        value = view[option]
        if option == "allowed_uses":
            default = list(_default_uses())
        if option in _ALWAYS_WRITTEN or value != default:
            written[spec_field] = value
    return written


def spec_changes(before, after):
    """What a merge patch of the spec has to contain to turn one view into the other."""
    return {field: after[option] for option, field, _default in _FIELDS if before[option] != after[option]}


def _complete(name, view, labels):
    for option, default in _DEFAULTS.items():
        if not view[option]:
            view[option] = default
    try:
        view["cidr"] = names.canonical_cidr(view["cidr"])
        view["block_size"] = view["block_size"] or DEFAULT_BLOCK_SIZE[6 if ":" in view["cidr"] else 4]
    except (ValueError, TypeError):
        pass  # left as it is for validation to name it
    uses = view["allowed_uses"] or _default_uses()
    view["allowed_uses"] = sorted(
        set(uses), key=lambda use: (ALLOWED_USES.index(use) if use in ALLOWED_USES else -1, use)
    )
    return {"name": name, **view, "labels": labels}


def _default_uses():
    return (WORKLOAD, "Tunnel")
