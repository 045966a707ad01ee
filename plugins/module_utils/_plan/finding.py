# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What an audit finds: one fault of one object, and what it takes to believe it and to set it right."""

from __future__ import annotations

from dataclasses import dataclass, field

ERROR, WARNING = "error", "warning"
# In the order in which findings are listed. An error is something that pods suffer from, or will.
SEVERITIES = {
    "duplicate": ERROR,
    "outside": ERROR,
    "not_allocated": ERROR,
    "assignment_invalid": ERROR,
    "stale": WARNING,
    "pool_disabled": WARNING,
    "pool_outside": WARNING,
    "pool_services": WARNING,
    "pool_nodes": WARNING,
    "leaked": WARNING,
    "leaked_handle": WARNING,
    "missing_handle": WARNING,
    "handle_count": WARNING,
    "block_invalid": ERROR,
    "block_without_affinity": ERROR,
    "affinity_without_block": WARNING,
    "affinity_without_node": WARNING,
    "affinity_mismatch": ERROR,
}
CHECKS = tuple(SEVERITIES)
# Which part of the option `repair` sets what right.
REPAIRS = {
    "leaks": ("leaked",),
    "handles": ("leaked_handle", "missing_handle", "handle_count"),
    "affinities": (
        "affinity_without_block",
        "affinity_without_node",
        "block_without_affinity",
        "affinity_mismatch",
    ),
}


@dataclass(frozen=True)
class Finding:
    """`objects` are the keys that name the objects concerned, as modules return them.

    `problem`: whether `calicoctl ipam check` counts it, too. `subject` is what a repair works on. `looks` are the
    (kind, namespace, name) of objects that are read again before the finding is believed, since they may have changed
    while the lists were read. `hindrance` says why it is not repaired although its kind can be; None when it is.
    """

    check: str
    message: str
    objects: dict = field(default_factory=dict)
    problem: bool = False
    subject: object = None
    looks: tuple = ()
    hindrance: str | None = None

    @property
    def identity(self):
        """What the same finding of another Audit has as well."""
        return self.check, repr(self.objects)

    def is_repaired(self, wanted):
        """Whether the parts `wanted` of the option `repair` set it right."""
        return self.hindrance is None and any(self.check in REPAIRS[part] for part in wanted)

    def describe(self, wanted):
        """The finding as modules return it."""
        repair = next((part for part, checks in REPAIRS.items() if self.check in checks), None)
        message = f"{self.message}; not repaired: {self.hindrance}" if self.hindrance else self.message
        return {
            "check": self.check,
            "severity": SEVERITIES[self.check],
            "problem": self.problem,
            **self.objects,
            "message": message,
            "repair": None if self.hindrance else repair,
            "repaired": self.is_repaired(wanted),
        }


def in_order(findings):
    """Findings by check, then by the objects concerned."""
    position = {check: place for place, check in enumerate(CHECKS)}

    def order(finding):
        return position[finding.check], sorted(map(str, finding.objects.items())), finding.message

    return sorted(findings, key=order)
