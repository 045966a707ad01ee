# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""How a module reaches the API server.

The `kubernetes` client loads the configuration, runs the authentication plugins and makes the TLS connection, as for
kubernetes.core; its discovery and its model classes are not used, so any release from 28 on will do. It is imported
when a connection is opened, so that a controller without it gets Ansible's own message, and not at all for a plain
kubeconfig (`plain`).

Order: explicit `host` with credentials, then `kubeconfig` (or the file that kubectl would use), then the service
account of the pod that the module runs in.
"""

from __future__ import annotations

import json
import os
import re
from urllib.parse import urlencode

from . import plain
from .errors import Unreachable

CONNECT_SECONDS, READ_SECONDS = 10, 60
IN_CLUSTER_VARIABLE = "KUBERNETES_SERVICE_HOST"
# How urllib3 before its version 2 names the connection that failed: differently each time.
_NUMBERED = re.compile(r"<\S+ object at 0x[0-9a-f]+>: ")
_OVERRIDES = {
    "host": "host",
    "ca_cert": "ssl_ca_cert",
    "client_cert": "cert_file",
    "client_key": "key_file",
    "validate_certs": "verify_ssl",
    "proxy": "proxy",
    "no_proxy": "no_proxy",
}


class Connection:
    """A pool of connections to one API server. `origin` says which one and where its address came from."""

    def __init__(self, server, pool, authorization, headers, origin):
        """`authorization()` gives the headers that say who we are, asked for at each request: tokens are renewed."""
        self.origin = origin
        self._server = server.rstrip("/")
        self._pool = pool
        self._authorization = authorization
        self._headers = headers

    def request(self, method, path, query=None, body=None, content_type="application/json"):
        """(status, headers, decoded JSON or None). Unreachable when no answer came."""
        import urllib3
        from urllib3.response import HTTPHeaderDict  # at the top of urllib3 only since its version 2

        headers = HTTPHeaderDict({"Accept": "application/json", **self._authorization()})
        headers.extend(self._headers)
        data = None
        if body is not None:
            headers["Content-Type"] = content_type
            data = json.dumps(body).encode()
        url = self._server + path + (f"?{urlencode(query)}" if query else "")
        timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
        try:
            answer = self._pool.request(method, url, body=data, headers=headers, timeout=timeout, retries=False)
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(f"no answer from {self.origin}: {_NUMBERED.sub('', str(error))}") from error
        return answer.status, answer.headers, _decode(answer.data)


def open_connection(options, environ=None):
    """The Connection that `options` (kubernetes.core's names; None where not given) ask for.

    `environ` are the environment variables, by default the process's own.
    Unreachable, naming everything that was tried, when they lead nowhere.
    """
    environ = os.environ if environ is None else environ
    if is_content(options.get("kubeconfig")):
        raise Unreachable("option kubeconfig is content, not a path; use from_yaml")
    headers = list(_extra_headers(options))
    found = plain.read(options, environ)
    if found:
        server, token, context = found
        source = _kubeconfig_source(options, _kubeconfig(options, environ), environ)
        own = {"authorization": f"Bearer {token}"} if token and not options.get("username") else {}
        return Connection(server, plain.pool(context), lambda: own, headers, f"{server} ({source})")
    return _open_with_client(options, environ, headers)


def is_content(kubeconfig):
    """Whether a kubeconfig is the text of a file, as a lookup gives it. It has secrets, and must not be shown."""
    return isinstance(kubeconfig, str) and ("\n" in kubeconfig or kubeconfig.lstrip().startswith("{"))


def _open_with_client(options, environ, headers):
    from kubernetes.client import Configuration
    from kubernetes.client.rest import RESTClientObject

    configuration = Configuration()
    source = _load(configuration, options, environ)
    for option, attribute in _OVERRIDES.items():
        if options.get(option) is not None:
            setattr(configuration, attribute, options[option])
    if options.get("api_key"):
        configuration.api_key = {"authorization": f"Bearer {options['api_key']}"}
    configuration.proxy_headers = _proxy_headers(options)
    pool, origin = RESTClientObject(configuration).pool_manager, f"{configuration.host} ({source})"
    return Connection(configuration.host, pool, lambda: _authorization(configuration), headers, origin)


def _authorization(configuration):
    settings = configuration.auth_settings().values()
    return {each["key"]: each["value"] for each in settings if each["in"] == "header" and each["value"]}


def _load(configuration, options, environ):
    """Fill `configuration` from the first source there is, and return that source's description."""
    if options.get("host") and (_credentials(options) or not options.get("kubeconfig")):
        return f"option host{_variable('host', options, environ)}"
    if options.get("kubeconfig"):
        return _load_kubeconfig(configuration, options, options["kubeconfig"], environ)
    path = _kubeconfig(options, environ)
    if any(os.path.exists(each) for each in path.split(os.pathsep)):
        return _load_kubeconfig(configuration, options, path, environ)
    if environ.get(IN_CLUSTER_VARIABLE):
        return _load_service_account(configuration)
    raise Unreachable(
        "no Kubernetes cluster is configured. Tried, in this order: option host and K8S_AUTH_HOST (not set);"
        f" option kubeconfig and K8S_AUTH_KUBECONFIG (not set); kubeconfig {path}"
        f" ({'named by KUBECONFIG' if environ.get('KUBECONFIG') else 'the default, as KUBECONFIG is not set'};"
        f" it does not exist); the pod's service account ({IN_CLUSTER_VARIABLE} is not set)"
    )


def _load_kubeconfig(configuration, options, kubeconfig, environ):
    from kubernetes import config

    wanted = {
        "context": options.get("context"),
        "client_configuration": configuration,
        "persist_config": bool(options.get("persist_config")),
    }
    inline = isinstance(kubeconfig, dict)
    source = _kubeconfig_source(options, kubeconfig, environ)
    if not inline and not any(os.path.exists(os.path.expanduser(each)) for each in kubeconfig.split(os.pathsep)):
        raise Unreachable(f"{source}: the file does not exist")
    try:
        if inline:
            config.load_kube_config_from_dict(kubeconfig, **wanted)
        else:
            config.load_kube_config(config_file=kubeconfig, **wanted)
    except (config.ConfigException, ValueError, TypeError, OSError) as error:
        raise Unreachable(f"{source}: {error}") from error
    except Exception as error:  # PyYAML's errors have no base class that could be named without importing it
        if type(error).__module__.startswith("yaml"):
            raise Unreachable(f"{source}: it is not YAML: {error}") from error
        raise
    return source


def _kubeconfig(options, environ):
    """The kubeconfig that is meant: a mapping, or the path of a file, which need not exist."""
    return options.get("kubeconfig") or environ.get("KUBECONFIG") or os.path.expanduser("~/.kube/config")


def _kubeconfig_source(options, kubeconfig, environ):
    source = "inline kubeconfig"
    if not isinstance(kubeconfig, dict):
        source = f"kubeconfig {kubeconfig}{_variable('kubeconfig', options, environ)}"
    if options.get("context"):
        source += f", context {options['context']}{_variable('context', options, environ)}"
    return source


def _load_service_account(configuration):
    from kubernetes import config

    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException as error:
        raise Unreachable(f"the pod's service account: {error}") from error
    return "the pod's service account"


def _extra_headers(options):
    from urllib3 import make_headers

    if options.get("username") and options.get("password"):
        yield "authorization", make_headers(basic_auth=f"{options['username']}:{options['password']}")["authorization"]
    if options.get("impersonate_user"):
        yield "Impersonate-User", options["impersonate_user"]
    for group in options.get("impersonate_groups") or ():
        yield "Impersonate-Group", group


def _proxy_headers(options):
    from urllib3 import make_headers

    return make_headers(**(options.get("proxy_headers") or {})) or None


def _credentials(options):
    basic = options.get("username") and options.get("password")
    return bool(options.get("api_key") or options.get("client_cert") or basic)


def _variable(option, options, environ):
    """` named by VARIABLE` when an option's value stands in its environment variable, or kubectl's."""
    if option == "kubeconfig" and not options.get("kubeconfig"):
        return " named by KUBECONFIG" if environ.get("KUBECONFIG") else ", the default"
    variable = f"K8S_AUTH_{option.upper()}"
    return f" named by {variable}" if environ.get(variable) == options.get(option) else ""


def _decode(data):
    try:
        return json.loads(data)
    except ValueError:
        return None
