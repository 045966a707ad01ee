# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ipaddress

import pytest
from ansible_collections.podnet.ipam.plugins.module_utils._core.carve import CarveError, FreeSpace, Part, carve
from hypothesis import given
from hypothesis import strategies as st

SPACES = ("10.244.0.0/16", "0.0.0.0/0", "10.244.3.0/28", "fd00:10:244::/56", "::/0")


def pieces(*sizes):
    """Parts a, b, c, ... of these prefix lengths."""
    return [Part(chr(ord("a") + index), prefix=size) for index, size in enumerate(sizes)]


def test_each_part_takes_the_first_aligned_gap_in_the_order_given():
    assert carve("10.244.0.0/16", pieces(24, 18, 20, 24)) == [
        "10.244.0.0/24",
        "10.244.64.0/18",
        "10.244.16.0/20",
        "10.244.1.0/24",
    ]


def test_a_part_may_be_the_whole_range():
    assert carve("10.244.0.0/16", pieces(16)) == ["10.244.0.0/16"]


def test_a_number_of_addresses_is_rounded_up_to_a_power_of_two():
    parts = [Part("one", addresses=1), Part("odd", addresses=257), Part("even", addresses=256)]
    assert carve("10.244.0.0/16", parts) == ["10.244.0.0/32", "10.244.2.0/23", "10.244.1.0/24"]


def test_ipv6_costs_what_ipv4_costs():
    parts = [Part(f"pool-{index}", prefix=122) for index in range(1000)]
    places = carve("fd00::/8", [Part("half", prefix=9), *parts])
    assert places[0] == "fd00::/9"
    assert places[1:3] == ["fd80::/122", "fd80::40/122"] and places[-1] == "fd80::f9c0/122"


def test_what_exists_stays_wherever_a_new_part_is_put_in_the_list():
    old = {"a": "10.244.0.0/18", "b": "10.244.64.0/20"}
    a, b, new = Part("a", prefix=18), Part("b", addresses=4000), Part("new", prefix=24)
    for parts in ([new, a, b], [a, new, b], [a, b, new], [b, new, a]):
        places = dict(zip((part.name for part in parts), carve("10.244.0.0/16", parts, old), strict=True))
        assert places == {**old, "new": "10.244.80.0/24"}


def test_the_place_of_an_existing_range_that_is_not_listed_counts_as_taken():
    existing = {"other": "10.244.0.0/17", "elsewhere": "10.99.0.0/16", "v6": "fd00::/64"}
    assert carve("10.244.0.0/16", pieces(18), existing) == ["10.244.128.0/18"]


@pytest.mark.parametrize(
    ("cidr", "parts", "existing", "message"),
    (
        ("10.244.0.1/16", [], {}, "the range to carve: '10.244.0.1/16' is not a CIDR without host bits, such as"),
        ("10.244.0.0/16", [], {"a": "10.244.0.1/18"}, "existing a: '10.244.0.1/18' is not a CIDR without host bits"),
        ("10.244.0.0/16", [Part("a")], {}, "a: one of prefix and addresses says its size, but neither is given"),
        (
            "10.244.0.0/16",
            [Part("a", prefix=20, addresses=9)],
            {},
            "a: one of prefix and addresses says its size, but both are given",
        ),
        ("10.244.0.0/16", pieces(15), {}, "a: prefix 15 is no size of a part of 10.244.0.0/16: 16 to 32 are"),
        ("10.244.0.0/16", pieces(33), {}, "a: prefix 33 is no size of a part of 10.244.0.0/16: 16 to 32 are"),
        ("fd00::/56", pieces(18), {}, "a: prefix 18 is no size of a part of fd00::/56: 56 to 128 are"),
        (
            "10.244.0.0/16",
            [Part("a", addresses=65537)],
            {},
            "a: addresses 65537 is no size of a part of 10.244.0.0/16: 1 to 65536 are",
        ),
        ("10.244.0.0/16", [Part("a", addresses=0)], {}, "a: addresses 0 is no size of a part of 10.244.0.0/16"),
        (
            "10.244.0.0/16",
            [*pieces(20), *pieces(20)],
            {},
            "a: it stands 2 times in the list; each name may stand once",
        ),
        (
            "10.244.0.0/16",
            pieces(17, 18, 17, 19),
            {},
            "c: no room for a /17 in 10.244.0.0/16, the largest gap is a /18",
        ),
        ("10.244.0.0/16", pieces(16, 32), {}, "b: no room for a /32 in 10.244.0.0/16, of which nothing is left"),
        (
            "10.244.0.0/16",
            pieces(18),
            {"default-ipv4-ippool": "10.244.0.0/16"},
            "of which nothing is left; what exists and is to go has to be left out of existing",
        ),
        (
            "10.244.0.0/16",
            pieces(18),
            {"a": "10.99.0.0/18"},
            "a: it exists as 10.99.0.0/18, which does not lie in 10.244.0.0/16",
        ),
        ("10.244.0.0/16", pieces(18), {"a": "fd00::/64"}, "a: it exists as fd00::/64, which does not lie in"),
        (
            "10.244.0.0/16",
            pieces(18),
            {"a": "10.244.0.0/20"},
            "a: it exists as 10.244.0.0/20, but prefix 18 is asked for; a pool cannot change its size",
        ),
        (
            "10.244.0.0/16",
            [Part("a", addresses=600)],
            {"a": "10.244.0.0/23"},
            "a: it exists as 10.244.0.0/23, but addresses 600, a /22, is asked for",
        ),
        (
            "10.244.0.0/16",
            pieces(18),
            {"a": "10.244.0.0/18", "z": "10.244.1.0/24"},
            "existing z (10.244.1.0/24) overlaps existing a (10.244.0.0/18)",
        ),
    ),
)
def test_what_cannot_be_had_is_named_with_what_would_be_right(cidr, parts, existing, message):
    with pytest.raises(CarveError) as caught:
        carve(cidr, parts, existing)
    assert message in str(caught.value)


def test_all_problems_are_reported_together():
    with pytest.raises(CarveError) as caught:
        carve("10.244.0.0/16", [Part("a"), Part("b", prefix=3), Part("c", prefix=20)], {"c": "10.0.0.0/20"})
    assert [text.partition(":")[0] for text in str(caught.value).split("; ")] == ["a", "b", "c"]
    with pytest.raises(CarveError) as caught:
        carve("10.244.0.0/16", pieces(17, 18, 17, 19, 17))
    assert [text.partition(":")[0] for text in str(caught.value).split("; ")] == ["c", "e"]


def test_existing_ranges_that_overlap_one_another_are_no_matter_of_the_parts():
    existing = {"outer": "10.244.0.0/17", "inner": "10.244.1.0/24", "everything": "10.0.0.0/8"}
    del existing["everything"]
    assert carve("10.244.0.0/16", pieces(24), existing) == ["10.244.128.0/24"]


spaces = st.sampled_from(SPACES).map(ipaddress.ip_network)


@st.composite
def requests(draw):
    """A range and parts that fit into it together."""
    space = draw(spaces)
    depth = min(12, space.max_prefixlen - space.prefixlen)
    left, parts = 1 << depth, []
    for index in range(draw(st.integers(0, 12))):
        bits = draw(st.integers(0, depth))
        if (1 << (depth - bits)) > left:
            continue
        left -= 1 << (depth - bits)
        parts.append(Part(f"pool-{index}", prefix=space.prefixlen + bits))
    return space, sorted(parts, key=lambda part: part.prefix)  # the largest first always fit


def carved(space, parts, existing=None):
    """The networks of the parts that there is room for, taken one after the other."""
    kept = []
    for part in parts:
        try:
            carve(str(space), [*kept, part], existing)
        except CarveError:
            continue
        kept.append(part)
    return kept, [ipaddress.ip_network(cidr) for cidr in carve(str(space), kept, existing)]


@given(requests(), st.randoms(use_true_random=False))
def test_parts_lie_inside_are_disjoint_and_have_their_size(request, random):
    space, parts = request
    random.shuffle(parts)
    kept, networks = carved(space, parts)
    assert [network.prefixlen for network in networks] == [part.prefix for part in kept]
    assert all(network.subnet_of(space) for network in networks)
    ordered = sorted(networks)
    assert all(one[-1] < other[0] for one, other in zip(ordered, ordered[1:], strict=False))


@given(requests())
def test_parts_that_fit_together_find_room_when_the_largest_come_first(request):
    space, parts = request
    assert len(carve(str(space), parts)) == len(parts)


@given(requests(), st.integers(0, 12))
def test_a_part_that_is_appended_moves_no_other(request, length):
    space, parts = request
    assert carve(str(space), parts)[:length] == carve(str(space), parts[:length])


@given(requests(), st.randoms(use_true_random=False))
def test_what_was_carved_once_never_moves_again(request, random):
    space, parts = request
    old = parts[: len(parts) // 2]
    existing = dict(zip((part.name for part in old), carve(str(space), old), strict=True))
    everything = parts.copy()
    random.shuffle(everything)
    kept, networks = carved(space, [*old, *(part for part in everything if part not in old)], existing)
    random.shuffle(kept)
    places = dict(zip((part.name for part in kept), carve(str(space), kept, existing), strict=True))
    assert {name: places[name] for name in existing} == existing
    assert len(networks) == len(places)
    again = carve(str(space), kept, places)
    assert again == list(places.values())


@given(
    st.integers(0, 1 << 10),
    st.lists(st.tuples(st.integers(0, 1200), st.integers(1, 300)), max_size=8),
    st.lists(st.integers(0, 8), max_size=20),
)
def test_free_space_always_yields_the_lowest_aligned_gap(first, taken, exponents):
    size = 1 << 10
    first -= first % size
    free = FreeSpace(first, size, taken)
    used = {address for start, length in taken for address in range(start, start + length)}
    left = [address for address in range(first, first + size) if address not in used]
    for exponent in exponents:
        length, pool = 1 << exponent, set(left)
        starts = (
            start for start in range(first, first + size, length) if pool.issuperset(range(start, start + length))
        )
        expected = next(starts, None)
        assert free.take(length) == expected
        if expected is not None:
            left = [address for address in left if not expected <= address < expected + length]
