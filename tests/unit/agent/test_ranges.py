# SPDX-License-Identifier: Apache-2.0
"""Ranges of addresses in a network configuration, as the pools that they stand for."""

from __future__ import annotations

import ipaddress

import pytest
from podnet_ipam.agent.errors import INVALID_CONFIGURATION, CniError
from podnet_ipam.agent.ranges import Ranges, asked_ranges, configured_ranges

MAIN, SECOND, SIX = ({"subnet": cidr} for cidr in ("10.244.0.0/24", "10.245.0.0/24", "fd00:10:244::/64"))


@pytest.mark.parametrize(
    ("ends", "fits"),
    (
        ({}, True),
        ({"rangeStart": "10.244.0.0", "rangeEnd": "10.244.0.255"}, True),
        ({"rangeStart": "10.244.0.1", "rangeEnd": "10.244.0.254"}, True),
        ({"rangeStart": "10.244.0.2"}, False),
        ({"rangeEnd": "10.244.0.253"}, False),
    ),
    ids=str,
)
def test_a_range_stands_for_a_pool_when_it_leaves_out_the_first_and_the_last_address_at_most(ends, fits):
    plugin = {"ranges": [[{**MAIN, **ends}]]}
    if fits:
        assert configured_ranges(plugin) == Ranges({4: ["10.244.0.0/24"]})
    else:
        with pytest.raises(CniError, match=r"is a part of 10\.244\.0\.0/24 only, and pools are given out as a whole"):
            configured_ranges(plugin)


def test_sets_are_told_by_family_with_their_gateways():
    sets = [[{"subnet": "fd00:10:0244::/64"}], [MAIN, {**SECOND, "gateway": "10.245.0.1"}]]
    expected = Ranges(
        {6: ["fd00:10:244::/64"], 4: ["10.244.0.0/24", "10.245.0.0/24"]}, (ipaddress.ip_address("10.245.0.1"),)
    )
    assert asked_ranges({"runtimeConfig": {"ipRanges": sets}}) == configured_ranges({"ranges": sets}) == expected


@pytest.mark.parametrize("config", ({}, {"runtimeConfig": None}, {"runtimeConfig": {"ipRanges": []}}), ids=str)
def test_without_ranges_nothing_is_asked_for(config):
    assert asked_ranges(config) == Ranges()


@pytest.mark.parametrize(
    ("sets", "problem"),
    (
        ([[MAIN], [SECOND]], "there are two sets of IPv4, of which a pod gets one address"),
        ([[MAIN, SIX]], "the ranges of a set must be of one family"),
        ([[]], "there must be one at least"),
        ([MAIN], "a list of lists of objects with subnet is expected"),
        ([[{"gateway": "10.244.0.1"}]], "a list of lists of objects with subnet is expected"),
        (MAIN, "a list of lists of objects with subnet is expected"),
        (7, "a list of lists of objects with subnet is expected"),
        ([[{"subnet": "10.244.0.1/24"}]], "10.244.0.1/24 has host bits set"),
        ([[{**MAIN, "gateway": "gw"}]], "'gw' does not appear to be an IPv4 or IPv6 address"),
        ([[{**MAIN, "rangeEnd": "10.245.0.9"}]], "rangeStart and rangeEnd of 10.244.0.0/24 must lie in it"),
    ),
    ids=str,
)
def test_what_cannot_be_used_is_refused_with_key_value_and_reason(sets, problem):
    with pytest.raises(CniError) as refusal:
        configured_ranges({"ranges": sets})
    assert refusal.value.code == INVALID_CONFIGURATION
    assert str(refusal.value).startswith(f"ipam.ranges is {sets!r}: ") and problem in str(refusal.value)


def test_ranges_and_pools_of_one_family_are_not_configured_together():
    with pytest.raises(CniError, match=r"ipam\.ranges and ipam\.ipv4_pools both name pools for IPv4"):
        configured_ranges({"ranges": [[MAIN]], "ipv4_pools": ["second"]})
    assert configured_ranges({"ranges": [[MAIN]], "ipv6_pools": ["six"]}).pools == {4: ["10.244.0.0/24"]}
