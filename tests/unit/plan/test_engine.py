# SPDX-License-Identifier: Apache-2.0
"""Which IPAM a cluster uses, out of what can be seen."""

from __future__ import annotations

import json

import pytest
from ansible_collections.podnet.ipam.plugins.module_utils._plan import engine as engines


def node(name, ipam=None):
    annotations = {engines.CNI_ANNOTATION: json.dumps({"ipam": ipam})} if ipam else {}
    return {"metadata": {"name": name, "annotations": annotations}}


def installation(**cni):
    return {"spec": {"cni": cni}}


def config(text):
    return {"data": {"cni_network_config": text}}


@pytest.mark.parametrize(
    ("observed", "engine"),
    [
        (engines.Observed(), "unknown"),
        (engines.Observed(api_group="crd.projectcalico.org/v1"), "unknown"),
        (engines.Observed(nodes=(node("n"),)), "unknown"),
        (engines.Observed(nodes=(node("n", "podnet-ipam"),)), "podnet"),
        (engines.Observed(nodes=(node("n", "other-ipam"),)), "unknown"),
        (engines.Observed(installation=installation(type="Calico", ipam={"type": "Calico"})), "calico"),
        (engines.Observed(installation=installation(type="Calico", ipam={"type": "HostLocal"})), "host-local"),
        (engines.Observed(installation=installation(type="Calico")), "calico"),
        (engines.Observed(installation={"spec": {}}), "calico"),
        (engines.Observed(installation=installation(type="AmazonVPC")), "unknown"),
        (engines.Observed(calico_config=config('{"ipam": {"type": "host-local"}}')), "host-local"),
        (engines.Observed(calico_config=config("not JSON")), "unknown"),
        (engines.Observed(calico_config={"data": None}), "unknown"),
    ],
)
def test_the_engine_follows_from_what_is_seen(observed, engine):
    found, evidence = engines.engine(observed)
    assert found == engine
    assert evidence and all(isinstance(text, str) for text in evidence)


def test_what_nodes_run_weighs_more_than_what_the_operator_was_told():
    observed = engines.Observed(
        nodes=(node("n-1", "podnet-ipam"), node("n-2", "calico-ipam"), node("n-3", "calico-ipam")),
        installation=installation(ipam={"type": "Calico"}),
    )
    engine, evidence = engines.engine(observed)
    assert engine == "podnet"
    assert [text.split(" (")[0] for text in evidence[:2]] == [
        "1 of 3 nodes have IPAM plugin podnet-ipam",
        "2 of 3 nodes have IPAM plugin calico-ipam",
    ]


def test_an_unreadable_annotation_of_a_node_is_shown():
    broken = {"metadata": {"name": "n", "annotations": {engines.CNI_ANNOTATION: "ptp"}}}
    engine, evidence = engines.engine(engines.Observed(nodes=(broken,)))
    assert engine == "unknown" and "unreadable: 'ptp'" in evidence[0]
