# SPDX-License-Identifier: Apache-2.0
"""service_account_tokens against a real API server."""

from __future__ import annotations

import pytest
from ansible_collections.podnet.ipam.plugins.module_utils._kube.tokens import Token


@pytest.fixture
def namespace(cluster):
    name = cluster.create_namespace()
    for account in ("agent-1", "agent-2"):
        cluster.objects.create(f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": account}})
    return name


@pytest.fixture
def ask(cluster, namespace):
    """Run the module for agent-1, or another account, with the token that it has."""

    def ask(token="", name="agent-1", **options):
        accounts = [{"namespace": namespace, "name": name, "token": token}]
        return cluster.run("service_account_tokens", accounts=accounts, **options)

    return ask


def issued(result):
    [each] = result["tokens"]
    return each["token"]


def test_an_account_without_a_token_gets_one_of_the_wanted_lifetime(ask, namespace):
    result = ask(lifetime=7200)
    assert result["changed"]
    token = Token.parse(issued(result))
    assert (token.namespace, token.account, token.expires - token.issued) == (namespace, "agent-1", 7200)
    request = {"verb": "create", "kind": "TokenRequest", "namespace": namespace, "name": "agent-1"}
    assert result["operations"] == [request]


def test_an_account_with_a_good_token_keeps_it(ask):
    again = ask(token=issued(ask()))
    assert (again["changed"], again["tokens"], again["operations"]) == (False, [], [])


def test_of_several_accounts_only_those_get_a_token_that_need_one(cluster, ask, namespace):
    tokens = {"agent-1": issued(ask()), "agent-2": ""}
    accounts = [{"namespace": namespace, "name": name, "token": token} for name, token in tokens.items()]
    result = cluster.run("service_account_tokens", accounts=accounts)
    assert [each["name"] for each in result["tokens"]] == ["agent-2"]


def test_the_token_of_another_account_is_replaced(ask):
    assert Token.parse(issued(ask(token=issued(ask(name="agent-2"))))).account == "agent-1"


@pytest.mark.parametrize("text", ["nonsense", "e30.e30.e30", "eyJhbGciOiJub25lIn0.e30."])
def test_what_is_no_token_is_replaced(ask, text):
    assert issued(ask(token=text))


def test_a_token_that_nobody_signed_is_replaced(ask):
    header, payload, signature = issued(ask()).split(".")
    assert ask(token=f"{header}.{payload}.{signature[::-1]}")["changed"]


def test_the_token_of_an_account_that_was_made_anew_is_replaced(cluster, ask, namespace):
    token = issued(ask())
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    cluster.objects.delete(f"{path}/agent-1")
    cluster.objects.create(path, {"metadata": {"name": "agent-1"}})
    new = issued(ask(token=token))
    assert not ask(token=new)["changed"]


def test_check_mode_asks_for_nothing(ask):
    result = ask(check=True)
    assert result["changed"] and result["tokens"] == []
    assert not ask(token=issued(ask()), check=True)["changed"]


def test_an_account_that_does_not_exist_is_named(ask):
    result = ask(name="nobody")
    assert result["failed"] and "nobody" in result["msg"]


def test_a_lifetime_that_is_too_short_is_the_api_servers_to_refuse(ask):
    result = ask(lifetime=60)
    assert result["failed"] and "10 minutes" in result["msg"]
