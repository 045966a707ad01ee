# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What a plan is made of: writes, in order, and what the user is told about them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Operation:
    """One write. `verb` is create, patch, restart (a patch that replaces a workload's pods), replace, delete or evict.

    `body` is the object to create, or the merge patch; of Calico's kinds only `labels` and `spec`, as the rest depends
    on the API group. For a replace, which is for Calico's kinds only, it holds the whole new `spec`. `observed` is the
    object as it was read: a patch, a replace or a delete applies to that version only.
    Operations of one verb and kind that follow each other may be carried out at the same time.
    After an operation that `settles`, others may still act on what they knew before: what follows is planned anew.
    One that `waits` begins only after those before it that do not.
    """

    verb: str
    kind: str
    name: str
    namespace: str | None = None
    body: dict = field(default_factory=dict)
    observed: dict | None = None
    settles: bool = False
    waits: bool = False

    def describe(self):
        """The operation as modules return it."""
        place = {"namespace": self.namespace} if self.namespace else {}
        return {"verb": self.verb, "kind": self.kind, **place, "name": self.name}


@dataclass(frozen=True)
class Problem:
    """Something that forbids every write: the object, its option and value, and what would be right.

    `details` are further keys of it that modules return.
    """

    subject: str
    option: str
    value: object
    message: str
    details: dict = field(default_factory=dict)

    def __str__(self):
        return f"{self.subject}: {self.option}: {self.message}"

    def describe(self):
        """The problem as modules return it in `errors`."""
        told = {"object": self.subject, "field": self.option, "value": self.value, "message": self.message}
        return {**told, **self.details}


@dataclass
class Plan:
    """`before` and `after` map the text that names an object to the object in the user's vocabulary, None where absent.

    With problems there are no operations. `results` are a module's further return values. `rehearsed` are those of the
    operations that are tried with a dry run before the first write; a single one needs no try.
    """

    operations: list = field(default_factory=list)
    rehearsed: list = field(default_factory=list)
    problems: list = field(default_factory=list)
    warnings: list = field(default_factory=list)
    before: dict = field(default_factory=dict)
    after: dict = field(default_factory=dict)
    results: dict = field(default_factory=dict)
