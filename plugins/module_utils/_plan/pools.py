# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Pools: from the declared and the observed ones to the writes that make them equal.

The order of writes never passes through a state that Calico would refuse: pools are removed before others are created
in their range.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from . import holders, network_checks, ownership, pool_checks, pool_removal, pool_view
from .network_checks import Network
from .operation import Operation, Plan, Problem


@dataclass(frozen=True)
class Desired:
    """`pools` are views in the order in which they were declared. With `absent`, only their names count.

    `label_selectors`, `pod_cidrs` and `service_cidrs` are None when they were left out.
    """

    pools: tuple
    absent: bool = False
    purge: bool = False
    force: bool = False
    adopt: bool = False
    label_selectors: tuple | None = None
    pod_cidrs: tuple | None = None
    service_cidrs: tuple | None = None


@dataclass(frozen=True)
class Observed:
    """`served`: whether the cluster has IP pools at all. `pools` maps names to IPPool objects.

    `blocks` are None where the cluster serves pools, but no blocks.
    What else is needed depends on the pools: `Needs` says it. The CIDRs of `network` are the cluster's own.
    `hides_installation`: there may be an Installation, but the user may not read it.
    """

    pools: dict
    served: bool = True
    blocks: tuple | None = ()
    affinities: tuple = ()
    installation: dict | None = None
    hides_installation: bool = False
    network: Network = field(default_factory=Network)


@dataclass(frozen=True)
class Needs:
    """What planning has to know beside the pools: nothing when they are as declared.

    `nodes` is what Network says of them, `cidrs` the rest of it.
    """

    blocks: bool
    affinities: bool
    nodes: bool
    cidrs: bool
    installation: bool


def desired(options):
    """The Desired of module options."""
    given = {name: options.get(name) for name in ("label_selectors", "pod_cidrs", "service_cidrs")}
    return Desired(
        pools=tuple(pool_view.declared(pool) for pool in options["pools"]),
        absent=options["state"] == "absent",
        **{name: bool(options.get(name)) for name in ("purge", "force", "adopt")},
        **{name: None if value is None else tuple(value) for name, value in given.items()},
    )


def needs(wanted, pools, served=True):
    """The Needs of a plan for the existing `pools`."""
    gone, new = removed(wanted, pools), served and any(view["name"] not in pools for view in _declared(wanted))
    differing = [view for view in _declared(wanted) if _differs(view, pools.get(view["name"]))]
    touched = [*gone, *(view["name"] for view in differing)]
    return Needs(
        blocks=new or bool(gone),
        affinities=bool(gone),
        nodes=new or any(network_checks.widens(pool_view.stored(pools[view["name"]]), view) for view in differing),
        cidrs=new,
        installation=any(ownership.is_of_nobody(pools[name]) for name in touched),
    )


def removed(wanted, pools):
    """Names of the existing pools that are to go, sorted."""
    return ownership.removed(wanted, {view["name"] for view in wanted.pools}, pools)


def plan(wanted, observed):
    """The Plan that makes the observed pools the desired ones."""
    outcome = Plan(results={"in_use": []})
    outcome.problems += ownership.selector_problems(wanted.label_selectors)
    if not observed.served and not wanted.absent:
        outcome.problems.append(pool_checks.NOT_SERVED)
    gone = removed(wanted, observed.pools)
    going = _removals(gone, observed)
    _check_removals(wanted, going, observed.blocks is not None, outcome)
    _views(wanted, observed, gone, outcome)
    _check_declaration(wanted, observed, gone, going, outcome)
    updates = _updates(wanted, observed, outcome)
    _check_owners(wanted, observed, [*gone, *(each.name for each in updates)], outcome)
    if not outcome.problems:
        outcome.operations += [*pool_removal.operations(going), *updates, *_creations(wanted, observed.pools)]
        outcome.rehearsed = _untried(outcome.operations, observed.pools)
    return outcome


# Fields that came with Calico 3.30 and 3.31. An older API server refuses them, which must not be found out midway.
_NEWER = ("assignmentMode", "namespaceSelector")


def _untried(operations, pools):
    """Of each newer field that no pool shows the cluster to know, the first write."""
    known = {key for pool in pools.values() for key in pool["spec"]}
    found = []
    for newer in _NEWER:
        writes = [each for each in operations if newer in each.body.get("spec", ())]
        if writes and newer not in known and writes[0] not in found:
            found.append(writes[0])
    return found


def _removals(gone, observed):
    kept = [pool for name, pool in observed.pools.items() if name not in gone]
    return pool_removal.survey(
        [observed.pools[name] for name in gone], kept, observed.blocks or (), observed.affinities
    )


def _check_removals(wanted, going, blocks_served, outcome):
    outcome.results["in_use"] = pool_removal.listed(going)
    if wanted.force:
        outcome.warnings += pool_removal.warnings(going, blocks_served)
    else:
        outcome.problems += pool_removal.refusals(going, blocks_served)


def _check_declaration(wanted, observed, gone, going, outcome):
    problems, sound = pool_checks.declaration_problems(_declared(wanted))
    problems += pool_checks.change_problems(_declared(wanted), observed.pools)
    overlapping, warnings = pool_checks.overlaps(sound, observed.pools, gone)
    new = [(view, network) for view, network in sound if view["name"] not in observed.pools]
    released = pool_removal.deleted_blocks(going)
    outcome.problems += [*problems, *overlapping, *pool_checks.block_problems(new, observed.blocks or (), released)]
    outcome.warnings += warnings
    for option, cidrs in (("pod_cidrs", wanted.pod_cidrs), ("service_cidrs", wanted.service_cidrs)):
        outcome.problems += network_checks.option_problems(option, cidrs)
    widened = [(view, network) for view, network in sound if _is_widened(outcome.before[view["name"]], view)]
    problems, warnings = network_checks.findings(new, _network(wanted, observed.network), widened)
    outcome.problems += problems
    outcome.warnings += warnings


def _network(wanted, known):
    """What is known about the network, with what the user says winning over what the cluster says."""
    return Network(
        nodes=known.nodes,
        pod_cidrs=network_checks.given("pod_cidrs", wanted.pod_cidrs) or known.pod_cidrs,
        service_cidrs=network_checks.given("service_cidrs", wanted.service_cidrs) or known.service_cidrs,
        strict_affinity=known.strict_affinity,
    )


def _check_owners(wanted, observed, touched, outcome):
    """A pool of another controller is changed or removed only when it is to be adopted."""
    unknown = [name for name in touched if ownership.is_of_nobody(observed.pools[name])]
    if unknown and observed.hides_installation:
        outcome.warnings.append(
            "whether these pools belong to the Calico operator was not checked, as its Installation may not be read:"
            f" {holders.some(unknown)}"
        )
    for name in touched:
        owner = ownership.other_owner(observed.pools[name], observed.installation)
        if owner and wanted.adopt:
            outcome.warnings.append(f"pool {name} belonged to {owner}, which may revert what is done to it here")
        elif owner:
            message = f"it belongs to {owner}, which would revert a change; change it there, or take it over with adopt"
            outcome.problems.append(Problem(f"pool {name}", "adopt", False, message))


def _declared(wanted):
    return () if wanted.absent else wanted.pools


def _differs(view, existing):
    return existing is not None and pool_view.stored(existing, view["labels"]) != view


def _is_widened(before, view):
    return before is not None and before != view and network_checks.widens(before, view)


def _views(wanted, observed, gone, outcome):
    for name in gone:
        outcome.before[name] = _without_owner(pool_view.stored(observed.pools[name]))
        outcome.after[name] = None
    for view in _declared(wanted):
        existing = observed.pools.get(view["name"])
        after = _adopted(wanted, view, existing, observed.installation) if existing else view
        outcome.before[view["name"]] = pool_view.stored(existing, after["labels"]) if existing else None
        outcome.after[view["name"]] = after


def _adopted(wanted, view, existing, installation):
    """What an existing pool shall be: as declared, and ours by its label when it is taken from another controller.

    That is done when the pool itself names the other one. What only the operator's Installation knows is read, and
    acted upon, when something else about the pool is changed.
    """
    taken = wanted.adopt and (
        ownership.visible_owner(existing)
        or (_differs(view, existing) and ownership.other_owner(existing, installation))
    )
    return {**view, "labels": ownership.creation_labels(view["labels"])} if taken else view


def _without_owner(view):
    labels = {key: value for key, value in view["labels"].items() if (key, value) != ownership.MARK}
    return {**view, "labels": labels}


def _updates(wanted, observed, outcome):
    found = []
    for name in sorted(view["name"] for view in _declared(wanted)):
        before, after = outcome.before[name], outcome.after[name]
        if before is None or before == after:
            continue
        labels = ownership.label_changes(before["labels"], after["labels"])
        body = {"spec": pool_view.spec_changes(before, after), "labels": labels}
        found.append(Operation("patch", "IPPool", name, body=body, observed=observed.pools[name]))
    return found


def _creations(wanted, pools):
    for view in sorted(_declared(wanted), key=lambda each: each["name"]):
        if view["name"] not in pools:
            body = {"spec": pool_view.spec(view), "labels": ownership.creation_labels(view["labels"])}
            yield Operation("create", "IPPool", view["name"], body=body)
