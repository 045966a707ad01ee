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
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .netns import may_exist

LOOK_SECONDS = 0.05  # so that a burst of requests looks once
_KIND = "cniCacheV1"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Running:
    """An attachment with its `addresses` (texts) and the path of its network namespace, empty where it is not known.

    `record` is the name of the file that says so.
    """

    record: str
    network: str
    container: str
    addresses: tuple[str, ...]
    owner: dict[str, str]
    netns: str


class Records:
    """The runtime's records in `folder`, on a node whose pods are in `network`; empty where it is not known.

    Only attachments whose network namespace still exists count, as far as that is recorded. A file that cannot be
    understood is reported and left out; a folder that does not exist holds none.
    """

    def __init__(self, folder: Path, network: str):
        self.network = network
        self._folder = folder
        self._noted: set[str] = set()
        self._next_look = 0.0

    def all(self) -> Iterator[Running]:
        """The attachments of all networks."""
        return self._read(self._names())

    def newcomers(self) -> Iterator[Running]:
        """Those of other networks that nobody has noted so far; none within LOOK_SECONDS of the last look."""
        now = time.monotonic()
        if not self.network or now < self._next_look:
            return iter(())
        self._next_look = now + LOOK_SECONDS
        names, own = self._names(), f"{self.network}-"
        self._noted &= names
        return self._read({name for name in names - self._noted if not name.startswith(own)})

    def note(self, attachment: Running) -> None:
        """It is no newcomer any more."""
        self._noted.add(attachment.record)

    def _names(self) -> set[str]:
        return set(os.listdir(self._folder)) if self._folder.is_dir() else set()

    def _read(self, names: Iterable[str]) -> Iterator[Running]:
        for name in sorted(names):
            try:
                found = _decode(name, json.loads((self._folder / name).read_bytes()))
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("the runtime's record %s is not understood: %r", self._folder / name, error)
                self._noted.add(name)
                continue
            if not found.netns or may_exist(found.netns):
                yield found
            else:
                self.note(found)


def _decode(name: str, cached: dict) -> Running:
    if cached["kind"] != _KIND:
        raise ValueError(f"kind is {cached['kind']!r}, not {_KIND}")
    arguments = dict(cached.get("cniArgs") or ())
    pod, namespace = arguments.get("K8S_POD_NAME"), arguments.get("K8S_POD_NAMESPACE")
    return Running(
        record=name,
        network=cached["networkName"],
        container=cached["containerId"],
        addresses=tuple(_addresses(cached["result"])),
        owner={"namespace": namespace, "pod": pod} if pod and namespace else {},
        netns=cached.get("netns") or "",
    )


def _addresses(result: dict) -> Iterator[str]:
    for entry in result.get("ips") or ():
        yield str(ipaddress.ip_interface(entry["address"]).ip)
