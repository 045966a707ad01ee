# SPDX-License-Identifier: Apache-2.0
"""The ways to reach an API server, and what is said when there is none."""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.common.parameters import PASS_VARS
from ansible_collections.podnet.ipam.plugins.module_utils._kube import connection
from cluster.apiserver import ControlPlane
from cluster.commands import output_of
from kubernetes.config import incluster_config

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


HIDDEN = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"


def test_what_authentication_plugins_and_providers_of_an_inline_kubeconfig_get_is_hidden(cluster, kubeconfig):
    environment = [{"name": "AWS_SECRET_ACCESS_KEY", "value": "hush-1"}, {"name": "AWS_REGION", "value": "eu-west-1"}]
    provider = {"access-token": "hush-2", "client-secret": "hush-3", "idp-issuer-url": "https://example.com"}
    kubeconfig["users"] += [
        {"name": "plugin", "user": {"exec": {"command": "aws", "env": environment}}},
        {"name": "provider", "user": {"auth-provider": {"name": "oidc", "config": provider}}},
    ]
    result = cluster.run("ipam_info", environ={}, kubeconfig=kubeconfig, **SHOW_INVOCATION)
    plugin, provider = (each["user"] for each in result["invocation"]["module_args"]["kubeconfig"]["users"][-2:])
    assert [each["value"] for each in plugin["exec"]["env"]] == [HIDDEN, "eu-west-1"]
    config = provider["auth-provider"]["config"]
    assert [config["access-token"], config["client-secret"]] == [HIDDEN, HIDDEN]
    assert config["idp-issuer-url"] == "https://example.com"


@pytest.mark.parametrize("write", [yaml.safe_dump, json.dumps])
@pytest.mark.parametrize("by_variable", [False, True])
def test_the_text_of_a_kubeconfig_is_refused_and_not_shown(cluster, kubeconfig, write, by_variable):
    text = write(kubeconfig)
    given = {"environ": {"K8S_AUTH_KUBECONFIG": text}} if by_variable else {"environ": {}, "kubeconfig": text}
    result = cluster.run("ipam_info", **given, **SHOW_INVOCATION)
    assert result["failed"] and "is content, not a path; use from_yaml" in result["msg"]
    assert cluster.plane.token not in json.dumps(result)
    assert result["invocation"]["module_args"]["kubeconfig"] == HIDDEN


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


@pytest.fixture
def proxy():
    """A proxy that takes what it is asked for, and hangs up: its URL, and what it was asked for."""
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with server.accept()[0] as connection:
                asked.append(connection.recv(1 << 16).decode())

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
        thread.join()


@pytest.mark.parametrize("by_variable", [False, True])
def test_a_proxy_gets_the_headers_that_are_for_it(cluster, proxy, by_variable):
    url, asked = proxy
    options = {"host": "https://api.example.com:6443", "api_key": "a-token", "proxy": url}
    if by_variable:
        environ = {"K8S_AUTH_PROXY_HEADERS_PROXY_BASIC_AUTH": "jane:secret"}
    else:
        environ, options["proxy_headers"] = {}, {"proxy_basic_auth": "jane:secret"}
    assert "no answer from https://api.example.com:6443" in failure(cluster, environ=environ, **options)
    expected = base64.b64encode(b"jane:secret").decode()
    assert f"proxy-authorization: Basic {expected}".lower() in asked[0].lower()


def issue(folder, name, subject, *authority):
    """A key and a certificate, signed by its own key or by that of an authority."""
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1")
    files = ("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt")
    output_of("openssl", "req", "-x509", *curve, "-subj", subject, *files, *authority)


@pytest.fixture(scope="module")
def trusting(tmp_path_factory):
    """An API server that trusts an authority, and the folder with the certificate of its administrator."""
    folder = tmp_path_factory.mktemp("certificates")
    issue(folder, "authority", "/CN=authority")
    signed = ("-CA", folder / "authority.crt", "-CAkey", folder / "authority.key")
    issue(folder, "admin", "/O=system:masters/CN=jane", *signed)
    with ControlPlane([f"--client-ca-file={folder / 'authority.crt'}"]) as plane:
        yield plane, folder


def in_files(folder):
    return {"client-certificate": str(folder / "admin.crt"), "client-key": str(folder / "admin.key")}


def in_data(folder):
    files = in_files(folder).items()
    return {f"{field}-data": base64.b64encode(Path(path).read_bytes()).decode() for field, path in files}


@pytest.mark.parametrize("certificate", [in_files, in_data])
@pytest.mark.parametrize("beside", [{}, {"username": "nobody-else"}], ids=["plain", "by-the-client"])
def test_a_client_certificate_of_a_kubeconfig_says_who_the_user_is(cluster, trusting, certificate, beside):
    plane, folder = trusting
    kubeconfig = yaml.safe_load(plane.kubeconfig.read_text())
    kubeconfig["users"][0]["user"] = {**certificate(folder), **beside}
    result = cluster.run("ipam_info", environ={}, kubeconfig=kubeconfig, gather_subset=["config"])
    assert not result.get("failed"), result["msg"]
    kubeconfig["users"][0]["user"] = {}
    assert "system:anonymous" in failure(cluster, environ={}, kubeconfig=kubeconfig)


def test_a_client_certificate_in_options_says_who_the_user_is(cluster, trusting):
    plane, folder = trusting
    files = {"client_cert": str(folder / "admin.crt"), "client_key": str(folder / "admin.key")}
    options = {"host": plane.url, "ca_cert": str(plane.ca), "gather_subset": ["config"]}
    result = cluster.run("ipam_info", environ={}, **options, **files)
    assert not result.get("failed"), result["msg"]
    assert "system:anonymous" in failure(cluster, environ={}, **options)


LOGIN = """#!/bin/sh
echo '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "'$OUR_TOKEN'"}}'
"""


def test_an_authentication_plugin_is_run(cluster, kubeconfig):
    login = cluster.folder / "login"
    login.write_text(LOGIN)
    login.chmod(0o700)
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(login), "interactiveMode": "Never"}
    environment = [{"name": "OUR_TOKEN", "value": cluster.plane.token}]
    kubeconfig["users"][0]["user"] = {"exec": {**plugin, "env": environment}}
    result = cluster.run("ipam_info", environ={}, kubeconfig=kubeconfig, **SHOW_INVOCATION)
    assert result["api_group"] == cluster.group and cluster.plane.token not in str(result)


def test_several_files_make_up_one_kubeconfig(cluster, kubeconfig):
    users = {"apiVersion": "v1", "kind": "Config", "users": kubeconfig.pop("users")}
    paths = [cluster.folder / "clusters", cluster.folder / "users"]
    for path, content in zip(paths, (kubeconfig, users), strict=True):
        path.write_text(yaml.safe_dump(content))
    result = cluster.run("ipam_info", environ={"KUBECONFIG": ":".join(map(str, paths))})
    assert result["api_group"] == cluster.group


def test_a_pod_uses_its_service_account(cluster, monkeypatch):
    for variable, value in (("HOST", "127.0.0.1"), ("PORT", str(cluster.plane.port))):
        monkeypatch.setenv(f"KUBERNETES_SERVICE_{variable}", value)
    token = cluster.folder / "token"
    token.write_text(cluster.plane.token)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(cluster.plane.ca))
    found = connection.open_connection({}, {**os.environ, "KUBECONFIG": "/nowhere"})
    assert found.origin.endswith("(the pod's service account)")
    status, _headers, answer = found.request("GET", cluster.path("ippools"))
    assert (status, answer["kind"]) == (200, "IPPoolList")


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
