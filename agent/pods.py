# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What the API server says of a pod: a witness of whether an attachment still serves it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .._kube.errors import NotFound
from .api import Client


def is_asked_for(client: Client, owner: Mapping[str, str]) -> bool:
    """Whether the owner attributes name a pod, and there is an API server that can be asked for it."""
    return bool(client.knows_pods and owner.get("pod"))


async def may_use(client: Client, node: str, owner: Mapping[str, str], addresses: Collection[str]) -> bool:
    """Whether the pod is one of this node that runs with one of the addresses, or is still to get one.

    ApiError and Unreachable when that cannot be found out.
    """
    try:
        pod = await client.get(f"/api/v1/namespaces/{owner.get('namespace')}/pods/{owner['pod']}")
    except NotFound:
        return False
    status = pod.get("status") or {}
    if pod["spec"].get("nodeName") != node or status.get("phase") in ("Succeeded", "Failed"):
        return False
    used = {entry.get("ip") for entry in status.get("podIPs") or ()}
    return not used or not used.isdisjoint(addresses)
