# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Reservations: from the declared and the observed ones to the writes that make them equal.

Source: IPReservation of Calico 3.29 to 3.32. Its entries are a set: their order, their spelling and repetitions are no
difference. A *view* is a dict with one key per option of `ip_reservations`.
What shall stay reserved under another name is reserved there before it is given up here.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import holders, ownership, ranges
from .address_index import Ranges, bounds
from .assignments import with_declared
from .operation import Operation, Plan, Problem
from .pool_checks import leaving_problems, name_problems, repeated_names

KIND = "IPReservation"
_MOST_RESERVED = 10  # percent of a pool, by Calico's documentation: entries are tried one after the other


@dataclass(frozen=True)
class Desired:
    """`reservations` are views. With `absent`, only their names count.

    `declared_pools`: items of option `pools` of ip_pools that count as existing.
    """

    reservations: tuple
    absent: bool = False
    purge: bool = False
    label_selectors: tuple | None = None
    declared_pools: tuple = ()


@dataclass(frozen=True)
class Observed:
    """IPReservation and IPPool objects by name; `reservations` is None where the cluster has no such kind.

    `blocks` are needed only where `adds_entries` says so.
    """

    reservations: dict | None
    pools: dict
    blocks: tuple = ()


def desired(options, declared_pools=()):
    """The Desired of module options."""
    selectors = options["label_selectors"]
    return Desired(
        reservations=tuple(_declared(item) for item in options["reservations"]),
        absent=options["state"] == "absent",
        purge=bool(options["purge"]),
        label_selectors=None if selectors is None else tuple(selectors),
        declared_pools=declared_pools,
    )


def adds_entries(wanted, existing):
    """Whether addresses are to be reserved that were not, out of the `existing` reservations by name or None."""
    return not wanted.absent and any(_added(view, (existing or {}).get(view["name"])) for view in wanted.reservations)


_NOT_SERVED = Problem(
    "the cluster",
    "reservations",
    None,
    "it serves IPReservation neither in crd.projectcalico.org/v1 nor in projectcalico.org/v3: install Calico first, or"
    " the node plugin of this collection with role podnet.ipam.cni_ipam",
)


def plan(wanted, observed):
    """The Plan that makes the observed reservations the desired ones."""
    outcome, existing = Plan(), observed.reservations or {}
    outcome.problems += ownership.selector_problems(wanted.label_selectors)
    if observed.reservations is None and not wanted.absent:
        outcome.problems.append(_NOT_SERVED)
    gone = ownership.removed(wanted, {view["name"] for view in wanted.reservations}, existing)
    for name in gone:
        outcome.before[name], outcome.after[name] = _stored(existing[name]), None
    if not wanted.absent:
        outcome.problems += _problems(wanted.reservations)
        for view in wanted.reservations:
            found = existing.get(view["name"])
            outcome.problems += leaving_problems(f"reservation {view['name']}", found) if found else ()
            outcome.before[view["name"]] = _stored(found, view["labels"]) if found else None
            outcome.after[view["name"]] = view
    if not outcome.problems:
        outcome.operations += _operations(outcome, existing, gone)
        outcome.warnings += _warnings(wanted, observed, gone)
    return outcome


def _declared(item):
    entries = item.get("reserved_cidrs")
    canonical = None if entries is None else _canonical(entries)
    return {"name": item["name"], "reserved_cidrs": canonical, "labels": ownership.label_texts(item.get("labels"))}


def _stored(obj, label_keys=None):
    """The view of an IPReservation, with all of its labels but our mark, or with those of `label_keys`."""
    labels = dict(pair for pair in ownership.labels_of(obj).items() if pair != ownership.MARK)
    if label_keys is not None:
        labels = {key: value for key, value in ownership.labels_of(obj).items() if key in label_keys}
    entries = _canonical((obj.get("spec") or {}).get("reservedCIDRs") or ())
    return {"name": obj["metadata"]["name"], "reserved_cidrs": entries, "labels": labels}


def _canonical(entries):
    """The entries in their canonical text, sorted, each once; what is no CIDR stays as it is, at the end."""
    texts = [entry.strip() for entry in entries]
    networks = {network for network in map(ranges.network, texts) if network}
    malformed = {text for text in texts if not ranges.network(text)}
    ordered = sorted(networks, key=lambda network: (network.version, network))
    return [*map(str, ordered), *sorted(malformed)]


def _networks(entries):
    return [network for network in map(ranges.network, entries or ()) if network]


def _added(view, existing):
    """Networks that a view reserves and the existing object does not, entry by entry."""
    return _networks(_missing(view, _stored(existing) if existing else None))


def _problems(views):
    for view in views:
        subject = f"reservation {view['name']}"
        yield from name_problems(subject, view["name"])
        yield from ownership.label_problems(subject, view["labels"])
        if view["reserved_cidrs"] is None:
            message = "it is missing; a list of ranges such as [10.244.9.0/26, 10.244.1.7] is needed"
            yield Problem(subject, "reserved_cidrs", None, message)
        for entry in view["reserved_cidrs"] or ():
            if not ranges.network(entry):
                yield Problem(subject, "reserved_cidrs", entry, _malformed(entry))
    yield from repeated_names("reservation", [view["name"] for view in views])


def _malformed(entry):
    network = ranges.network(entry, strict=False)
    if network is None:
        return f"{entry!r} is neither a CIDR nor an address"
    return f"{entry!r} has host bits: the range is {network}, the address alone {entry.partition('/')[0]}"


def _operations(outcome, existing, gone):
    """Reservations that take something over from others have it before these give it up."""
    given_up = {entry for name in outcome.before for entry in _missing(outcome.before[name], outcome.after[name])}
    added, created, changed = [], [], []
    for name, after in sorted(outcome.after.items()):
        before = outcome.before[name]
        if after is None or before == after:
            continue
        if before is None:
            body = {"spec": {"reservedCIDRs": after["reserved_cidrs"]}}
            body["labels"] = ownership.creation_labels(after["labels"])
            created.append(Operation("create", KIND, name, body=body))
        elif not _missing(before, after):
            added.append(_patch(before, after, existing[name]))
        else:
            if given_up.intersection(_missing(after, before)):
                both = {**after, "reserved_cidrs": _canonical(before["reserved_cidrs"] + after["reserved_cidrs"])}
                added.append(_patch(before, both, existing[name]))
                before = both
            changed.append(_patch(before, after, existing[name], waits=True))
    deleted = [Operation("delete", KIND, name, observed=existing[name]) for name in gone]
    return [*added, *created, *changed, *deleted]


def _missing(one, other):
    """The entries of one view that another does not have. Either may be None."""
    entries, others = ((view or {}).get("reserved_cidrs") or () for view in (one, other))
    there = set(others)
    return [entry for entry in entries if entry not in there]


def _patch(before, after, existing, waits=False):
    differs = before["reserved_cidrs"] != after["reserved_cidrs"]
    body = {"spec": {"reservedCIDRs": after["reserved_cidrs"]} if differs else {}}
    body["labels"] = ownership.label_changes(before["labels"], after["labels"])
    return Operation("patch", KIND, after["name"], body=body, observed=existing, waits=waits)


def _warnings(wanted, observed, gone):
    views = [] if wanted.absent else sorted(wanted.reservations, key=lambda view: view["name"])
    pools = sorted(with_declared(observed.pools, wanted.declared_pools).items())
    pools = [(name, ranges.pool_network(pool)) for name, pool in pools if ranges.pool_network(pool)]
    entries = [((view["name"], entry), ranges.network(entry)) for view in views for entry in view["reserved_cidrs"]]
    met = list(ranges.meetings(pools, entries))
    yield from _useless(entries, {entry for _pool, entry in met})
    yield from _full(dict(pools), {pool for pool, _entry in met}, views, observed, gone)
    for view in views:
        yield from _taken(view, _added(view, (observed.reservations or {}).get(view["name"])), observed.blocks)


def _useless(entries, met):
    for (name, entry), _network in entries:
        if (name, entry) not in met:
            yield f"reservation {name}: {entry} lies in no pool, so that it reserves nothing"


def _full(pools, concerned, views, observed, gone):
    """Pools of which the declared reservations and those that stay take too much together."""
    declared = {view["name"] for view in views}
    staying = [obj for name, obj in (observed.reservations or {}).items() if name not in declared and name not in gone]
    entries = [entry for view in [*views, *map(_stored, staying)] for entry in view["reserved_cidrs"]]
    reserved = Ranges(_networks(entries))
    for name in sorted(concerned):
        network = pools[name]
        share = reserved.count(*bounds(network)) * 100 / network.num_addresses
        if share > _MOST_RESERVED:
            yield (
                f"pool {name}: {share:.3g} % of its addresses are reserved; Calico recommends at most"
                f" {_MOST_RESERVED} %, as every assignment tries its way past them"
            )


def _taken(view, added, blocks):
    """Addresses that are to be reserved, but in use."""
    present = [(block, ranges.network_of(block)) for block in blocks if ranges.network_of(block)]
    uses = [
        (entry, use)
        for entry, block in ranges.meetings([(str(network), network) for network in added], present)
        for use in holders.uses(block)
        if ranges.network(use["address"]).subnet_of(ranges.network(entry))
    ]
    if uses:
        users = holders.some(holders.holder(use) for _entry, use in uses)
        where = holders.some(entry for entry, _use in uses)
        yield (
            f"reservation {view['name']}: {holders.counted(uses)} of {where} in use, by {users}:"
            " a reservation does not take them back"
        )
