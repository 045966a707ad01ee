# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The options that all modules share, and the module object that keeps their secrets."""

from __future__ import annotations

import os

from ansible.module_utils.basic import AnsibleModule, _load_params, env_fallback
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ._kube.connection import is_content

_SECRETS_OF_KUBECONFIG = (
    "token",
    "password",
    "client-key-data",
    "client-certificate-data",
    # of authentication providers
    "id-token",
    "access-token",
    "refresh-token",
    "client-secret",
    "secret",
    "api_key",
)
# In the name of a variable that an authentication plugin gets. Others, such as a region, are words.
_SECRET_WORDS = ("token", "secret", "pass", "key", "credential")


def _option(variable, **spec):
    return {**spec, "fallback": (env_fallback, [f"K8S_AUTH_{variable}"])}


def connection_options():
    """kubernetes.core's options for the connection, with its environment variables."""
    return {
        "kubeconfig": _option("KUBECONFIG", type="raw"),
        "context": _option("CONTEXT", type="str"),
        "host": _option("HOST", type="str"),
        "api_key": _option("API_KEY", type="str", no_log=True),
        "username": _option("USERNAME", type="str"),
        "password": _option("PASSWORD", type="str", no_log=True),
        "client_cert": _option("CERT_FILE", type="path", aliases=["cert_file"]),
        "client_key": _option("KEY_FILE", type="path", aliases=["key_file"], no_log=False),
        "ca_cert": _option("SSL_CA_CERT", type="path", aliases=["ssl_ca_cert"]),
        "validate_certs": _option("VERIFY_SSL", type="bool", aliases=["verify_ssl"]),
        "proxy": _option("PROXY", type="str"),
        "no_proxy": _option("NO_PROXY", type="str"),
        "proxy_headers": {"type": "dict", "apply_defaults": True, "options": _proxy_headers()},
        "persist_config": _option("PERSIST_CONFIG", type="bool"),
        "impersonate_user": _option("IMPERSONATE_USER", type="str"),
        "impersonate_groups": _option("IMPERSONATE_GROUPS", type="list", elements="str"),
    }


def _proxy_headers():
    return {
        "proxy_basic_auth": _option("PROXY_HEADERS_PROXY_BASIC_AUTH", type="str", no_log=True),
        "basic_auth": _option("PROXY_HEADERS_BASIC_AUTH", type="str", no_log=True),
        "user_agent": _option("PROXY_HEADERS_USER_AGENT", type="str"),
    }


DECLARED_POOLS = {"type": "list", "elements": "dict", "default": []}
# What is used of a declared pool. ip_pools has the other options, and judges all of them.
_USED_OF_POOL = {
    "name": {"type": "str", "required": True},
    "cidr": {"type": "str"},
    "block_size": {"type": "int"},
    "disabled": {"type": "bool"},
    "allowed_uses": {"type": "list", "elements": "str"},
}


def declared_pools(module):
    """The option `declared_pools`: items of ip_pools' option `pools`, of which only the used options are looked at."""
    return tuple(_declared_pool(module, item) for item in module.params["declared_pools"])


def _declared_pool(module, item):
    used = {option: value for option, value in item.items() if option in _USED_OF_POOL and value is not None}
    result = ArgumentSpecValidator(_USED_OF_POOL).validate(used)
    if result.error_messages:
        module.fail_json(msg=f"declared_pools: {used.get('name', 'an item')}: {'; '.join(result.error_messages)}")
    return result.validated_parameters


def create_module(options, **settings):
    """An AnsibleModule with the connection options and check mode.

    Of a kubeconfig given as a mapping the secrets are kept from logs and results, and only those: its other values,
    such as the name of a user, are words that results may well contain. One that is given as text, which is a mistake,
    is kept from them whole.
    """
    spec = {**connection_options(), **options}
    parameters = _load_params() or {}  # no parameters at all: a sanity test asks for the options
    kubeconfig = parameters.get("kubeconfig") or os.environ.get("K8S_AUTH_KUBECONFIG")
    if isinstance(kubeconfig, dict) or is_content(kubeconfig):
        spec["kubeconfig"]["no_log"] = True
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True, **settings)
    if isinstance(kubeconfig, dict):
        secrets = set(_secrets(kubeconfig))
        module.no_log_values -= set(_leaves(kubeconfig)) - secrets
        module.no_log_values |= secrets
    return module


def _secrets(value):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner) if key in _SECRETS_OF_KUBECONFIG else _secrets(inner)
        if any(word in str(value.get("name")).lower() for word in _SECRET_WORDS):
            yield from _leaves(value.get("value"))
    elif isinstance(value, list):
        for inner in value:
            yield from _secrets(inner)


def _leaves(value):
    if isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
    elif value is not None:
        yield str(value)
