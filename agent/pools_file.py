# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The file that declares pools and reservations where there is no cluster. A TOML table:

    [[pools]]
    name = "main"
    cidr = "10.88.0.0/16"
    block_size = 26                 # prefix length of a block; by default 26, IPv6: 122
    disabled = false                # true: it gives no new addresses
    assignment_mode = "Automatic"   # Manual: it serves only who asks for it by name

    [[reservations]]                # addresses that nobody gets unasked
    name = "printers"
    reserved_cidrs = ["10.88.0.0/28"]

Names and rules are those of the modules `ip_pools` and `ip_reservations`, without what speaks of nodes and namespaces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

import tomllib

from .._core.carve import overlaps
from .._core.names import OBJECT_NAME, network
from .._core.pool import AUTOMATIC, WORKLOAD, Pool, spec_problems
from .._kube.calico import CONFIG_NAME, V1
from . import schema

# There is nobody to leave blocks to.
_NO_LIMIT = 2**31 - 1
_KEYS = {"pools", "reservations"}
_OPTION_OF_FIELD = {"cidr": "cidr", "blockSize": "block_size", "assignmentMode": "assignment_mode"}

T = TypeVar("T")


@dataclass(frozen=True)
class _Pool:
    SCHEMA: ClassVar[dict] = {"name": str, "cidr": str, "block_size": int, "disabled": bool, "assignment_mode": str}
    REQUIRED: ClassVar[set] = {"name", "cidr"}

    name: str
    cidr: str
    block_size: int | None = None
    disabled: bool = False
    assignment_mode: str = AUTOMATIC

    def object(self) -> dict:
        spec = {
            "cidr": self.cidr,
            "disabled": self.disabled,
            "assignmentMode": self.assignment_mode,
            "allowedUses": [WORKLOAD],
        }
        if self.block_size is not None:
            spec["blockSize"] = self.block_size
        return V1.new("IPPool", self.name, spec)


@dataclass(frozen=True)
class _Reservation:
    SCHEMA: ClassVar[dict] = {"name": str, "reserved_cidrs": [str]}
    REQUIRED: ClassVar[set] = {"name", "reserved_cidrs"}

    name: str
    reserved_cidrs: list[str]

    def object(self) -> dict:
        return V1.new("IPReservation", self.name, {"reservedCIDRs": self.reserved_cidrs})


def read_pools_file(path: Path, blocks: Iterable[str]) -> dict[str, list[dict]]:
    """The declared objects by kind: pools, reservations, and the configuration of a machine that shares with nobody.

    `blocks` are the CIDRs of the blocks that exist. ValueError names the file and each problem with its pool and its
    field; OSError when the file cannot be read.
    """
    try:
        declared = tomllib.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not TOML: {error}") from error
    problems = [f"unknown key {key!r}; known are {', '.join(sorted(_KEYS))}" for key in declared.keys() - _KEYS]
    pools = _entries(declared, "pools", _Pool, problems)
    reservations = _entries(declared, "reservations", _Reservation, problems)
    sound = list(_sound_pools(pools, problems))
    problems += _overlap_problems(sound)
    problems += _block_problems(sound, blocks)
    problems += _reservation_problems(reservations)
    if not declared.get("pools"):
        problems.append("it declares no pool; write at least one [[pools]] with a name and a cidr")
    if problems:
        raise ValueError(f"{path}: {'; '.join(problems)}")
    config = {"strictAffinity": True, "autoAllocateBlocks": True, "maxBlocksPerHost": _NO_LIMIT}
    return {
        "IPPool": [pool.object() for pool in pools],
        "IPReservation": [reservation.object() for reservation in reservations],
        V1.config_kind: [V1.new(V1.config_kind, CONFIG_NAME, config)],
    }


def _entries(declared: dict, key: str, form: type[T], problems: list[str]) -> list[T]:
    """The tables [[key]] that have the right form, with names of their own; what is wrong goes to `problems`."""
    kind = key.removesuffix("s")
    tables = declared.get(key, [])
    if not isinstance(tables, list):
        problems.append(f"{key} is a {type(tables).__name__}; write each {kind} as a table [[{key}]]")
        return []
    entries = []
    for number, table in enumerate(tables, 1):
        subject = f"{kind} {table.get('name', number) if isinstance(table, dict) else number}"
        found = list(_form_problems(table, form))
        problems += (f"{subject}: {problem}" for problem in found)
        if not found:
            entries.append(form(**table))
    for name, count in Counter(entry.name for entry in entries).items():
        if count > 1:
            problems.append(f"{kind} {name}: name: declared {count} times; each name may stand once")
        if not OBJECT_NAME.fullmatch(name):
            problems.append(f"{kind} {name}: name: lower-case letters, digits, '-' and '.' are allowed")
    return entries


def _form_problems(table: object, form: type) -> Iterator[str]:
    """Why a table cannot be made a `form`."""
    try:
        schema.check(table, form.SCHEMA)
    except ValueError as error:
        yield str(error)
        return
    yield from (f"unknown field {key!r}" for key in sorted(table.keys() - form.SCHEMA.keys()))
    yield from (f"field {key!r} is missing" for key in sorted(form.REQUIRED - table.keys()))


def _sound_pools(pools: Iterable[_Pool], problems: list[str]) -> Iterator[Pool]:
    for pool in pools:
        obj = pool.object()
        found = spec_problems(obj["spec"])
        problems += (f"pool {pool.name}: {_OPTION_OF_FIELD[field]}: {message}" for field, message in found)
        if not found:
            yield Pool.from_object(obj)


def _overlap_problems(pools: Iterable[Pool]) -> Iterator[str]:
    for outer, inner in overlaps((pool, pool.network) for pool in pools):
        yield f"pool {inner.name}: cidr: {inner.cidr} overlaps pool {outer.name} ({outer.cidr})"


def _block_problems(pools: Iterable[Pool], blocks: Iterable[str]) -> Iterator[str]:
    """Pools whose blocks would lie across those that exist, so that an address could be given twice."""
    tagged = [*((pool, pool.network) for pool in pools), *((block, network(block)) for block in blocks)]
    for one, other in overlaps(tagged):
        pool, block = (one, other) if isinstance(one, Pool) else (other, one)
        if isinstance(pool, Pool) and isinstance(block, str) and not _fits(pool, block):
            yield (
                f"pool {pool.name}: block_size: /{pool.block_size} does not go with block {block}, which exists;"
                " choose its size, or another cidr"
            )


def _fits(pool: Pool, block: str) -> bool:
    return pool.contains(block) and network(block).prefixlen == pool.block_size


def _reservation_problems(reservations: Iterable[_Reservation]) -> Iterator[str]:
    for reservation in reservations:
        for cidr in reservation.reserved_cidrs:
            try:
                network(cidr)
            except ValueError as error:
                yield f"reservation {reservation.name}: reserved_cidrs: {error}"
