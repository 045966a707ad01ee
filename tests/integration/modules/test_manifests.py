# SPDX-License-Identifier: Apache-2.0
"""manifests against a real API server."""

from __future__ import annotations

import base64
import json

import pytest

LABELS = {"app.kubernetes.io/managed-by": "podnet.ipam"}


def settings(namespace, data, labels=None):
    metadata = {"name": "settings", "namespace": namespace, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


@pytest.fixture
def namespace(cluster):
    return cluster.create_namespace()


@pytest.fixture
def stored(cluster, namespace):
    """The ConfigMap as it is stored, by a function."""
    return lambda: cluster.objects.get(f"/api/v1/namespaces/{namespace}/configmaps/settings")


def test_an_object_is_created_once(cluster, namespace, stored):
    result = cluster.apply("manifests", manifests=[settings(namespace, {"a": "1"})])
    assert result["operations"] == [{"verb": "create", "kind": "ConfigMap", "namespace": namespace, "name": "settings"}]
    assert result["diff"]["after"][f"ConfigMap {namespace}/settings"]["data"] == {"a": "1"}
    assert stored()["data"] == {"a": "1"}


def test_a_field_that_is_declared_no_more_is_removed_and_that_of_another_stays(cluster, namespace, stored):
    cluster.run("manifests", manifests=[settings(namespace, {"a": "1", "b": "2"})])
    cluster.run("manifests", state="patched", manifests=[settings(namespace, {"theirs": "3"})])
    cluster.apply("manifests", manifests=[settings(namespace, {"a": "9"})])
    assert stored()["data"]["a"] == "9" and "b" not in stored()["data"]


def test_what_another_changed_is_set_back(cluster, namespace, stored):
    cluster.run("manifests", manifests=[settings(namespace, {"a": "1"})])
    path = f"/api/v1/namespaces/{namespace}/configmaps/settings"
    cluster.objects.patch(path, {"data": {"a": "drifted"}})
    result = cluster.apply("manifests", manifests=[settings(namespace, {"a": "1"})])
    assert result["diff"]["before"][f"ConfigMap {namespace}/settings"]["data"] == {"a": "drifted"}
    assert stored()["data"] == {"a": "1"}


@pytest.mark.parametrize(("overwrite", "labels"), [("never", LABELS), ("owned", {})])
def test_an_object_that_may_not_be_overwritten_stays_as_it_is(cluster, namespace, stored, overwrite, labels):
    cluster.run("manifests", manifests=[settings(namespace, {"a": "theirs"}, labels)])
    result = cluster.apply("manifests", overwrite=overwrite, manifests=[settings(namespace, {"a": "ours"}, LABELS)])
    assert result["changed"] is False and result["resources"][0]["data"] == {"a": "theirs"}
    assert stored()["data"] == {"a": "theirs"}


def test_an_owned_object_is_overwritten(cluster, namespace, stored):
    cluster.run("manifests", manifests=[settings(namespace, {"a": "old"}, LABELS)])
    cluster.apply("manifests", overwrite="owned", manifests=[settings(namespace, {"a": "new"}, LABELS)])
    assert stored()["data"] == {"a": "new"}


def test_a_patch_of_what_does_not_exist_is_refused_by_name(cluster, namespace):
    result = cluster.run("manifests", state="patched", manifests=[settings(namespace, {"a": "1"})])
    assert result["failed"] and f"ConfigMap {namespace}/settings does not exist" in result["msg"]


def test_check_mode_predicts_what_needs_a_namespace_of_the_same_run(cluster):
    missing = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "not-yet"}}
    result = cluster.run("manifests", check=True, manifests=[missing, settings("not-yet", {"a": "1"})])
    assert [operation["kind"] for operation in result["operations"]] == ["Namespace", "ConfigMap"]
    assert "ConfigMap not-yet/settings would be created" in json.dumps(result["warnings"])
    assert "not-yet" not in cluster.objects.names("/api/v1/namespaces")


def test_an_unknown_field_is_refused(cluster, namespace):
    result = cluster.run("manifests", manifests=[{**settings(namespace, {}), "dtaa": {}}])
    assert result["failed"] and "dtaa" in result["msg"]


def test_an_unknown_kind_is_refused_by_name(cluster):
    manifest = {"apiVersion": "v1", "kind": "Confgmap", "metadata": {"name": "settings"}}
    result = cluster.run("manifests", manifests=[manifest])
    assert result["failed"] and "v1 has no kind Confgmap" in result["msg"]


def test_a_manifest_without_a_name_is_refused_before_anything_is_written(cluster, namespace):
    nameless = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}
    result = cluster.run("manifests", manifests=[settings(namespace, {}), nameless])
    assert result["failed"] and "metadata.name" in result["msg"]
    assert cluster.objects.names(f"/api/v1/namespaces/{namespace}/configmaps") == []


def test_a_diff_shows_no_secret(cluster, namespace):
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "key", "namespace": namespace},
        "data": {"key": base64.b64encode(b"hush").decode()},
    }
    result = cluster.apply("manifests", manifests=[secret])
    assert result["changed"] and "data" not in result["diff"]["after"][f"Secret {namespace}/key"]


def test_what_shall_not_be_is_deleted(cluster, namespace):
    cluster.run("manifests", manifests=[settings(namespace, {"a": "1"})])
    gone = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": namespace}}
    result = cluster.apply("manifests", state="absent", manifests=[gone])
    assert result["operations"] == [{"verb": "delete", "kind": "ConfigMap", "namespace": namespace, "name": "settings"}]
    assert result["resources"] == [] and list(result["diff"]["before"]) == [f"ConfigMap {namespace}/settings"]
    assert "settings" not in cluster.objects.names(f"/api/v1/namespaces/{namespace}/configmaps")


def test_what_is_not_owned_is_not_deleted(cluster, namespace, stored):
    cluster.run("manifests", manifests=[settings(namespace, {"a": "theirs"})])
    result = cluster.apply("manifests", state="absent", overwrite="owned", manifests=[settings(namespace, {})])
    assert result["changed"] is False and stored()["data"] == {"a": "theirs"}


def test_what_does_not_exist_even_as_a_kind_is_absent_already(cluster, namespace):
    unknown = {"apiVersion": "v1", "kind": "Unheard", "metadata": {"name": "of"}}
    result = cluster.apply("manifests", state="absent", manifests=[unknown, settings(namespace, {})])
    assert result["changed"] is False


def test_what_its_finalizers_keep_is_an_error(cluster, namespace, stored):
    """There is no controller here that would see to them."""
    kept = settings(namespace, {})
    kept["metadata"]["finalizers"] = ["example.com/someone-else"]
    cluster.run("manifests", manifests=[kept])
    result = cluster.run("manifests", state="absent", wait_timeout=1, manifests=[kept])
    assert result["failed"] and f"ConfigMap {namespace}/settings was deleted" in result["msg"]
    assert "still there after 1 seconds: it waits for example.com/someone-else" in result["msg"]
    cluster.run("manifests", manifests=[settings(namespace, {})])  # without the finalizer, it goes
    assert "settings" not in cluster.objects.names(f"/api/v1/namespaces/{namespace}/configmaps")


def test_no_result_shows_what_a_secret_holds(cluster, namespace):
    metadata = {"name": "secret", "namespace": namespace}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"password": "opensesame"}}
    for state in ("present", "present", "patched", "absent"):
        result = cluster.run("manifests", state=state, manifests=[secret])
        assert not result.get("failed"), result["msg"]
        result.pop("invocation", None)  # what the task itself says; `no_log` is for that
        shown = json.dumps(result)
        assert "opensesame" not in shown and base64.b64encode(b"opensesame").decode() not in shown

    result = cluster.run("manifests", manifests=[{**secret, "metadata": {"namespace": namespace}}])
    assert (
        result["failed"] and result["msg"].startswith("metadata.name of manifest") and "opensesame" not in result["msg"]
    )


def test_what_kubectl_has_noted_of_a_secret_is_not_shown(cluster, namespace):
    noted = {"kubectl.kubernetes.io/last-applied-configuration": '{"stringData":{"password":"opensesame"}}'}
    metadata = {"name": "secret", "namespace": namespace, "annotations": noted}
    cluster.objects.create(f"/api/v1/namespaces/{namespace}/secrets", {"metadata": metadata})
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "secret", "namespace": namespace}}
    labelled = {**secret, "metadata": {**secret["metadata"], "labels": LABELS}}
    result = cluster.run("manifests", manifests=[labelled])
    result.pop("invocation", None)
    assert result["changed"] and "opensesame" not in json.dumps(result)


@pytest.mark.parametrize("place", [{"name": "settings/status"}, {"name": "a?dryRun=All"}, {"name": ".."}])
def test_a_name_that_would_lead_to_something_else_is_refused(cluster, namespace, place):
    result = cluster.run("manifests", manifests=[{**settings(namespace, {}), "metadata": place}])
    assert result["failed"] and f"metadata.name {place['name']!r} of manifest" in result["msg"]


def test_a_manifest_without_a_namespace_is_for_the_default_one(cluster):
    result = cluster.apply("manifests", manifests=[settings(None, {"a": "1"})])
    assert result["operations"][0]["namespace"] == "default"
    cluster.run("manifests", state="absent", manifests=[settings(None, {})])


def test_a_kind_of_a_group_that_is_not_served_is_named(cluster):
    manifest = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}}
    result = cluster.run("manifests", manifests=[manifest])
    assert result["failed"] and "the cluster does not serve example.com/v1, of which Widget w is" in result["msg"]
