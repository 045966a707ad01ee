# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What the stored blocks say about addresses. Source: IPAMBlock of Calico 3.29 to 3.33."""

from __future__ import annotations

from typing import NamedTuple

from .._core.names import is_deleted, spare_handle
from .address_index import number
from .ranges import network_of

WINDOWS_RESERVED = "windows-reserved-ipam-handle"
LOAD_BALANCER = "virtual:load-balancer"
_HOST = "host:"
_VIRTUAL_MACHINE = "vmi-name"


class Allocation(NamedTuple):
    """One address that a block has as allocated.

    `value` is its number, `block` the IPAMBlock, `attribute` what the block says about its holder.
    """

    value: int
    block: dict
    ordinal: int
    attribute: dict

    @property
    def handle(self):
        return self.attribute.get("handle_id")

    @property
    def owner(self):
        """The attributes that its writer gave it: pod, namespace, node, type, timestamp."""
        return self.attribute.get("secondary") or {}

    @property
    def node(self):
        """The node that has the address: what its writer said, else whose block it is; None when nothing says so."""
        return self.owner.get("node") or host_of(self.block)

    @property
    def is_borrowed(self):
        """Whether the block belongs to another node than the address, or to none. As in Calico."""
        return self.node != host_of(self.block)

    @property
    def pod(self):
        """(namespace, name) of the pod that has it, None when nothing says that it is for one."""
        owner = self.owner
        return (owner["namespace"], owner["pod"]) if owner.get("namespace") and owner.get("pod") else None

    @property
    def is_of_virtual_machine(self):
        """Whether a virtual machine has it, which keeps it from pod to pod (Calico from 3.32 on, with KubeVirt)."""
        return bool(self.owner.get(_VIRTUAL_MACHINE) or self.attribute.get("alternateOwnerAttrs"))

    @property
    def is_cooling(self):
        """Whether it is released already and rests before it is given out again (Calico 3.33)."""
        return bool(self.attribute.get("releasedAt"))

    @property
    def is_reserved_for_windows(self):
        return self.handle == WINDOWS_RESERVED

    @property
    def is_spare(self):
        """Whether its node's podnet-ipam keeps a block with it that it has claimed ahead."""
        return bool(self.node) and self.handle == spare_handle(self.node)


def live(objects):
    """The objects that are not soft-deleted and whose CIDR can be read, each with its `ipaddress` network."""
    for each in objects:
        network = network_of(each)
        if network is not None and not is_deleted(each):
            yield each, network


def allocations(blocks):
    """The Allocation of every allocated address of the blocks that exist."""
    for block, network in live(blocks):
        attributes, first = block["spec"].get("attributes") or (), number(network.network_address)
        for ordinal, index in enumerate(block["spec"].get("allocations") or ()):
            if index is not None:
                attribute = attributes[index] if 0 <= index < len(attributes) else {}
                yield Allocation(first + ordinal, block, ordinal, attribute)


def host_of(block):
    """The node that a block belongs to, or None."""
    affinity = block["spec"].get("affinity") or ""
    return affinity[len(_HOST) :] if affinity.startswith(_HOST) else None
