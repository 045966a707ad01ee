# SPDX-License-Identifier: Apache-2.0
"""Names and hashes as Calico spells them; the values were written by Calico itself."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("cidr", "name"),
    (
        ("10.244.1.0/26", "10-244-1-0-26"),
        ("fd00:10:244::/122", "fd00-10-244---122"),
        ("fd00:10:244:0:1::40/122", "fd00-10-244-0-1--40-122"),
    ),
)
def test_a_block_is_named_after_its_cidr(core, cidr, name):
    assert core.names.cidr_name(cidr) == name
    assert core.names.affinity_name("node-1", cidr) == f"node-1-{name}"


def test_a_long_affinity_name_is_cut_and_hashed_to_252_characters(core):
    name = core.names.affinity_name("n" * 250, "10.244.1.0/26")
    assert len(name) == 252
    assert name.startswith("n" * 226 + "-10-244-1-0-26-")


@pytest.mark.parametrize(
    ("node", "label"),
    (
        ("node-1", "A3XPYDATRKB7Q4SM2O5FN4RXIHBFIL2PITFX26BAIP5XAB2X74CA"),
        ("kind-control-plane", "RLBCRO3IX3QQV6BPPDEDUBOTWHZ2CHKUZQUIKELDIYNV2D4W4NFA"),
        ("load-balancer", "TAU2RK2F2FG7MIS72DPZYC6FJ3U3BIWIDZAMUTQY7ZXMSKQZ5GSQ"),
    ),
)
def test_an_affinity_carries_the_hash_of_its_node(core, node, label):
    assert core.names.affinity_labels(node, "10.244.1.0/26") == {
        "projectcalico.org/hostname-hash": label,
        "projectcalico.org/affinity-type": "host",
        "projectcalico.org/ip-version": "4",
    }


def test_a_handle_keeps_its_case_but_its_object_does_not(core):
    handle = core.names.handle_id("Pod-Net", "ABC")
    assert handle == "Pod-Net.ABC"
    assert core.names.handle_name(handle) == "pod-net.abc"
