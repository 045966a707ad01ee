#!/usr/bin/python
# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_preflight
short_description: Find what stands in the way of the node plugin in a cluster
description:
  - Reports at once which rights the user lacks, and where the cluster's IP pools do not fit what pods are to get.
  - The API server is asked what it would allow (C(SelfSubjectAccessReview)); nothing is tried out.
author: The podnet.ipam contributors (@podnet)
extends_documentation_fragment:
  - podnet.ipam._attributes.info_module
  - podnet.ipam._connection
options:
  access:
    description: The rights that are needed.
    type: list
    elements: dict
    default: []
    suboptions:
      verbs:
        description: Verbs of the API server, such as V(create).
        type: list
        elements: str
        required: true
      group:
        description: API group; left out, the core group.
        type: str
        default: ''
      resources:
        description: Resources in the plural; a part of one after a slash.
        type: list
        elements: str
        required: true
      namespace:
        description: Namespace in which the right is needed; left out, in all.
        type: str
  families:
    description: The families of which a pod is to get an address each.
    type: list
    elements: str
    choices: [IPv4, IPv6]
    default: [IPv4]
  pools:
    description: Pools, by name or CIDR, that pods are to draw from without an assignment of theirs.
    type: list
    elements: str
    default: []
requirements:
  - netaddr
seealso:
  - module: podnet.ipam.node_preflight
"""

EXAMPLES = r"""
- name: May this user install the node plugin?
  podnet.ipam.cluster_preflight:
    access:
      - group: apiextensions.k8s.io
        resources: [customresourcedefinitions]
        verbs: [get, create, patch]
    families: [IPv4, IPv6]
  register: preflight
"""

RETURN = r"""
findings:
  description: All that was found.
  returned: success
  type: list
  elements: dict
  contains:
    severity:
      description: V(error) or V(warning).
      type: str
      returned: always
    check:
      description: One of V(api_server), V(access), V(pools), V(pod_cidrs).
      type: str
      returned: always
    message:
      description: What is wrong, with what value, and what would be right.
      type: str
      returned: always
  sample:
    - severity: warning
      check: pools
      message: "no IPv6 pool is there and enabled: pods wait until ip_pools has declared one"
"""

from ansible.module_utils.basic import missing_required_lib
from ansible_collections.podnet.ipam.plugins.module_utils import _argspec, _runner
from ansible_collections.podnet.ipam.plugins.module_utils._kube import observe
from ansible_collections.podnet.ipam.plugins.module_utils._kube.access import Access
from ansible_collections.podnet.ipam.plugins.module_utils._kube.connection import open_connection
from ansible_collections.podnet.ipam.plugins.module_utils._kube.errors import ApiError, Unreachable
from ansible_collections.podnet.ipam.plugins.module_utils._kube.network import Network
from ansible_collections.podnet.ipam.plugins.module_utils._plan import preflight, ranges

OPTIONS = {
    "access": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "verbs": {"type": "list", "elements": "str", "required": True},
            "group": {"type": "str", "default": ""},
            "resources": {"type": "list", "elements": "str", "required": True},
            "namespace": {"type": "str"},
        },
    },
    "families": {"type": "list", "elements": "str", "choices": ["IPv4", "IPv6"], "default": ["IPv4"]},
    "pools": {"type": "list", "elements": "str", "default": []},
}


def denied(client, wanted):
    """The rights of the option `access` that the user lacks."""
    for each in wanted:
        for resource in each["resources"]:
            for verb in each["verbs"]:
                if not client.allows(verb, each["group"], resource, each["namespace"]):
                    yield {"verb": verb, "group": each["group"], "resource": resource, "namespace": each["namespace"]}


def main():
    module = _argspec.create_module(OPTIONS)
    if ranges.NETADDR_IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("netaddr"), exception=ranges.NETADDR_IMPORT_ERROR)
    families = [int(family[-1]) for family in module.params["families"]]
    with _runner.reported(module):
        try:
            client = Access(open_connection(module.params))
            findings = list(preflight.denied(denied(client, module.params["access"])))
            # Without the right to read them, the pools say nothing.
            if not findings:
                api, pools = observe.pools(client)
                cidrs = Network(client, api).pod_cidrs
                findings += preflight.findings(pools, cidrs, families, module.params["pools"])
        except Unreachable as error:
            findings = [preflight.unreachable(str(error))]
        except ApiError as error:
            findings = [preflight.refused(f"{error} (from {error.origin})", unknown_user=error.status == 401)]
    module.exit_json(changed=False, findings=findings)


if __name__ == "__main__":
    main()
