# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Why a workload or a bare pod does not move to another pool, each with what would help."""

from __future__ import annotations

from . import budgets
from . import workload_kinds as kinds

_NODE = "Node"  # the controller of static pods


def why_not(unit):
    """The reason why nothing is done now about a drain_units.Unit, as a text; None when it can be moved."""
    if unit.kind == kinds.POD:
        return _bare(unit)
    if unit.stored is None:
        return "it does not exist any more: its pods are about to be deleted"
    if unit.occupants and not unit.pods and not unit.written:
        return "its pods are being deleted"
    return _unchangeable(unit) or _pinned(unit) or _without_address(unit) or _not_replaced(unit)


def _bare(unit):
    if not unit.pods:
        return "it is being deleted"
    if unit.foreign:
        kind, name = unit.foreign
        if kind == _NODE:
            return f"it is a static pod of node {name}: only its manifest there can be restarted"
        return f"it belongs to {kind} {name}, whose kind is not known here: have that replace it"
    if unit.place.wanted.evict_bare_pods:
        return None
    return "it has no controller that would make it anew: a person has to delete it, or allow its eviction"


def _unchangeable(unit):
    """A template that names the pool and that cannot be changed here."""
    if not unit.written:
        return None
    if unit.foreign:
        kind, name = unit.foreign
        return f"it belongs to {kind} {name}, which would undo a change of its template: change it there"
    if unit.kind == kinds.JOB and not kinds.never_started(unit.stored):
        return "the pod template of a Job cannot be changed: wait for its end, or delete it and create it again"
    return None


def _pinned(unit):
    addresses = unit.place.leaving.fixed(unit.template)
    if not addresses:
        return None
    return f"its annotation ipAddrs asks for {addresses[0]}: give it an address of {unit.place.leaving.to}"


def _without_address(unit):
    reason = unit.future[1]
    return reason and f"its new pods would not start: {reason}"


def _not_replaced(unit):
    if unit.rolls:
        return _not_rolled(unit)
    if unit.is_recreated or unit.written:
        return None
    return f"pods of a {unit.kind} are not replaced: they keep their addresses until they end"


def _not_rolled(unit):
    decision = unit.decision
    if decision.problem:
        return decision.problem
    if decision.restart or unit.written:
        return budgets.why_not(unit.kind, unit.stored, unit.namespace, unit.place.observed.budgets)
    return None if decision.underway else "; ".join(decision.warnings) or None
