#!/usr/bin/python
# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lease
short_description: Let one run at a time change a cluster
description:
  - Takes a Lease (C(coordination.k8s.io)) for whoever runs the play, renews it, and gives it back. As long as another
    one holds it, the module fails and says who that is, when the Lease lapses, and how it can be taken away.
  - A Lease may be taken over when it has not been renewed for its duration. Times are those of the API server. One of a
    process that has ended on the same machine may be taken over at once.
author: The podnet.ipam contributors (@podnet)
extends_documentation_fragment:
  - podnet.ipam._attributes
  - podnet.ipam._connection
attributes:
  idempotent:
    support: none
    details: It is renewed each time.
options:
  name:
    description: Name of the Lease.
    type: str
    required: true
  namespace:
    description: Namespace of the Lease, which must exist.
    type: str
    required: true
  state:
    description:
      - V(present) takes the Lease, or renews it.
      - V(absent) deletes it if it is the holder's own, and leaves it alone otherwise.
    type: str
    choices: [present, absent]
    default: present
  holder:
    description: Who holds it, as others are told. By default it is the user and the name of the machine.
    type: str
  process:
    description:
      - ID of the process for which it is held, on the machine that the module runs on. It tells runs of one user from
        each other.
      - V(0) when it is not known. Runs of one holder do not keep each other out then.
    type: int
    default: 0
  duration:
    description: For how many seconds it is held unless it is renewed; at least one.
    type: int
    default: 300
seealso:
  - module: podnet.ipam.manifests
"""

EXAMPLES = r"""
- name: Keep other runs out
  podnet.ipam.lease:
    name: our-nodes
    namespace: kube-system
    duration: 120
    process: "{{ lookup('ansible.builtin.pipe', 'ps -o ppid= -p $PPID') | int }}"
  delegate_to: localhost
  run_once: true

- name: Let other runs in
  podnet.ipam.lease:
    name: our-nodes
    namespace: kube-system
    process: "{{ lookup('ansible.builtin.pipe', 'ps -o ppid= -p $PPID') | int }}"
    state: absent
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
operations:
  description: The write that was made, or would be made in check mode.
  returned: always
  type: list
  elements: dict
  contains:
    verb:
      description: V(create), V(replace) or V(delete).
      type: str
      returned: always
    kind:
      description: V(Lease).
      type: str
      returned: always
    namespace:
      description: Namespace of the Lease.
      type: str
      returned: always
    name:
      description: Name of the Lease.
      type: str
      returned: always
  sample:
    - {verb: create, kind: Lease, namespace: kube-system, name: our-nodes}
"""

from ansible_collections.podnet.ipam.plugins.module_utils import _argspec, _runner
from ansible_collections.podnet.ipam.plugins.module_utils._core.names import OBJECT_NAME
from ansible_collections.podnet.ipam.plugins.module_utils._kube.lease import Held, Lease, default_holder

OPTIONS = {
    "name": {"type": "str", "required": True},
    "namespace": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "holder": {"type": "str"},
    "process": {"type": "int", "default": 0},
    "duration": {"type": "int", "default": 300},
}


def problem(params):
    """What the options must not be, as a text; None when they are fine."""
    for option in ("name", "namespace"):
        if not OBJECT_NAME.fullmatch(params[option]):
            return f"{option} is {params[option]!r}, which has to be a name of lower-case letters, digits, '-' and '.'"
    if params["duration"] < 1:
        return f"duration is {params['duration']}, which has to be a second at least"
    return None


def main():
    module = _argspec.create_module(OPTIONS)
    wrong = problem(module.params)
    if wrong:
        module.fail_json(msg=wrong, operations=[])
    identity = {key: module.params[key] for key in ("namespace", "name")}
    holder = module.params["holder"] or default_holder()
    with _runner.reported(module):
        lease = Lease(_runner.connect(module), **identity, holder=holder, process=module.params["process"])
        try:
            verb = _verb(lease, module)
        except Held as held:
            module.fail_json(msg=str(held), operations=[])
    operations = [{"verb": verb, "kind": "Lease", **identity}] if verb else []
    diff = {"before": {}, "after": {"Lease": verb} if verb else {}}
    module.exit_json(changed=bool(verb), operations=operations, **({"diff": diff} if module._diff else {}))


def _verb(lease, module):
    """What was written, or would be in check mode; empty for nothing."""
    if module.params["state"] == "present":
        return lease.take(module.params["duration"], only_look=module.check_mode)
    return "delete" if lease.release(only_look=module.check_mode) else ""


if __name__ == "__main__":
    main()
