# SPDX-License-Identifier: Apache-2.0
"""The ways to reach an API server, and what is said when there is none."""

from __future__ import annotations

import pytest
import yaml
from ansible.module_utils.common.parameters import PASS_VARS

# Newer releases of ansible-core have to be asked for the options in a result.
SHOW_INVOCATION = {"_ansible_inject_invocation": True} if "inject_invocation" in PASS_VARS else {}


@pytest.fixture
def kubeconfig(cluster):
    """The content of a kubeconfig of the cluster."""
    return yaml.safe_load(cluster.plane.kubeconfig.read_text())


def failure(cluster, **options):
    result = cluster.run("ipam_info", **options)
    assert result["failed"]
    return result["msg"]


def test_a_path_in_an_option_or_a_variable_and_kubectls_own_variable(cluster):
    path = str(cluster.plane.kubeconfig)
    for options in (
        {"kubeconfig": path, "environ": {}},
        {"environ": {"K8S_AUTH_KUBECONFIG": path}},
        {"environ": {"KUBECONFIG": path}},
    ):
        assert cluster.run("ipam_info", **options)["api_group"] == cluster.group


def test_a_host_with_a_token(cluster):
    plane = cluster.plane
    options = {"host": plane.url, "api_key": plane.token, "ca_cert": str(plane.ca)}
    assert cluster.run("ipam_info", environ={}, **options)["api_group"] == cluster.group
    variables = {"K8S_AUTH_HOST": plane.url, "K8S_AUTH_API_KEY": plane.token, "K8S_AUTH_VERIFY_SSL": "no"}
    assert cluster.run("ipam_info", environ=variables)["api_group"] == cluster.group


def test_an_inline_kubeconfig_works_and_only_its_secrets_are_hidden(cluster, kubeconfig):
    kubeconfig["users"].append({"name": "other", "user": {"token": "another-secret"}})
    result = cluster.run("ipam_info", environ={}, kubeconfig=kubeconfig, **SHOW_INVOCATION)
    assert result["api_group"] == cluster.group
    shown = result["invocation"]["module_args"]["kubeconfig"]
    assert (
        shown["users"][0]["user"]["token"]
        == shown["users"][1]["user"]["token"]
        == "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
    )
    assert shown["users"][0]["name"] == "admin"


def test_another_context_and_one_that_does_not_exist(cluster, kubeconfig):
    kubeconfig["contexts"].append({"name": "nobody", "context": {"cluster": "podnet", "user": "nobody"}})
    kubeconfig["users"].append({"name": "nobody", "user": {"token": "wrong"}})
    path = cluster.folder / "kubeconfig"
    path.write_text(yaml.safe_dump(kubeconfig))
    message = failure(cluster, kubeconfig=str(path), context="nobody")
    assert "401 Unauthorized" in message
    message = failure(cluster, environ={"K8S_AUTH_KUBECONFIG": str(path), "K8S_AUTH_CONTEXT": "nowhere"})
    assert f"kubeconfig {path} named by K8S_AUTH_KUBECONFIG, context nowhere named by K8S_AUTH_CONTEXT" in message


def test_impersonation_is_passed_on(cluster):
    message = failure(cluster, impersonate_user="jane", impersonate_groups=["readers", "others"])
    assert "403 Forbidden" in message and 'User "jane"' in message and f"(from {cluster.plane.url}" in message


def test_without_any_configuration_everything_that_was_tried_is_named(cluster):
    message = failure(cluster, environ={})
    for part in (
        "host",
        "K8S_AUTH_HOST",
        "K8S_AUTH_KUBECONFIG",
        "KUBECONFIG",
        f"{cluster.folder}/.kube/config",
        "service account",
    ):
        assert part in message


@pytest.mark.parametrize("variable", ["K8S_AUTH_KUBECONFIG", "KUBECONFIG"])
def test_a_kubeconfig_that_does_not_exist_is_named_with_the_variable(cluster, variable):
    message = failure(cluster, environ={variable: "/nowhere/kubeconfig"})
    assert "/nowhere/kubeconfig" in message and variable in message and "not exist" in message


def test_a_kubeconfig_that_is_not_yaml(cluster):
    path = cluster.folder / "broken"
    path.write_text("clusters: [")
    assert f"kubeconfig {path}: it is not YAML" in failure(cluster, kubeconfig=str(path), environ={})


def test_an_api_server_that_does_not_answer_is_named_with_its_origin(cluster, kubeconfig):
    kubeconfig["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    path = cluster.folder / "kubeconfig"
    path.write_text(yaml.safe_dump(kubeconfig))
    message = failure(cluster, environ={"K8S_AUTH_KUBECONFIG": str(path)})
    assert f"no answer from https://127.0.0.1:1 (kubeconfig {path} named by K8S_AUTH_KUBECONFIG)" in message
    assert "refused" in message


def test_a_server_whose_certificate_is_not_trusted(cluster):
    options = {"host": cluster.plane.url, "api_key": cluster.plane.token}
    assert "certificate verify failed" in failure(cluster, environ={}, **options)
