# SPDX-License-Identifier: Apache-2.0
"""Looking up addresses among networks gives what trying every network would give."""

from __future__ import annotations

import ipaddress

from ansible_collections.podnet.ipam.plugins.module_utils._plan import address_index
from hypothesis import given
from hypothesis import strategies as st


def network(version):
    bits = 32 if version == 4 else 128
    top = ipaddress.ip_address("10.0.0.0" if version == 4 else "fd00::")
    size = st.integers(bits - 8, bits)
    return st.builds(
        lambda offset, prefix: ipaddress.ip_network(f"{top + offset}/{prefix}", strict=False), st.integers(0, 255), size
    )


networks = st.lists(network(4) | network(6), max_size=12, unique=True)
bases = st.sampled_from([ipaddress.ip_address("10.0.0.0"), ipaddress.ip_address("fd00::")])
addresses = st.builds(lambda base, offset: base + offset, bases, st.integers(0, 255))


def containing(candidates, address):
    return [each for each in candidates if each.version == address.version and address in each]


@given(networks, addresses)
def test_the_smallest_network_with_an_address_is_found(candidates, address):
    index = address_index.AddressIndex([(each, each) for each in candidates])
    expected = max(containing(candidates, address), key=lambda each: each.prefixlen, default=None)
    assert index.find(address_index.number(address)) == expected


@given(networks, network(4) | network(6))
def test_the_smallest_network_around_a_network_is_found(candidates, inner):
    index = address_index.AddressIndex([(each, each) for each in candidates])
    around = [each for each in candidates if each.version == inner.version and inner.subnet_of(each)]
    assert index.find_network(inner) == max(around, key=lambda each: each.prefixlen, default=None)


@given(networks, addresses, network(4) | network(6))
def test_a_set_of_ranges_knows_and_counts_its_addresses(members, address, window):
    ranges = address_index.Ranges(members)
    assert (address_index.number(address) in ranges) == bool(containing(members, address))
    expected = sum(bool(containing(members, each)) for each in window)
    assert ranges.count(*address_index.bounds(window)) == expected


def test_numbers_keep_the_families_apart_and_lead_back_to_addresses():
    for text in ("0.0.0.0", "255.255.255.255", "::", "::1", "fd00::10", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"):
        value = address_index.number(ipaddress.ip_address(text))
        assert address_index.address_of(value) == text
    assert address_index.number(ipaddress.ip_address("::1")) != address_index.number(ipaddress.ip_address("0.0.0.1"))
