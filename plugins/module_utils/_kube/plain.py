# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The plain case of a kubeconfig: one server, one CA, a token or a client certificate, and nothing else.

Most kubeconfigs are like this, and for them the `kubernetes` client, whose import takes longer than all else that an
unchanged run does, is not needed. Whatever is not recognized here in every detail is left to it: authentication
plugins, proxies, several files, a server name to verify, and everything that is wrong, so that it says what.
"""

from __future__ import annotations

import base64
import contextlib
import os
import tempfile

_CLUSTER = {"server", "certificate-authority", "certificate-authority-data"}
_USER = {"token", "client-certificate", "client-certificate-data", "client-key", "client-key-data"}
_OPTIONS = ("host", "api_key", "client_cert", "client_key", "ca_cert", "validate_certs", "proxy", "no_proxy")
_CONNECTIONS = 8


def read(options, environ):
    """(server, token or None, TLS context) of the kubeconfig that the options or `environ` name; None to leave it."""
    if any(options.get(option) is not None for option in _OPTIONS):
        return None
    if any(name.lower().endswith("_proxy") and value for name, value in environ.items()):
        return None
    given = options.get("kubeconfig") or environ.get("KUBECONFIG") or "~/.kube/config"
    try:
        config, folder = _load(given)
        cluster, user = _entries(config, options.get("context") or config["current-context"])
        if not cluster["server"].startswith("https://") or cluster.keys() - _CLUSTER or user.keys() - _USER:
            return None
        return cluster["server"].rstrip("/"), user.get("token"), _tls(cluster, user, folder)
    except Exception:
        return None  # the client finds the same fault, and has the words for it


def pool(context):
    """Connections to the server that a TLS `context` trusts."""
    import urllib3

    return urllib3.PoolManager(ssl_context=context, maxsize=_CONNECTIONS)


def _load(given):
    if isinstance(given, dict):
        return given, ""
    import yaml  # comes with the kubernetes client

    path = os.path.expanduser(given)
    with open(path, "rb") as file:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        return yaml.load(file, Loader=loader), os.path.dirname(os.path.abspath(path))


def _entries(config, name):
    """The cluster and the user of a context."""

    def entry(collection, key, name):
        [found] = [each[key] for each in config[collection] if each["name"] == name]
        return found

    context = entry("contexts", "context", name)
    return entry("clusters", "cluster", context["cluster"]), entry("users", "user", context["user"])


def _tls(cluster, user, folder):
    from urllib3.util.ssl_ import create_urllib3_context

    context = create_urllib3_context()
    authority = cluster.get("certificate-authority-data")
    if authority:
        context.load_verify_locations(cadata=base64.b64decode(authority).decode())
    elif cluster.get("certificate-authority"):
        context.load_verify_locations(cafile=os.path.join(folder, cluster["certificate-authority"]))
    else:
        context.load_default_certs()
    if any(key.startswith("client-") for key in user):
        with _path(user, "client-certificate", folder) as certificate, _path(user, "client-key", folder) as key:
            context.load_cert_chain(certificate, key)
    return context


@contextlib.contextmanager
def _path(user, field, folder):
    """The path of a file that stands beside the kubeconfig, or that is made of what stands in it for this long."""
    data = user.get(f"{field}-data")
    if not data:
        yield os.path.join(folder, user[field])
        return
    with tempfile.NamedTemporaryFile() as file:  # readable by its owner only
        file.write(base64.b64decode(data))
        file.flush()
        yield file.name
