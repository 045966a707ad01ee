# SPDX-License-Identifier: Apache-2.0
"""The picture is read back as what it shows: fields, cells and what they tell."""

from __future__ import annotations

import ipaddress
from xml.etree import ElementTree

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.podnet.ipam.plugins.filter.address_map import FilterModule
from ansible_collections.podnet.ipam.plugins.plugin_utils import _address_map as drawing
from hypothesis import given
from hypothesis import strategies as st

address_map = FilterModule().filters()["address_map"]
SVG = "{http://www.w3.org/2000/svg}"


def pool(name, cidr, block_size=26, used=0, disabled=False):
    size = ipaddress.ip_network(cidr).num_addresses
    return {"name": name, "cidr": cidr, "block_size": block_size, "used": used, "size": size, "disabled": disabled}


def block(cidr, pool="a", node="node-1", used=0, borrowed=0):
    size = ipaddress.ip_network(cidr).num_addresses
    return {"cidr": cidr, "pool": pool, "node": node, "used": used, "size": size, "borrowed": borrowed}


def shown(pools, blocks, **options):
    return ElementTree.fromstring(address_map({"pools": pools, "blocks": blocks}, **options))


def cells(picture):
    """{what a block's cell tells: (x, y, share that is filled, colour)}."""
    found = {}
    for group in picture.iter(f"{SVG}g"):
        frame, inner = group.findall(f"{SVG}rect")
        place = float(frame.get("x")) - 0.5, float(frame.get("y")) - 0.5
        found[group.find(f"{SVG}title").text] = (
            *place,
            float(inner.get("height")) / float(inner.get("width")),
            inner.get("fill"),
        )
    return found


def texts(picture):
    return ["".join(each.itertext()) for each in picture.iter(f"{SVG}text")]


def test_a_block_lies_in_its_pool_where_its_addresses_do_and_is_filled_as_they_are():
    picture = shown([pool("a", "10.0.0.0/18", used=48)], [block("10.0.0.64/26", used=48), block("10.0.16.0/26")])
    full, empty = (
        cells(picture)[f"{cidr}: node-1, {used} of 64 in use"]
        for cidr, used in (("10.0.0.64/26", 48), ("10.0.16.0/26", 0))
    )
    assert full[0] - empty[0] == drawing.CELL, "the second cell of the first row"
    assert empty[1] - full[1] == drawing.CELL, "the first cell of the second row"
    assert (full[2], empty[2]) == (0.75, 0)


def test_a_single_address_in_use_is_to_be_seen():
    picture = shown([pool("a", "10.0.0.0/20", 20, used=1)], [block("10.0.0.0/20", used=1)])
    assert cells(picture)["10.0.0.0/20: node-1, 1 of 4096 in use"][2] > 0.1


def test_nodes_have_colours_of_their_own_and_a_legend_names_them():
    blocks = [block(f"10.0.0.{number * 16}/28", node=f"node-{number}") for number in range(10)]
    picture = shown([pool("a", "10.0.0.0/24", 28)], [*blocks, block("10.0.0.240/28", node=None)])
    told = cells(picture)
    assert len({colour for *_place, colour in told.values()}) == 11
    assert told["10.0.0.240/28: no node, 0 of 16 in use"][3] == drawing.NOBODY
    assert texts(picture)[1:] == [f"node-{number}" for number in range(10)]


def test_headings_say_how_full_a_pool_is_and_whether_it_is_disabled():
    picture = shown([pool("b", "10.1.0.0/24", used=3, disabled=True), pool("a", "10.0.0.0/18")], [])
    assert texts(picture) == [
        "a 10.0.0.0/18; 0 of 16,384 addresses in use; 0 blocks",
        "b 10.1.0.0/24, disabled; 3 of 256 addresses in use; 0 blocks",
    ]


def test_of_a_range_too_large_to_be_seen_the_blocks_stand_side_by_side():
    blocks = [block(f"fd00::{number}00/122") for number in (0, 3, 9)]
    picture = shown([pool("a", "fd00::/64", 122)], blocks)
    assert [x for x, *_rest in cells(picture).values()] == [
        drawing.MARGIN + number * drawing.CELL for number in range(3)
    ]
    assert texts(picture)[0].endswith("3 blocks, shown one after the other")


def test_blocks_outside_every_pool_and_what_others_borrow_are_not_hidden():
    picture = shown([pool("a", "10.0.0.0/24")], [block("10.9.0.0/26", pool=None, used=2, borrowed=1)])
    assert "10.9.0.0/26: node-1, 2 of 64 in use, 1 by other nodes" in cells(picture)
    assert "in no pool 1 block" in texts(picture)


def test_a_range_shows_where_its_pools_lie():
    pools = [pool("a", "10.0.128.0/17"), pool("elsewhere", "10.1.0.0/24"), pool("v6", "fd00::/64", 122)]
    picture = shown(pools, [], within=["10.0.0.0/16"])
    [drawn] = [each for each in picture.iter(f"{SVG}rect") if each.find(f"{SVG}title") is not None]
    assert drawn.find(f"{SVG}title").text == "a: 10.0.128.0/17"
    place = float(drawn.get("x")), float(drawn.get("width"))
    assert place == (drawing.MARGIN + drawing.INNER / 2, drawing.INNER / 2 - 1)


def test_names_from_outside_cannot_break_out_of_the_text():
    hostile = "<script>&\"'"
    picture = shown([pool(hostile, "10.0.0.0/24")], [block("10.0.0.0/26", pool=hostile, node=hostile)])
    assert not list(picture.iter(f"{SVG}script"))
    assert texts(picture)[-1] == hostile


@given(
    st.integers(16, 26).flatmap(
        lambda prefix: st.tuples(st.just(prefix), st.sets(st.integers(0, (1 << 26 - prefix) - 1), max_size=20))
    )
)
def test_every_block_has_a_cell_of_its_own_within_the_picture(drawn):
    prefix, numbers = drawn
    blocks = [block(f"{ipaddress.ip_address('10.0.0.0') + number * 64}/26") for number in numbers]
    picture = shown([pool("a", f"10.0.0.0/{prefix}")], blocks)
    places = {place[:2] for place in cells(picture).values()}
    assert len(places) == len(numbers)
    assert all(x + drawing.CELL < float(picture.get("width")) for x, _y in places)
    assert all(y + drawing.CELL < float(picture.get("height")) for _x, y in places)


@pytest.mark.parametrize(
    ("ipam", "options", "said"),
    (
        ([], {}, r"the input: \[\] is not what podnet.ipam.ipam_info returned with gather_subset: \[pools, blocks\]"),
        ({"pools": []}, {}, r"the input: \['pools'\] is not what podnet.ipam.ipam_info returned"),
        ({"pools": [], "blocks": []}, {"within": ["10.0.0.1/8"]}, r"within\[0\]: '10.0.0.1/8' is not a CIDR"),
    ),
    ids=("no result", "a subset is missing", "no CIDR"),
)
def test_what_cannot_be_drawn_is_named(ipam, options, said):
    with pytest.raises(AnsibleFilterError, match=f"podnet.ipam.address_map: {said}"):
        address_map(ipam, **options)
