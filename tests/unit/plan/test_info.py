# SPDX-License-Identifier: Apache-2.0
"""Which IPAM a cluster uses, out of what can be seen."""

from __future__ import annotations

import json

import pytest
from ansible_collections.podnet.ipam.plugins.module_utils._plan import info


def node(name, ipam=None):
    annotations = {info.CNI_ANNOTATION: json.dumps({"ipam": ipam})} if ipam else {}
    return {"metadata": {"name": name, "annotations": annotations}}


def installation(**cni):
    return {"spec": {"cni": cni}}


def config(text):
    return {"data": {"cni_network_config": text}}


@pytest.mark.parametrize(
    ("observed", "engine"),
    [
        (info.Observed(), "unknown"),
        (info.Observed(api_group="crd.projectcalico.org/v1"), "unknown"),
        (info.Observed(nodes=(node("n"),)), "unknown"),
        (info.Observed(nodes=(node("n", "podnet-ipam"),)), "podnet"),
        (info.Observed(nodes=(node("n", "other-ipam"),)), "unknown"),
        (info.Observed(installation=installation(type="Calico", ipam={"type": "Calico"})), "calico"),
        (info.Observed(installation=installation(type="Calico", ipam={"type": "HostLocal"})), "host-local"),
        (info.Observed(installation=installation(type="Calico")), "calico"),
        (info.Observed(installation={"spec": {}}), "calico"),
        (info.Observed(installation=installation(type="AmazonVPC")), "unknown"),
        (info.Observed(calico_config=config('{"ipam": {"type": "host-local"}}')), "host-local"),
        (info.Observed(calico_config=config("not JSON")), "unknown"),
        (info.Observed(calico_config={"data": None}), "unknown"),
    ],
)
def test_the_engine_follows_from_what_is_seen(observed, engine):
    found, evidence = info.engine(observed)
    assert found == engine
    assert evidence and all(isinstance(text, str) for text in evidence)


def test_what_nodes_run_weighs_more_than_what_the_operator_was_told():
    observed = info.Observed(
        nodes=(node("n-1", "podnet-ipam"), node("n-2", "calico-ipam"), node("n-3", "calico-ipam")),
        installation=installation(ipam={"type": "Calico"}),
    )
    engine, evidence = info.engine(observed)
    assert engine == "podnet"
    assert [text.split(" (")[0] for text in evidence[:2]] == [
        "1 of 3 nodes have IPAM plugin podnet-ipam",
        "2 of 3 nodes have IPAM plugin calico-ipam",
    ]


def test_an_unreadable_annotation_of_a_node_is_shown():
    broken = {"metadata": {"name": "n", "annotations": {info.CNI_ANNOTATION: "ptp"}}}
    engine, evidence = info.engine(info.Observed(nodes=(broken,)))
    assert engine == "unknown" and "unreadable: 'ptp'" in evidence[0]


def test_soft_deleted_blocks_do_not_count():
    pool = {"metadata": {"name": "a"}, "spec": {"cidr": "10.0.0.0/24", "blockSize": 30}}
    spec = {"allocations": [0, None, None, None]}
    blocks = ({"spec": {"cidr": "10.0.0.0/30", **spec}}, {"spec": {"cidr": "10.0.0.4/30", "deleted": True, **spec}})
    [usage] = info.usage(info.Observed(pools=(pool,), blocks=blocks))
    assert (usage["size"], usage["used"], usage["free"], usage["blocks"]) == (256, 1, 255, 1)
