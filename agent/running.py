# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What the runtime itself has written down of this node's attachments: a witness that needs no store and no API server.

Source: libcni keeps the result of each ADD in `/var/lib/cni/results/<network>-<container>-<interface>` until the DEL
has succeeded, whichever plugins made it. So this also finds pods that another IPAM plugin, such as host-local, served.
"""

from __future__ import annotations

import ipaddress
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .netns import may_exist

_KIND = "cniCacheV1"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Running:
    """An attachment with its `addresses` (texts) and the path of its network namespace, empty where it is not known."""

    network: str
    container: str
    addresses: tuple[str, ...]
    owner: dict[str, str]
    netns: str


def running(folder: Path) -> Iterator[Running]:
    """The attachments recorded in `folder` whose network namespace still exists, as far as that is recorded.

    A file that cannot be understood is reported and left out; a folder that does not exist holds none.
    """
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            found = _decode(json.loads(path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("the runtime's record %s is not understood: %r", path, error)
            continue
        if not found.netns or may_exist(found.netns):
            yield found


def _decode(cached: dict) -> Running:
    if cached["kind"] != _KIND:
        raise ValueError(f"kind is {cached['kind']!r}, not {_KIND}")
    arguments = dict(cached.get("cniArgs") or ())
    pod, namespace = arguments.get("K8S_POD_NAME"), arguments.get("K8S_POD_NAMESPACE")
    return Running(
        network=cached["networkName"],
        container=cached["containerId"],
        addresses=tuple(_addresses(cached["result"])),
        owner={"namespace": namespace, "pod": pod} if pod and namespace else {},
        netns=cached.get("netns") or "",
    )


def _addresses(result: dict) -> Iterator[str]:
    for entry in result.get("ips") or ():
        yield str(ipaddress.ip_interface(entry["address"]).ip)
