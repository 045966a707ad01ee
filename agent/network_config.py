# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The types of what a network configuration may say, as far as this plugin reads it.

Source: the CNI specification, its conventions (`runtimeConfig`, `args`), and calico-ipam's keys. Keys of others are not
looked at, nor are those that result.py checks with what they mean.
"""

from __future__ import annotations

from . import schema
from .errors import INVALID_CONFIGURATION, CniError

POD_ANNOTATIONS = "io.kubernetes.cri.pod-annotations"

_SCHEMA = {
    "ipam": {"type": str, "ipv4_pools": [str], "ipv6_pools": [str]},
    "runtimeConfig": {"ips": [str], POD_ANNOTATIONS: {str: str}},
    "args": {"cni": {"ips": [str]}},
    "prevResult": {"ips": [{"address": str}]},
}


def check_types(config: dict) -> None:
    """CniError when a value has another type than this plugin can read; it names the key and what is expected."""
    try:
        schema.check(config, _SCHEMA)
    except ValueError as error:
        raise CniError(INVALID_CONFIGURATION, f"the network configuration cannot be used: {error}") from None
