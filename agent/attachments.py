# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What handles hold, and what requests came to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from .._core.pool import Pool
from .resting import FOR_NOBODY, Keep


@dataclass(frozen=True)
class Address:
    """An address that an attachment holds, the one at `ordinal` of `block`.

    `pool` is None when its pool has been removed since.
    """

    address: str
    block: str
    ordinal: int
    pool: Pool | None


@dataclass(frozen=True)
class Attachment:
    """What a handle holds: `addresses`, the IPv4 one first; the owner attributes that are stored with them.

    `netns` is the path of its network namespace, empty where it is not known. `noted` is when this agent learnt of it,
    in seconds of the monotonic clock. `keep` says whom its addresses are kept for when they are freed.
    """

    addresses: tuple[Address, ...]
    owner: dict[str, str]
    netns: str
    noted: float
    keep: Keep = FOR_NOBODY

    @property
    def places(self) -> list[tuple[str, int]]:
        """(block, ordinal) of each of the addresses."""
        return [(address.block, address.ordinal) for address in self.addresses]

    def serves(self, interface: str) -> bool:
        """Whether it may be the attachment of a container's interface.

        As with Calico, a handle has no interface in its name, so a container has one attachment in a network: that of
        the interface in the attribute `interface`. Where Calico wrote the attributes, or nobody names one, it is any.
        """
        return self.owner.get("interface", interface) == interface or not interface


# How an answer was made safe; the last two had nothing to do.
LOCAL_FIRST, WRITTEN_THROUGH = "local-first", "written-through"
ALREADY_HELD, NOTHING_HELD = "already-held", "nothing-held"


class Outcome(NamedTuple):
    """What a request came to: the addresses that it was about, and how the answer was made safe."""

    addresses: tuple[Address, ...]
    mode: str


def by_family(addresses: Iterable[Address]) -> tuple[Address, ...]:
    """The IPv4 address first."""
    return tuple(sorted(addresses, key=lambda held: ":" in held.address))


def timestamp() -> str:
    """Now, as the owner attributes have it. Calico writes Go's default text of a UTC time."""
    now = datetime.now(UTC)
    fraction = f".{now.microsecond:06}".rstrip("0").rstrip(".")
    return f"{now:%Y-%m-%d %H:%M:%S}{fraction} +0000 UTC"
