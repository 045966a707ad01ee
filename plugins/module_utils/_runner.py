# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""From a plan to a module's result: connect, observe, plan, apply, report.

Check mode stops before applying and reports the same plan; its client cannot write.
"""

from __future__ import annotations

import contextlib
import time
import traceback

from ansible.module_utils.basic import missing_required_lib

from ._kube import observe
from ._kube.apply import apply
from ._kube.client import Reader, Writer
from ._kube.connection import open_connection
from ._kube.errors import AlreadyExists, ApiError, Conflict, NotFound, Unreachable
from ._plan import ranges

ROUNDS = 10
PAUSE = 0.5  # seconds: between two rounds, and for nodes to notice that a pool was disabled, as in Calico


def run_plan(module, read, make_plan):
    """Bring the cluster to what `make_plan` wants, and exit.

    `read(client, api)` returns what `make_plan` needs to compute a Plan; `api` is V1, V3 or None.
    """
    if ranges.NETADDR_IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("netaddr"), exception=ranges.NETADDR_IMPORT_ERROR)
    run = _Run(module)
    with reported(module, run):
        run.client = connect(module)
        run.to_the_end(read, make_plan)
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
        library = (error.name or "kubernetes").split(".")[0]
        module.fail_json(msg=missing_required_lib(library), exception=traceback.format_exc())
    except (ApiError, Unreachable) as error:
        origin = f" (from {error.origin})" if isinstance(error, ApiError) else ""
        module.fail_json(msg=f"{error}{origin}", **(run.failure() if run else {}))


class _Run:
    """One run of a module: rounds of observe, plan and apply until a plan was carried out to its end."""

    def __init__(self, module):
        self.module = module
        self.client = None
        self.done = []
        self._first = self._last = None
        self._current = None
        self._stored = {}

    def to_the_end(self, read, make_plan):
        for attempt in range(ROUNDS):
            api = observe.calico_api(self.client)
            self._plan(make_plan(read(self.client, api)))
            if self.module.check_mode:
                return
            try:
                if self._apply(api):
                    return
            except (AlreadyExists, Conflict, NotFound):
                if attempt == ROUNDS - 1:
                    raise
            time.sleep(PAUSE)
        raise AssertionError("not reached: a plan without a settling operation is applied to its end")

    def _plan(self, plan):
        self._first, self._last, self._stored = self._first or plan, plan, {}
        if plan.problems:
            self.module.fail_json(
                msg="; ".join(str(problem) for problem in plan.problems),
                errors=[problem.describe() for problem in plan.problems],
                **self.failure(),
            )

    def _apply(self, api):
        """Whether all of the plan was applied; False when the rest has to be planned anew."""
        settling = False
        for operation in self._last.operations:
            if settling and not operation.settles:
                return False
            identity = operation.kind, operation.namespace, operation.name
            self._current = operation
            self._stored[identity] = apply(operation, self._stored.get(identity, operation.observed), self.client, api)
            self._current = None
            self.done.append(operation)
            settling = operation.settles
        return True

    def failure(self):
        """What a failed module returns beside its message."""
        failed = {"failed_operation": self._current.describe()} if self._current else {}
        return {"operations": [operation.describe() for operation in self.done], "changed": bool(self.done), **failed}

    def exit(self):
        for warning in self._last.warnings:
            self.module.warn(warning)
        operations = self._last.operations if self.module.check_mode else self.done
        before, after = self._first.before, self._last.after
        names = sorted({*before, *self._first.after, *after})
        changed = [name for name in names if before.get(name) != after.get(name)]
        result = {
            "changed": bool(operations),
            "operations": [operation.describe() for operation in operations],
            "before": [before[name] for name in names if before.get(name) is not None],
            "after": [after[name] for name in names if after.get(name) is not None],
            **self._first.results,
        }
        if self.module._diff:
            result["diff"] = {
                "before": {name: before[name] for name in changed if before.get(name) is not None},
                "after": {name: after[name] for name in changed if after.get(name) is not None},
            }
        self.module.exit_json(**result)
