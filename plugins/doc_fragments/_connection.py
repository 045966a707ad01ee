# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    # How to reach the API server: names and environment variables of kubernetes.core.

    DOCUMENTATION = r"""
options:
  kubeconfig:
    description:
      - Path of a kubeconfig, or its content as a mapping. Of a mapping, the secrets are kept from logs and results.
      - The text of a file, as C(ansible.builtin.file) gives it, is refused; C(ansible.builtin.from_yaml)
        makes a mapping of it.
      - Without it, and without O(host), the file that E(KUBECONFIG) names is read, else C(~/.kube/config), else the
        service account of the pod that the module runs in is used.
      - Can also be given as E(K8S_AUTH_KUBECONFIG).
    type: raw
  context:
    description:
      - The context of the kubeconfig to use; its current one by default.
      - Can also be given as E(K8S_AUTH_CONTEXT).
    type: str
  host:
    description:
      - URL of the API server. With credentials beside it (O(api_key), O(client_cert), or O(username) and O(password))
        no kubeconfig is read; otherwise it replaces the kubeconfig's.
      - Can also be given as E(K8S_AUTH_HOST).
    type: str
  api_key:
    description:
      - Bearer token.
      - Can also be given as E(K8S_AUTH_API_KEY).
    type: str
  username:
    description:
      - User name for basic authentication, which only a proxy before the API server can offer.
      - Can also be given as E(K8S_AUTH_USERNAME).
    type: str
  password:
    description:
      - Password for basic authentication.
      - Can also be given as E(K8S_AUTH_PASSWORD).
    type: str
  client_cert:
    description:
      - Path of a client certificate.
      - Can also be given as E(K8S_AUTH_CERT_FILE).
    type: path
    aliases: [cert_file]
  client_key:
    description:
      - Path of the client certificate's key.
      - Can also be given as E(K8S_AUTH_KEY_FILE).
    type: path
    aliases: [key_file]
  ca_cert:
    description:
      - Path of the CA certificate that the API server's certificate is verified with.
      - Can also be given as E(K8S_AUTH_SSL_CA_CERT).
    type: path
    aliases: [ssl_ca_cert]
  validate_certs:
    description:
      - Whether to verify the API server's certificate.
      - Can also be given as E(K8S_AUTH_VERIFY_SSL).
    type: bool
    aliases: [verify_ssl]
  proxy:
    description:
      - URL of an HTTP proxy.
      - Can also be given as E(K8S_AUTH_PROXY).
    type: str
  no_proxy:
    description:
      - Hosts, separated by commas, that are reached without the proxy.
      - Can also be given as E(K8S_AUTH_NO_PROXY).
    type: str
  proxy_headers:
    description: Headers for the HTTP proxy.
    type: dict
    suboptions:
      proxy_basic_auth:
        description:
          - User name and password for the proxy, with a colon between them.
          - Can also be given as E(K8S_AUTH_PROXY_HEADERS_PROXY_BASIC_AUTH).
        type: str
      basic_auth:
        description:
          - The same for header C(authorization), which few proxies look at.
          - Can also be given as E(K8S_AUTH_PROXY_HEADERS_BASIC_AUTH).
        type: str
      user_agent:
        description:
          - What the client calls itself, such as V(foo/1.0).
          - Can also be given as E(K8S_AUTH_PROXY_HEADERS_USER_AGENT).
        type: str
  persist_config:
    description:
      - Whether to save tokens that were renewed to the kubeconfig. They are not by default.
      - Can also be given as E(K8S_AUTH_PERSIST_CONFIG).
    type: bool
  impersonate_user:
    description:
      - User to act as.
      - Can also be given as E(K8S_AUTH_IMPERSONATE_USER).
    type: str
  impersonate_groups:
    description:
      - Groups to act as a member of.
      - Can also be given as E(K8S_AUTH_IMPERSONATE_GROUPS), separated by commas.
    type: list
    elements: str
requirements:
  - kubernetes >= 28.1
"""
