# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The types of what a network configuration may say, as far as this plugin reads it.

Source: the CNI specification, its conventions (`runtimeConfig`, `args`), and calico-ipam's keys. Keys of others are not
looked at, nor are those that result.py checks with what they mean.
"""

from __future__ import annotations

import msgspec

from .errors import INVALID_CONFIGURATION, CniError

POD_ANNOTATIONS = "io.kubernetes.cri.pod-annotations"


class _Plugin(msgspec.Struct):
    type: str | None = None
    ipv4_pools: list[str] | None = None
    ipv6_pools: list[str] | None = None


class _RuntimeConfig(msgspec.Struct):
    ips: list[str] | None = None
    annotations: dict[str, str] | None = msgspec.field(default=None, name=POD_ANNOTATIONS)


class _Cni(msgspec.Struct):
    ips: list[str] | None = None


class _Args(msgspec.Struct):
    cni: _Cni | None = None


class _Address(msgspec.Struct):
    address: str


class _Result(msgspec.Struct):
    ips: list[_Address] | None = None


class _NetworkConfig(msgspec.Struct):
    ipam: _Plugin | None = None
    runtimeConfig: _RuntimeConfig | None = None
    args: _Args | None = None
    prevResult: _Result | None = None


def check_types(config: dict) -> None:
    """CniError when a value has another type than this plugin can read; it names the key and what is expected."""
    try:
        msgspec.convert(config, _NetworkConfig)
    except msgspec.ValidationError as error:
        raise CniError(INVALID_CONFIGURATION, f"the network configuration cannot be used: {error}") from None
