# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Which addresses are in use, by what: pods, tunnels of nodes, load balancers of services.

Source: the set that `calicoctl ipam check` of Calico 3.29 to 3.33 compares its blocks with. It leaves out the IPv6
addresses of tunnels and the addresses by which nodes keep spare blocks, and so calls them leaked; here they are in use.
"""

from __future__ import annotations

import ipaddress
import json
from typing import NamedTuple

from .._core.names import NETWORK_STATUS_ANNOTATION, POD_IP_ANNOTATION, POD_IPS_ANNOTATION
from .address_index import number

_FINISHED = ("Succeeded", "Failed", "Completed")
# Annotations of a node, and whether calicoctl knows them.
TUNNEL_ANNOTATIONS = {
    "projectcalico.org/IPv4IPIPTunnelAddr": True,
    "projectcalico.org/IPv4VXLANTunnelAddr": True,
    "projectcalico.org/IPv4WireguardInterfaceAddr": True,
    "projectcalico.org/IPv6VXLANTunnelAddr": False,
    "projectcalico.org/IPv6WireguardInterfaceAddr": False,
}


class User(NamedTuple):
    """Who uses an address. `obj` is the Pod, Node or Service; `seen_by_calicoctl`: whether it counts it, too."""

    kind: str
    namespace: str | None
    name: str
    obj: dict
    seen_by_calicoctl: bool = True

    def __str__(self):
        place = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind.lower()} {place}{self.name}"

    @property
    def look(self):
        return self.kind, self.namespace, self.name

    @property
    def is_leaving(self):
        """Whether its address may be free already, and even given out again, while the object is still there."""
        return bool(self.obj["metadata"].get("deletionTimestamp"))


def users(pods, addresses, nodes, services, spares, is_ours):
    """{number of the address: [User]}. `pods` and their `addresses` are given by namespace and name.

    `spares` are the Allocations that keep spare blocks. Of services only addresses count of which `is_ours(number)` is
    true.
    """
    found = {}
    for (namespace, name), pod in pods.items():
        user = User("Pod", namespace, name, pod)
        for value in addresses[namespace, name]:
            found.setdefault(value, []).append(user)
    for node in nodes:
        for value, known in _tunnels(node):
            found.setdefault(value, []).append(User("Node", None, node["metadata"]["name"], node, known))
    by_name = {node["metadata"]["name"]: node for node in nodes}
    for each in spares:
        if each.node in by_name:
            user = User("Node", None, each.node, by_name[each.node], seen_by_calicoctl=False)
            found.setdefault(each.value, []).append(user)
    for service in services:
        user = User("Service", service["metadata"]["namespace"], service["metadata"]["name"], service)
        for ingress in ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ():
            value = _number(ingress.get("ip"))
            if value is not None and is_ours(value):
                found.setdefault(value, []).append(user)
    return found


def pod_addresses(pod):
    """The numbers of a pod's own addresses; [] of one that has none yet, has given them back, or uses its node's."""
    if is_finished(pod) or is_host_networked(pod) or not pod["spec"].get("nodeName"):
        return []
    status, annotations = pod.get("status") or {}, pod["metadata"].get("annotations") or {}
    texts = [each.get("ip") for each in status.get("podIPs") or ()] or [status.get("podIP")]
    if not any(texts):
        texts = (annotations.get(POD_IPS_ANNOTATION) or annotations.get(POD_IP_ANNOTATION) or "").split(",")
    values = (_number(text) for text in texts)
    return [value for value in values if value is not None]


def further_addresses(pod):
    """The numbers of the addresses of all its interfaces, as Multus notes them: its status has those of the first."""
    text = (pod["metadata"].get("annotations") or {}).get(NETWORK_STATUS_ANNOTATION)
    try:
        return {_number(ip) for network in json.loads(text or "[]") for ip in network.get("ips") or ()}
    except (ValueError, TypeError, AttributeError):
        return set()


def may_have(pod, value):
    """Whether a pod that is not known to use an address may do so all the same: while it starts, or besides others."""
    starting = not (is_finished(pod) or is_host_networked(pod) or pod_addresses(pod))
    return starting or value in further_addresses(pod)


def is_finished(pod):
    """Whether a pod has given its addresses back: it has ended, or Calico's CNI plugin has said so."""
    metadata = pod["metadata"]
    released = metadata.get("deletionTimestamp") and (metadata.get("annotations") or {}).get(POD_IP_ANNOTATION) == ""
    return bool(released) or (pod.get("status") or {}).get("phase") in _FINISHED


def is_host_networked(pod):
    return bool(pod["spec"].get("hostNetwork"))


def _tunnels(node):
    annotations = node["metadata"].get("annotations") or {}
    for key, known in TUNNEL_ANNOTATIONS.items():
        value = _number(annotations.get(key))
        if value is not None:
            yield value, known


def _number(text):
    """The number of an address, with or without a prefix length; None when it is none."""
    try:
        return number(ipaddress.ip_address(text.partition("/")[0]))
    except (ValueError, AttributeError):
        return None
