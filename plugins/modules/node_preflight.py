#!/usr/bin/python
# Copyright: the podnet.ipam contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_preflight
short_description: Find what stands in the way of the node plugin on a node
description:
  - Looks at the machine that it runs on, a Kubernetes node, and reports at once all that the role
    P(podnet.ipam.cni_ipam#role) would stumble over.
  - Looks at the values of the role's variables, Python, systemd, disk space, the container runtime's CNI folders, the
    CNI executables, the CNI configuration in force and the pods that run with it, the API server and the clock.
  - Of the folders, C(containerd config dump) and CRI-O on its socket are asked; where they do not answer, the runtime's
    files are read.
author: The podnet.ipam contributors (@podnet)
extends_documentation_fragment:
  - podnet.ipam._attributes.node_info
options:
  main_plugin:
    description: The plugin that is to connect pods, as the role's C(cni_ipam_main_plugin).
    type: str
    choices: [ptp, bridge, macvlan, ipvlan, calico, none]
    default: ptp
  executables:
    description: Names of the CNI executables that the configuration to come needs.
    type: list
    elements: str
    default: []
  conflist:
    description: File name of the CNI configuration to come.
    type: str
    required: true
  network:
    description: Name of its network.
    type: str
    required: true
  replace_network:
    description: Whether configurations that are read before O(conflist) are going to be set aside.
    type: bool
    default: false
  config_dir:
    description: Folder in which the role notes which CNI configurations it wrote, as it replaces these in any case.
    type: path
    default: /etc/podnet-ipam
  net_dir:
    description: Folder of the CNI configurations.
    type: path
    default: /etc/cni/net.d
  bin_dir:
    description: Folder of the CNI executables.
    type: path
    default: /opt/cni/bin
  install_dir:
    description: Folder in which versions are installed; it need not exist.
    type: path
    default: /opt/podnet-ipam
  bridge:
    description: Name of the bridge that O(main_plugin=bridge) makes.
    type: str
    default: cni0
  master:
    description: The node's interface below V(macvlan) and V(ipvlan); empty for the one of the default route.
    type: str
    default: ""
  mode:
    description: Mode of V(macvlan) and V(ipvlan); empty for the plugin's default.
    type: str
    default: ""
  mtu:
    description: MTU of the pods' interfaces; 0 for the plugin's own.
    type: int
    default: 0
  families:
    description: Families of which a pod gets an address each.
    type: list
    elements: str
    choices: [IPv4, IPv6]
    default: [IPv4]
  gateways:
    description: Gateways on the pods' segment.
    type: list
    elements: str
    default: []
  subnets:
    description: CIDRs of links that are larger than a pool.
    type: list
    elements: str
    default: []
  metrics:
    description: Loopback address and port of metrics and health; empty for none.
    type: str
    default: "127.0.0.1:9764"
  cooldown:
    description: Seconds for which a freed address is not given out again.
    type: int
    default: 30
  keep_blocks:
    description: Seconds for which an empty block is kept.
    type: int
    default: 900
  spare_blocks:
    description: Blocks to claim ahead in each pool in use.
    type: int
    default: 0
  token_lifetime:
    description: Seconds for which the node's token is to be good.
    type: int
    default: 604800
  test_seconds:
    description: Seconds that the test pod may take to run.
    type: int
    default: 120
  api_server:
    description: URL of the API server; left out, it is not asked.
    type: str
notes:
  - The API server's certificate is not looked at, as any answer shows what is looked for. No credentials are sent.
  - Works with Python 3.9 and newer, to tell that the node plugin does not. Before 3.11 the configuration of the
    container runtime cannot be read, and is left out.
seealso:
  - module: podnet.ipam.cluster_preflight
"""

EXAMPLES = r"""
- name: Look at the node
  podnet.ipam.node_preflight:
    conflist: 10-podnet.conflist
    network: k8s-pod-network
    executables: [ptp, portmap]
    api_server: https://192.0.2.10:6443
  register: preflight

- name: Nothing stands in the way
  ansible.builtin.assert:
    that: preflight.findings | selectattr('severity', '==', 'error') | length == 0
    fail_msg: "{{ preflight.findings | map(attribute='message') }}"
"""

RETURN = r"""
findings:
  description: All that was found.
  returned: success
  type: list
  elements: dict
  contains:
    severity:
      description: V(error) is what makes the role fail or pods lose their network, V(warning) what should be known.
      type: str
      returned: always
    check:
      description: >-
        One of V(variables), V(python), V(systemd), V(disk), V(runtime), V(executables), V(network), V(pods),
        V(api_server), V(clock).
      type: str
      returned: always
    message:
      description: What is wrong, with what value, and what would be right.
      type: str
      returned: always
  sample:
    - severity: error
      check: disk
      message: /opt/podnet-ipam has 12 MB free; 150 MB are needed to install a version beside the last
"""

import glob
import os
from functools import partial

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.podnet.ipam.plugins.module_utils import _preflight, _settings

OPTIONS = {
    "main_plugin": {
        "type": "str",
        "choices": ["ptp", "bridge", "macvlan", "ipvlan", "calico", "none"],
        "default": "ptp",
    },
    "executables": {"type": "list", "elements": "str", "default": []},
    "conflist": {"type": "str", "required": True},
    "network": {"type": "str", "required": True},
    "replace_network": {"type": "bool", "default": False},
    "config_dir": {"type": "path", "default": "/etc/podnet-ipam"},
    "net_dir": {"type": "path", "default": "/etc/cni/net.d"},
    "bin_dir": {"type": "path", "default": "/opt/cni/bin"},
    "install_dir": {"type": "path", "default": "/opt/podnet-ipam"},
    "bridge": {"type": "str", "default": "cni0"},
    "master": {"type": "str", "default": ""},
    "mode": {"type": "str", "default": ""},
    "mtu": {"type": "int", "default": 0},
    "families": {"type": "list", "elements": "str", "choices": ["IPv4", "IPv6"], "default": ["IPv4"]},
    "gateways": {"type": "list", "elements": "str", "default": []},
    "subnets": {"type": "list", "elements": "str", "default": []},
    "metrics": {"type": "str", "default": "127.0.0.1:9764"},
    "cooldown": {"type": "int", "default": 30},
    "keep_blocks": {"type": "int", "default": 900},
    "spare_blocks": {"type": "int", "default": 0},
    "token_lifetime": {"type": "int", "default": 604800, "no_log": False},
    "test_seconds": {"type": "int", "default": 120},
    "api_server": {"type": "str"},
}


def runtime(module):
    """Findings on the container runtime; none where its configuration cannot be read for want of a newer Python."""
    try:
        folders = _preflight.runtime_folders(partial(module.run_command, handle_exceptions=False))
    except ImportError:
        return
    except ValueError as error:
        yield _preflight.finding(_preflight.ERROR, "runtime", str(error))
        return
    params = module.params
    yield from _preflight.runtime(folders, params["net_dir"], params["bin_dir"], params["network"])


def network(params):
    """Findings on the CNI configuration in force."""
    wanted = {key: params[key] for key in ("main_plugin", "conflist", "network")}
    wanted["replace"] = params["replace_network"]
    try:
        leaving = {os.path.basename(each) for each in glob.glob(os.path.join(glob.escape(params["config_dir"]), "*"))}
        found = _preflight.in_force(params["net_dir"], leaving - {params["conflist"]})
    except ValueError as error:
        yield _preflight.finding(_preflight.ERROR, "network", str(error))
        return
    pods = _preflight.present_pods(_preflight.ipam_of(found[1])[0]) if found else []
    yield from _preflight.network(found, pods, wanted)


def main():
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    params = module.params
    findings = [
        *(_preflight.finding(_preflight.ERROR, "variables", each) for each in _settings.complaints(params)),
        *_preflight.python(),
        *_preflight.systemd(),
        *_preflight.disk(params["install_dir"]),
        *runtime(module),
        *_preflight.executables(params["bin_dir"], params["executables"]),
        *network(params),
        *(_preflight.api_server(params["api_server"]) if params["api_server"] else ()),
    ]
    module.exit_json(changed=False, findings=findings)


if __name__ == "__main__":
    main()
