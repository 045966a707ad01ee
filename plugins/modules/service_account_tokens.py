#!/usr/bin/python
# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_account_tokens
short_description: Give service accounts tokens that expire, where they have none that is good
description:
  - Requests tokens of service accounts (C(TokenRequest)) for those who have none that the API server accepts, all of
    them in one task.
  - A token that is accepted as its account's is left as it is until nine tenths of its lifetime are over. Whoever uses
    it is expected to renew it before.
author: The podnet.ipam contributors (@podnet)
extends_documentation_fragment:
  - podnet.ipam._attributes
  - podnet.ipam._connection
options:
  accounts:
    description: The accounts, and the tokens that their users have now.
    type: list
    elements: dict
    required: true
    suboptions:
      namespace:
        description: Namespace of the account.
        type: str
        required: true
      name:
        description: Name of the account.
        type: str
        required: true
      token:
        description: The token that is in use. Empty when there is none.
        type: str
        default: ""
  lifetime:
    description:
      - For how many seconds a new token is to be good. The API server refuses less than 600, and may grant less than it
        is asked for.
    type: int
    default: 604800
notes:
  - The result holds secrets. Set C(no_log) for the task.
  - In check mode, tokens are reviewed but not requested.
seealso:
  - module: podnet.ipam.manifests
"""

EXAMPLES = r"""
- name: Read the token that the node has
  ansible.builtin.slurp:
    src: /var/lib/agent/token
  register: current
  no_log: true

- name: Give it a new one if that one is of no use any more
  podnet.ipam.service_account_tokens:
    lifetime: 86400
    accounts:
      - namespace: agents
        name: agent-node-1
        token: "{{ current.content | b64decode }}"
  delegate_to: localhost
  register: issued
  no_log: true
"""

RETURN = r"""
tokens:
  description: The new tokens. An account that has a good one is not among them; in check mode, none is.
  returned: success
  type: list
  elements: dict
  contains:
    namespace:
      description: Namespace of the account.
      type: str
      returned: always
    name:
      description: Name of the account.
      type: str
      returned: always
    token:
      description: The token.
      type: str
      returned: always
  sample:
    - {namespace: agents, name: agent-node-1, token: eyJhbGciOi...}
operations:
  description: The requests that were made, or would be made in check mode.
  returned: always
  type: list
  elements: dict
  contains:
    verb:
      description: V(create).
      type: str
      returned: always
    kind:
      description: V(TokenRequest).
      type: str
      returned: always
    namespace:
      description: Namespace of the account.
      type: str
      returned: always
    name:
      description: Name of the account.
      type: str
      returned: always
  sample:
    - {verb: create, kind: TokenRequest, namespace: agents, name: agent-node-1}
"""

from ansible_collections.podnet.ipam.plugins.module_utils import _argspec, _runner
from ansible_collections.podnet.ipam.plugins.module_utils._kube.accounts import Accounts
from ansible_collections.podnet.ipam.plugins.module_utils._kube.connection import open_connection

ACCOUNT = {
    "namespace": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "token": {"type": "str", "default": "", "no_log": True},
}
OPTIONS = {
    "accounts": {"type": "list", "elements": "dict", "required": True, "options": ACCOUNT},
    "lifetime": {"type": "int", "default": 604800},
}


def main():
    module = _argspec.create_module(OPTIONS)
    tokens, operations = [], []
    with _runner.reported(module):
        accounts = Accounts(open_connection(module.params))
        for each in module.params["accounts"]:
            identity = {"namespace": each["namespace"], "name": each["name"]}
            if accounts.is_good(*identity.values(), each["token"]):
                continue
            if not module.check_mode:
                tokens.append({**identity, "token": accounts.new_token(*identity.values(), module.params["lifetime"])})
            operations.append({"verb": "create", "kind": "TokenRequest", **identity})
    diff = {"before": {}, "after": {f"token of {each['namespace']}/{each['name']}": "new" for each in operations}}
    module.exit_json(
        changed=bool(operations), tokens=tokens, operations=operations, **({"diff": diff} if module._diff else {})
    )


if __name__ == "__main__":
    main()
