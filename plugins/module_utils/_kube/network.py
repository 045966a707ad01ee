# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What a cluster says about its network: nodes, and the CIDRs of pods and of services.

No single place says it in every cluster. What does not exist, or may not be read (403), is unknown; then the next place
is asked. CIDRs are (tuple of texts, who says so, whether there may be more of them).
"""

from __future__ import annotations

import re
from functools import cached_property

from . import observe, resources
from .calico import CONFIG_NAME
from .errors import Forbidden, NotFound

_SYSTEM = "kube-system"


class Network:
    """Reads each source once, and only when it is asked for."""

    def __init__(self, client, api):
        self._client = client
        self._api = api

    @cached_property
    def nodes(self):
        """Nodes with name, labels, podCIDRs and addresses; None when they cannot be read."""
        return self._known(lambda: tuple(self._client.list(resources.path("Node"), keep=_used_of_node)))

    @cached_property
    def windows_nodes(self):
        """Names of the nodes that run Windows, as far as they can be read."""
        path = resources.path("Node")
        found = self._known(lambda: self._client.list(path, labelSelector="kubernetes.io/os=windows")) or ()
        return tuple(sorted(node["metadata"]["name"] for node in found))

    @cached_property
    def pod_cidrs(self):
        """The CIDRs of pods, or None."""
        return (
            self._kubeadm("podSubnet")
            or self._kube_proxy()
            or self._flag("kube-controller-manager", "cluster-cidr")
            or self._of_nodes()
        )

    @cached_property
    def service_cidrs(self):
        """The CIDRs of services, or None."""
        return (
            self._service_objects()
            or self._kubeadm("serviceSubnet")
            or self._flag("kube-apiserver", "service-cluster-ip-range")
        )

    @cached_property
    def strict_affinity(self):
        """Whether nodes may take addresses only from their own blocks; None when that is not said."""
        path = self._api.path(self._api.config_kind, CONFIG_NAME)
        config = self._known(lambda: self._client.get(path)) or {}
        return (config.get("spec") or {}).get("strictAffinity")

    @property
    def installation(self):
        """The Calico operator's Installation `default`, which lists the pools that are the operator's, or None."""
        return self._installation[0]

    @property
    def hides_installation(self):
        """Whether the cluster has, or may have, the operator's kinds, but this user may not read them."""
        return self._installation[1]

    @cached_property
    def _installation(self):
        try:
            return observe.installation(self._client), False
        except Forbidden:
            return None, self._known(lambda: observe.serves(self._client, observe.INSTALLATIONS)) is not False

    def _known(self, read):
        """What `read` returns, or None."""
        try:
            return read()
        except (Forbidden, NotFound):
            return None

    def _kubeadm(self, field):
        networking = self._cluster_configuration.get("networking")
        cidrs = networking.get(field) if isinstance(networking, dict) else None
        return _cidrs(cidrs, f"ConfigMap {_SYSTEM}/kubeadm-config")

    @cached_property
    def _cluster_configuration(self):
        return self._config("kubeadm-config", "ClusterConfiguration")

    def _kube_proxy(self):
        cidrs = self._config("kube-proxy", "config.conf").get("clusterCIDR")
        return _cidrs(cidrs, f"ConfigMap {_SYSTEM}/kube-proxy")

    def _config(self, name, key):
        """What a ConfigMap holds under `key` in YAML, {} when there is no such thing."""
        import yaml  # comes with the kubernetes client

        config = self._known(lambda: self._client.get(resources.path("ConfigMap", name, _SYSTEM))) or {}
        try:
            content = yaml.safe_load((config.get("data") or {}).get(key) or "")
        except yaml.YAMLError:
            content = None
        return content if isinstance(content, dict) else {}

    def _flag(self, component, flag):
        """A flag of a static pod of the control plane."""
        path = resources.path("Pod", namespace=_SYSTEM)
        for pod in self._known(lambda: self._client.list(path, labelSelector=f"component={component}")) or ():
            for container in pod["spec"]["containers"]:
                words = " ".join([*(container.get("command") or ()), *(container.get("args") or ())])
                found = re.search(rf"--{flag}[= ]\"?([^\s\"']+)", words)
                if found:
                    return _cidrs(found[1], f"flag --{flag} of pod {_SYSTEM}/{pod['metadata']['name']}")
        return None

    def _service_objects(self):
        objects = self._known(lambda: self._client.list(resources.path("ServiceCIDR"))) or ()
        cidrs = [cidr for each in objects for cidr in each["spec"].get("cidrs") or ()]
        return _cidrs(",".join(cidrs), "the cluster's ServiceCIDRs")

    def _of_nodes(self):
        cidrs = [cidr for node in self.nodes or () for cidr in node["spec"]["podCIDRs"]]
        return _cidrs(",".join(cidrs), "spec.podCIDRs of the nodes", partial=True)


def _used_of_node(node):
    metadata = {"name": node["metadata"]["name"], "labels": node["metadata"].get("labels") or {}}
    addresses = (node.get("status") or {}).get("addresses") or []
    return {
        "metadata": metadata,
        "spec": {"podCIDRs": node["spec"].get("podCIDRs") or []},
        "status": {"addresses": addresses},
    }


def _cidrs(text, source, partial=False):
    """CIDRs that stand in one text, separated by commas; None when there is none."""
    cidrs = tuple(cidr.strip() for cidr in str(text or "").split(",") if cidr.strip())
    return (cidrs, source, partial) if cidrs else None
