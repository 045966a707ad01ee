# SPDX-License-Identifier: Apache-2.0
"""Which running pods have addresses that their assignment would not give them. No API server."""

from __future__ import annotations

import ipaddress

import pytest
from ansible_collections.podnet.ipam.plugins.module_utils._plan import assignments, staleness
from hypothesis import given
from hypothesis import strategies as st

V4, V6 = "cni.projectcalico.org/ipv4pools", "cni.projectcalico.org/ipv6pools"
FAMILIES, ADDRS = "cni.projectcalico.org/ipFamilies", "cni.projectcalico.org/ipAddrs"
POOLS = assignments.readable(
    {
        name: {"metadata": {"name": name}, "spec": {"cidr": cidr}}
        for name, cidr in (("a", "10.244.0.0/17"), ("b", "10.244.128.0/17"), ("six", "fd00:10:244::/64"))
    }
)


def pod(name, *addresses, **others):
    status = {"phase": "Running", "podIPs": [{"ip": address} for address in addresses]}
    return {"metadata": {"name": name}, "spec": {}, "status": status, **others}


def verdict(annotations, addresses, namespace=None):
    allowed = staleness.allowed(POOLS, annotations, namespace)
    return staleness.outside([ipaddress.ip_address(address) for address in addresses], allowed)


@pytest.mark.parametrize(
    ("annotations", "stale"),
    [
        ({V4: '["a"]'}, ["10.244.200.1"]),
        ({V4: '["a","b"]'}, []),
        ({V4: '["10.244.128.0/17"]', V6: '["six"]'}, ["fd00:99::1"]),
        ({}, []),
        ({FAMILIES: '["IPv6"]'}, ["10.244.200.1"]),
        ({ADDRS: '["10.244.200.1"]'}, ["fd00:99::1"]),
        ({ADDRS: '["10.244.200.2","fd00:99:0::1"]'}, ["10.244.200.1"]),
        ({ADDRS: '["10.244.200.1","fd00:99::1"]', V4: '["a"]', FAMILIES: '["IPv4"]'}, []),
    ],
)
def test_an_address_is_stale_when_the_assignment_would_not_give_it(annotations, stale):
    assert verdict(annotations, ["10.244.200.1", "fd00:99::1"])[0] == stale


def test_a_pod_that_lacks_an_address_of_a_wanted_family_is_stale():
    assert verdict({FAMILIES: '["IPv4","IPv6"]'}, ["10.244.0.1"]) == ([], ["it has no IPv6 address"])
    assert verdict({ADDRS: '["10.244.0.1","fd00:10:244::1"]'}, ["10.244.0.1"]) == ([], ["it has no IPv6 address"])
    assert verdict({FAMILIES: '["IPv4","IPv6"]'}, []) == ([], [])


def test_reasons_name_what_would_be_right():
    assert verdict({V4: '["a","b"]'}, ["10.9.9.9"])[1] == ["10.9.9.9 is not from a or b"]
    assert verdict({FAMILIES: '["IPv6"]'}, ["10.9.9.9", "fd00::1"])[1] == ["10.9.9.9 is IPv4, and only IPv6 is wanted"]
    assert verdict({ADDRS: '["10.244.0.1"]'}, ["10.244.0.2"])[1] == ["10.244.0.2 is not from 10.244.0.1"]


@pytest.mark.parametrize(
    ("own", "stale"),
    [({}, True), ({V4: ""}, True), ({V4: "null"}, False), ({V4: "[]"}, False), ({V4: '["b"]'}, False)],
)
def test_a_namespace_decides_where_the_pod_says_nothing(own, stale):
    assert bool(verdict(own, ["10.244.200.1"], {V4: '["a"]'})[1]) is stale


@pytest.mark.parametrize(
    "annotations", [{V4: "a"}, {V4: '["gone"]'}, {FAMILIES: '["IPv5"]'}, {ADDRS: '["10.244.0.1', V4: '["a"]'}]
)
def test_an_assignment_that_nothing_can_honour_makes_no_pod_stale(annotations):
    assert verdict(annotations, ["10.244.200.1"]) == ([], [])


def test_finished_leaving_and_host_network_pods_are_never_stale():
    pods = [
        pod("done", "10.9.9.9", status={"phase": "Succeeded", "podIPs": [{"ip": "10.9.9.9"}]}),
        pod("leaving", "10.9.9.9", metadata={"name": "leaving", "deletionTimestamp": "2026-01-01T00:00:00Z"}),
        pod("host", "10.9.9.9", spec={"hostNetwork": True}),
        pod("waiting"),
    ]
    assert staleness.stale_pods(pods, staleness.allowed(POOLS, {V4: '["a"]'})) == []
    [(found, addresses, _reasons)] = staleness.stale_pods(
        [pod("p", "10.9.9.9")], staleness.allowed(POOLS, {V4: '["a"]'})
    )
    assert (found["metadata"]["name"], addresses) == ("p", ["10.9.9.9"])


@given(st.lists(st.sampled_from(["a", "b"]), min_size=1, unique=True), st.ip_addresses(v=4))
def test_an_address_is_stale_exactly_when_no_listed_pool_contains_it(names, address):
    text = "[" + ",".join(f'"{name}"' for name in names) + "]"
    inside = any(POOLS[name].contains(str(address)) for name in names)
    assert bool(verdict({V4: text}, [str(address)])[0]) is not inside
