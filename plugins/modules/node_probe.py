#!/usr/bin/python
# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_probe
short_description: Prove that an IPAM plugin gives addresses
description:
  - Calls a CNI IPAM plugin on the machine that it runs on as a container runtime would, for a container that does not
    exist. It asks for the versions (VERSION) and for an address (ADD), has it checked (CHECK) and gives it back (DEL).
  - Fails unless all of that succeeds. That no pool serves the node is no failure; RV(refused) tells why. It is told
    from other errors by the key C(reason) of the plugin's answer, which is C(NoPool) then.
author: The podnet.ipam contributors (@podnet)
attributes:
  check_mode:
    description: Can run in C(check_mode) and return the changed status prediction without modifying the node.
    support: full
    details: In check mode it asks for the versions only, and where there is no such executable, for nothing.
  diff_mode:
    description: Returns details on what has changed, or would change in C(check_mode), when in diff mode.
    support: N/A
    details: It leaves nothing changed.
options:
  executable:
    description: The plugin.
    type: path
    required: true
  config:
    description: The network configuration as the main plugin hands it over.
    type: dict
    required: true
  container_id:
    description: ID of the container that does not exist. It is to differ from node to node.
    type: str
    required: true
  bin_dir:
    description: Folder of the CNI executables.
    type: path
    default: /opt/cni/bin
seealso:
  - name: CNI specification
    description: The calls and their answers.
    link: https://www.cni.dev/docs/spec/
"""

EXAMPLES = r"""
- name: Prove that addresses can be had
  podnet.ipam.node_probe:
    executable: /opt/cni/bin/podnet-ipam
    container_id: probe-of-node-1
    config:
      cniVersion: 1.0.0
      name: k8s-pod-network
      type: ptp
      ipam:
        type: podnet-ipam
"""

RETURN = r"""
versions:
  description: The versions of the CNI specification that the plugin supports.
  returned: when the executable was called
  type: list
  elements: str
  sample: [0.3.1, 0.4.0, 1.0.0, 1.1.0]
addresses:
  description: What was given, with prefix length, and is given back.
  returned: when an address was asked for
  type: list
  elements: str
  sample: [10.244.1.7/32]
refused:
  description: Why no pool serves the node; empty when one does.
  returned: when an address was asked for
  type: str
  sample: no pool selects node node-1
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule

OPTIONS = {
    "executable": {"type": "path", "required": True},
    "config": {"type": "dict", "required": True},
    "container_id": {"type": "str", "required": True},
    "bin_dir": {"type": "path", "default": "/opt/cni/bin"},
}
# The plugin's own key beside CNI's code 7, "invalid network config", which a wrong configuration has as well.
NO_POOL = "NoPool"


class Refused(Exception):
    """The plugin answered with an error, or not as the specification has it."""

    def __init__(self, verb, status, answer, errors):
        self.reason, self.text = error_of(answer)
        told = f"{self.text or answer.strip()} {errors.strip()}".strip()
        super().__init__(f"CNI {verb}: exit status {status}: {told}")


class Plugin:
    """The executable, called as a container runtime calls it."""

    def __init__(self, module):
        self._module = module
        self._executable = module.params["executable"]
        self._environment = {
            "CNI_CONTAINERID": module.params["container_id"],
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": "/proc/self/ns/net",
            "CNI_PATH": module.params["bin_dir"],
        }

    def call(self, verb, config=None):
        """The answer to one call, None for an empty one. Refused where it fails, OSError where it reads no `config`."""
        status, answer, errors = self._module.run_command(
            [self._executable],
            data=None if config is None else json.dumps(config),
            environ_update={**self._environment, "CNI_COMMAND": verb},
            handle_exceptions=False,
        )
        if status != 0:
            raise Refused(verb, status, answer, errors)
        try:
            return json.loads(answer) if answer.strip() else None
        except ValueError:
            raise Refused(verb, status, answer, errors) from None


def error_of(answer):
    """(reason, text) of a CNI error; two empty ones where the answer is none."""
    try:
        error = json.loads(answer)
        return error.get("reason", ""), ": ".join(str(error[key]) for key in ("msg", "details") if error.get(key))
    except (ValueError, AttributeError):
        return "", ""


def supported(plugin, config):
    """The versions that the plugin supports. ValueError where the configuration's is not among them."""
    versions = (plugin.call("VERSION") or {}).get("supportedVersions") or []
    if config.get("cniVersion") not in versions:
        raise ValueError(
            f"it supports the CNI versions {', '.join(versions) or 'none'}, not {config.get('cniVersion')}"
        )
    return versions


def probe(plugin, config):
    """Ask for an address, have it checked, and give it back, whatever happens. (addresses, why no pool serves)."""
    try:
        try:
            given = plugin.call("ADD", config) or {}
        except Refused as refused:
            if refused.reason != NO_POOL:
                raise
            return [], refused.text
        plugin.call("CHECK", {**config, "prevResult": given})
        return [each["address"] for each in given.get("ips") or ()], ""
    finally:
        plugin.call("DEL", config)


def main():
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    executable, config = module.params["executable"], module.params["config"]
    if module.check_mode and not os.path.exists(executable):
        module.exit_json(changed=False)
    plugin, result = Plugin(module), {}
    try:
        result["versions"] = supported(plugin, config)
        if not module.check_mode:
            result["addresses"], result["refused"] = probe(plugin, config)
    except (OSError, ValueError, Refused) as error:
        # Where not even giving back succeeds, what failed before it counts as well.
        earlier = f"{error.__context__}; " if isinstance(error.__context__, Refused) else ""
        module.fail_json(msg=f"{executable}: {earlier}{error}", **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
