# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""From a plan to a module's result: connect, observe, plan, apply, report.

Check mode stops before applying and reports the same plan; its client cannot write.
"""

from __future__ import annotations

import contextlib
import random
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

from ansible.module_utils.basic import missing_required_lib

from ._kube import observe
from ._kube.apply import apply
from ._kube.client import Reader, Writer
from ._kube.connection import open_connection
from ._kube.errors import AlreadyExists, ApiError, Conflict, NotFound, Unreachable
from ._plan import ranges

ROUNDS = 10
PAUSE = 0.5  # seconds: for nodes to notice that a pool was disabled, as in Calico
LONGEST_PAUSE = 5.0  # seconds: where others write at the same time, pauses grow up to this
AT_ONCE = 8  # writes; more do not get through an API server any faster


class Unfinished(Exception):
    """What was planned is done, but not what it was for. The text is the module's message."""


def run_plan(module, read, make_plan, finish=None):
    """Bring the cluster to what `make_plan` wants, and exit.

    `read(client, api, pools)` returns what `make_plan` needs to compute a Plan; `api` is V1, V3 or None, `pools` the
    cluster's IPPools by name. `finish(client, results, done)` follows when a plan was carried out, by the operations
    `done`; it may change the results that the module returns, and raise Unfinished.
    """
    if ranges.NETADDR_IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("netaddr"), exception=ranges.NETADDR_IMPORT_ERROR)
    run = _Run(module)
    with reported(module, run):
        run.client = connect(module)
        run.to_the_end(read, make_plan)
        if finish and not module.check_mode:
            finish(run.client, run.results, run.done)
    run.exit()


def connect(module):
    """A client as the module's options say; one that cannot write in check mode."""
    kind = Reader if module.check_mode else Writer
    return kind(open_connection(module.params))


@contextlib.contextmanager
def reported(module, run=None):
    """Turns errors of the connection and of the API server into the module's failure."""
    try:
        yield
    except ImportError as error:
        library = (error.name or "kubernetes").split(".", maxsplit=1)[0]
        module.fail_json(msg=missing_required_lib(library), exception=traceback.format_exc())
    except (ApiError, Unreachable, Unfinished) as error:
        origin = f" (from {error.origin})" if isinstance(error, ApiError) else ""
        module.fail_json(msg=f"{error}{origin}", **(run.failure() if run else {}))


class _Run:
    """One run of a module: rounds of observe, plan and apply until a plan was carried out to its end."""

    def __init__(self, module):
        self.module = module
        self.client = None
        self.done = []
        self._first = self._last = None
        self._failed, self._left = None, []
        self._stored = {}

    @property
    def results(self):
        """The module's further return values, as the first plan has them: later rounds only finish it."""
        return self._first.results

    def to_the_end(self, read, make_plan):
        growing = _growing_pauses()
        for attempt in range(ROUNDS):
            api, pools = observe.pools(self.client)
            self._plan(make_plan(read(self.client, api, pools)))
            if self.module.check_mode:
                return
            try:
                if self._apply(api):
                    return
                pause = PAUSE
            except (AlreadyExists, Conflict, NotFound):
                if attempt == ROUNDS - 1:
                    raise
                pause = next(growing)
            time.sleep(pause)
        raise AssertionError("not reached: a plan without a settling operation is applied to its end")

    def _plan(self, plan):
        self._first, self._last = self._first or plan, plan
        self._failed, self._left, self._stored = None, [], {}
        if plan.problems:
            self.module.fail_json(
                msg="; ".join(str(problem) for problem in plan.problems),
                errors=[problem.describe() for problem in plan.problems],
                **self.failure(),
            )

    def _apply(self, api):
        """Whether all of the plan was applied; False when the rest has to be planned anew."""
        if not self.done and len(self._last.operations) > 1:
            for operation in self._last.rehearsed:
                self._rehearse(operation, api)
        groups = list(in_groups(self._last.operations))
        for position, group in enumerate(groups):
            if position and groups[position - 1][0].settles and not group[0].settles:
                self._left = [operation for rest in groups[position:] for operation in rest]
                return False
            later = [operation for rest in groups[position + 1 :] for operation in rest]
            self._apply_group(group, api, later)
        return True

    def _rehearse(self, operation, api):
        """Have the API server say before the first write whether it would take this one."""
        try:
            apply(operation, operation.observed, self.client.rehearsal, api)
        except (ApiError, Unreachable):
            self._failed = operation
            self._left = [each for each in self._last.operations if each is not operation]
            raise

    def _apply_group(self, group, api, later):
        """Carry out operations that do not depend on each other. The first one that fails is the one reported."""
        if len(group) == 1:
            outcomes = [self._attempt(group[0], api)]
        else:
            stop = []
            with ThreadPoolExecutor(AT_ONCE) as executor:
                outcomes = list(executor.map(lambda operation: self._attempt(operation, api, stop), group))
        self.done += [operation for operation, outcome in zip(group, outcomes) if outcome is _DONE]
        errors = [(operation, outcome) for operation, outcome in zip(group, outcomes) if isinstance(outcome, Exception)]
        if errors:
            self._failed, error = errors[0]
            unfinished = [operation for operation, outcome in zip(group, outcomes) if outcome is not _DONE]
            self._left = [operation for operation in unfinished + later if operation is not self._failed]
            raise error

    def _attempt(self, operation, api, stop=None):
        """_DONE, the error, or _LEFT when another one has failed already, which `stop` tells."""
        if stop:
            return _LEFT
        identity = _identity(operation)
        try:
            self._stored[identity] = apply(operation, self._stored.get(identity, operation.observed), self.client, api)
        except (ApiError, Unreachable) as error:
            if stop is not None:
                stop.append(error)
            return error
        return _DONE

    def failure(self):
        """What a failed module returns beside its message."""
        told = {"operations": [operation.describe() for operation in self.done], "changed": bool(self.done)}
        if self._failed:
            told["failed_operation"] = self._failed.describe()
        if self._failed or self._left:
            told["operations_left"] = [operation.describe() for operation in self._left]
        return told

    def exit(self):
        for warning in self._last.warnings:
            self.module.warn(warning)
        operations = self._last.operations if self.module.check_mode else self.done
        before, after = self._first.before, self._last.after
        names = sorted({*before, *self._first.after, *after})
        changed = [name for name in names if before.get(name) != after.get(name)]
        # Of a thousand objects of which three change, a result tells these three: Ansible takes longer over a long one
        # than the module over the cluster.
        before, after = ({name: side[name] for name in changed if side.get(name)} for side in (before, after))
        result = {
            "changed": bool(operations),
            "operations": [operation.describe() for operation in operations],
            "before": list(before.values()),
            "after": list(after.values()),
            **self.results,
        }
        if self.module._diff:
            result["diff"] = {"before": before, "after": after}
        self.module.exit_json(**result)


_DONE, _LEFT = "done", "left"


def _identity(operation):
    return operation.kind, operation.namespace, operation.name


def _growing_pauses():
    """Doubling pauses, each of a length of its own: runs that met once should not meet again."""
    longest = PAUSE
    while True:
        yield random.uniform(longest / 2, longest)
        longest = min(2 * longest, LONGEST_PAUSE)


def in_groups(operations):
    """Runs of operations that may be carried out at the same time: one verb, one kind, no object twice, none waits for
    another.
    """
    group, objects, alike = [], set(), None
    for operation in operations:
        key = operation.verb, operation.kind, operation.settles, operation.waits
        if group and (key != alike or _identity(operation) in objects):
            yield group
            group, objects = [], set()
        group.append(operation)
        objects.add(_identity(operation))
        alike = key
    if group:
        yield group
