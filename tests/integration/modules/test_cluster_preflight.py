# SPDX-License-Identifier: Apache-2.0
"""cluster_preflight against a real API server."""

from __future__ import annotations

CRDS = {"group": "apiextensions.k8s.io", "resources": ["customresourcedefinitions"], "verbs": ["get", "patch"]}


def test_an_administrator_and_fitting_pools_are_no_finding(either_cluster):
    either_cluster.create_pools(("four", "10.244.0.0/18"), ("six", "fd00:10:244::/64"))
    result = either_cluster.run(
        "cluster_preflight", access=[CRDS], families=["IPv4", "IPv6"], pools=["four", "10.244.0.0/18"]
    )
    assert (result["changed"], result["findings"]) == (False, [])


def test_all_rights_that_are_missing_are_told_at_once(cluster):
    result = cluster.run("cluster_preflight", access=[CRDS], impersonate_user="nobody", check=True)
    [finding] = result["findings"]
    assert (finding["severity"], finding["check"]) == ("error", "access")
    assert "get customresourcedefinitions.apiextensions.k8s.io, patch customres" in finding["message"]


def test_an_api_server_that_does_not_answer_is_a_finding_among_those_of_the_nodes(cluster):
    result = cluster.run("cluster_preflight", environ={}, host="https://127.0.0.1:1", api_key="none")
    [finding] = result["findings"]
    assert not result.get("failed")
    assert (finding["severity"], finding["check"]) == ("error", "api_server") and "127.0.0.1:1" in finding["message"]


def test_an_api_server_that_does_not_know_the_user_is_a_finding_among_those_of_the_nodes(cluster):
    server = {"host": cluster.plane.url, "ca_cert": str(cluster.plane.ca), "api_key": "of-nobody"}
    result = cluster.run("cluster_preflight", environ={}, access=[CRDS], **server)
    assert not result.get("failed"), result
    [finding] = result["findings"]
    assert (finding["severity"], finding["check"]) == ("error", "api_server")
    assert cluster.plane.url in finding["message"] and "401 Unauthorized" in finding["message"]
    assert finding["message"].endswith("take a kubeconfig with credentials that it accepts")


def test_pools_that_are_missing_or_lie_outside_are_told(cluster):
    cluster.create_pools(("outside", "192.0.2.0/24"))
    result = cluster.run("cluster_preflight", families=["IPv4", "IPv6"], pools=["outside", "nope"])
    assert [(each["check"], each["severity"]) for each in result["findings"]] == [
        ("pools", "warning"),
        ("pools", "warning"),
        ("pod_cidrs", "warning"),
    ]
    no_six, unknown, outside = (each["message"] for each in result["findings"])
    assert no_six.startswith("no IPv6 pool") and "will name nope," in unknown
    assert outside.startswith(
        "pool outside (192.0.2.0/24) does not lie in the pod CIDRs 10.244.0.0/16, fd00:10:244::/56"
    )


def test_a_right_in_a_namespace_is_told_with_it(cluster):
    access = [
        {"resources": ["pods"], "verbs": ["create"], "namespace": "shop"},
        {"resources": ["pods"], "verbs": ["get"]},
    ]
    [finding] = cluster.run("cluster_preflight", access=access, **cluster.user())["findings"]
    assert "let this user create pods in namespace shop, get pods: take" in finding["message"]


def test_a_pool_for_services_alone_serves_no_pods_and_may_lie_elsewhere(cluster):
    cluster.create_pools(("services", "192.0.2.0/24"), allowedUses=["LoadBalancer"])
    [finding] = cluster.run("cluster_preflight", families=["IPv4"])["findings"]
    assert finding["message"].startswith("no IPv4 pool")


def test_a_named_pool_that_gives_pods_nothing_is_told_and_one_in_other_spelling_is_found(cluster):
    cluster.create_pools(("six", "fd00:10:244::/64"))
    cluster.create_pools(("off", "10.244.64.0/18"), disabled=True)
    result = cluster.run("cluster_preflight", families=["IPv6"], pools=["fd00:10:244:0::/64", "off"])
    [finding] = result["findings"]
    assert finding["check"] == "pools" and finding["message"] == (
        "the CNI configuration will name off, which gives pods no address: it is disabled"
    )
