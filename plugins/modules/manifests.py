#!/usr/bin/python
# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: manifests
short_description: Bring Kubernetes objects to a cluster as they are declared
description:
  - Applies manifests of any kind by server-side apply, with the field manager C(podnet.ipam), all of them in one task.
  - Roles of this collection set up a cluster with it, so that they need no other collection.
author: The podnet.ipam contributors (@podnet)
extends_documentation_fragment:
  - podnet.ipam._attributes
  - podnet.ipam._connection
options:
  manifests:
    description:
      - The objects, in the order in which they are applied. Each needs C(apiVersion), C(kind) and C(metadata.name).
    type: list
    elements: dict
    required: true
  state:
    description:
      - V(present) creates what does not exist and sees that the declared fields are as declared, whoever set them last.
        Fields that an earlier declaration had and the present one has not are removed.
      - V(patched) merges the manifests into objects that must exist (JSON merge patch), and removes nothing.
      - V(absent) deletes what exists of them, and waits until it is gone. Only kind, namespace and name matter.
    type: str
    choices: [present, patched, absent]
    default: present
  overwrite:
    description:
      - With O(state=present) and O(state=absent), which of the objects that exist may be changed or deleted.
      - V(owned) leaves those alone that lack the label C(app.kubernetes.io/managed-by=podnet.ipam), V(never) all.
    type: str
    choices: [always, owned, never]
    default: always
  wait_timeout:
    description:
      - How many seconds to wait for an object to be gone, and for what the cluster adds to a new object by itself.
      - That is the condition C(Established) of a CustomResourceDefinition. Other new objects are not waited for.
    type: int
    default: 60
notes:
  - In check mode the API server validates and completes the objects without storing them. What it cannot judge, as it
    needs a namespace or a kind that does not exist yet, is predicted with a warning.
  - Neither diffs nor results show what a C(Secret) holds. The options of the task are Ansible's to show, or with
    C(no_log) not.
seealso:
  - module: podnet.ipam.ip_pools
"""

EXAMPLES = r"""
- name: Never lend a node's addresses to another node
  podnet.ipam.manifests:
    overwrite: never
    manifests:
      - apiVersion: crd.projectcalico.org/v1
        kind: IPAMConfig
        metadata:
          name: default
        spec:
          strictAffinity: true
          autoAllocateBlocks: true

- name: Label a node
  podnet.ipam.manifests:
    state: patched
    manifests:
      - apiVersion: v1
        kind: Node
        metadata:
          name: node-1
          labels:
            rack: "1"
"""

RETURN = r"""
resources:
  description:
    - The objects in the order of O(manifests), as they are now, or would be in check mode.
    - Those that are no more are left out, and so is what a C(Secret) holds.
  returned: success
  type: list
  elements: dict
  sample:
    - apiVersion: v1
      kind: Namespace
      metadata:
        name: podnet-ipam
operations:
  description: The writes that were made, or would be made in check mode, in their order.
  returned: always
  type: list
  elements: dict
  contains:
    verb:
      description: V(create), V(patch) or V(delete).
      type: str
      returned: always
    kind:
      description: Kind of the object.
      type: str
      returned: always
    namespace:
      description: Namespace of the object.
      type: str
      returned: when the object has one
    name:
      description: Name of the object.
      type: str
      returned: always
  sample:
    - {verb: create, kind: Namespace, name: podnet-ipam}
"""

from ansible_collections.podnet.ipam.plugins.module_utils import _argspec, _runner
from ansible_collections.podnet.ipam.plugins.module_utils._kube import manifests
from ansible_collections.podnet.ipam.plugins.module_utils._kube.connection import open_connection

OPTIONS = {
    "manifests": {"type": "list", "elements": "dict", "required": True},
    "state": {"type": "str", "choices": ["present", "patched", "absent"], "default": "present"},
    "overwrite": {"type": "str", "choices": ["always", "owned", "never"], "default": "always"},
    "wait_timeout": {"type": "int", "default": 60},
}


def main():
    module = _argspec.create_module(OPTIONS)
    state, overwrite, seconds = (module.params[option] for option in ("state", "overwrite", "wait_timeout"))
    problems = [problem for each in module.params["manifests"] for problem in manifests.problems(each)]
    if problems:
        module.fail_json(msg="; ".join(problems), operations=[])
    progress = manifests.Progress()
    with _runner.reported(module, progress):
        applier = manifests.Applier(open_connection(module.params), module.check_mode)
        for manifest in module.params["manifests"]:
            progress.outcomes.append(manifests.bring_about(applier, manifest, state, overwrite, seconds))
    for outcome in progress.outcomes:
        if outcome.guess:
            module.warn(outcome.guess)
    module.exit_json(**progress.result(with_diff=module._diff))


if __name__ == "__main__":
    main()
