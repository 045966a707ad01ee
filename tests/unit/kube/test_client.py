# SPDX-License-Identifier: Apache-2.0
"""What the clients of the modules can do, how long they wait, and what counts as the outcome of a write."""

from __future__ import annotations

import itertools
from datetime import datetime, timezone
from types import SimpleNamespace

import pytest
from ansible_collections.podnet.ipam.plugins.module_utils import _runner
from ansible_collections.podnet.ipam.plugins.module_utils._kube import client as client_module
from ansible_collections.podnet.ipam.plugins.module_utils._kube.calico import V1
from ansible_collections.podnet.ipam.plugins.module_utils._kube.client import Reader, Writer
from ansible_collections.podnet.ipam.plugins.module_utils._kube.content import contains
from ansible_collections.podnet.ipam.plugins.module_utils._kube.errors import ApiError, Conflict
from ansible_collections.podnet.ipam.plugins.module_utils._plan.operation import Operation, Plan
from ansible_collections.podnet.ipam.plugins.modules import pod_audit

PATH = "/api/v1/nodes/node-1"


@pytest.mark.parametrize("check_mode", [True, False])
def test_check_mode_gets_a_client_that_cannot_write(monkeypatch, check_mode):
    monkeypatch.setattr(_runner, "open_connection", lambda options: options)
    client = _runner.connect(SimpleNamespace(check_mode=check_mode, params={}))
    assert isinstance(client, Reader) and isinstance(client, Writer) is not check_mode


def test_a_client_that_only_reads_has_no_method_that_writes():
    public = {name for name in dir(Reader) if not name.startswith("_")}
    assert public == {"origin", "server_time", "get", "find", "list"}
    added = {name for name in dir(Writer) if not name.startswith("_")} - public
    assert added == {"create", "replace", "patch", "delete", "evict", "rehearsal"}


class Dated:
    """A connection to an API server without any object, which sends this date."""

    def __init__(self, date):
        self._headers = {"Date": date} if date else {}

    def request(self, *_request):
        return 200, self._headers, {"items": [], "metadata": {}}


def test_time_is_that_of_the_api_server_at_its_last_answer():
    reader = Reader(Dated("Sat, 22 Aug 2026 10:00:15 GMT"))
    reader.list("/api/v1/nodes")
    assert reader.server_time.isoformat() == "2026-08-22T10:00:15+00:00"


@pytest.mark.parametrize("date", ["", "yesterday"])
def test_where_no_date_comes_through_time_is_that_of_this_machine(date):
    reader = Reader(Dated(date))
    reader.list("/api/v1/nodes")
    assert abs((reader.server_time - datetime.now(timezone.utc)).total_seconds()) < 60


def test_an_audit_takes_the_age_of_objects_from_the_api_servers_clock():
    """One from a machine whose clock is ahead would take what is on its way for leaked."""
    reader = Reader(Dated("Sat, 22 Aug 2026 10:00:15 GMT"))
    assert pod_audit.read(reader, V1, {}).now == 1787392815


WRITTEN = {"containers": [{"name": "main", "ports": [80]}], "volumes": [], "hostNetwork": False}


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (WRITTEN, True),
        ({"containers": [{"name": "main", "ports": [80], "tty": False}], "volumes": [{"name": "token"}]}, True),
        ({"containers": [{"name": "other", "ports": [80]}], "volumes": []}, False),
        ({"containers": [{"name": "main", "ports": []}], "volumes": []}, False),
        ({"containers": [{"name": "main", "ports": [80]}]}, True),
        ({"containers": [{"name": "main", "ports": [80]}], "hostNetwork": True}, False),
        (None, False),
    ],
)
def test_what_was_written_is_found_in_what_the_api_server_made_of_it(stored, expected):
    assert contains(stored, WRITTEN) is expected


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self):
        self.now = 0.0
        self.slept = []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


class Server:
    """A connection to an API server that gives these answers, the last one again and again."""

    origin = "a test"

    def __init__(self, *answers):
        self._answers = itertools.chain(answers, itertools.repeat(answers[-1]))

    def request(self, *_request):
        status, retry_after = next(self._answers)
        return status, {} if retry_after is None else {"Retry-After": retry_after}, {}


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(client_module, "time", clock)
    return clock


def test_pauses_double_where_the_server_does_not_say_when_to_come_back(clock):
    with pytest.raises(ApiError):
        Reader(Server((503, None))).get(PATH)
    assert clock.slept == [0.2, 0.4, 0.8, 1.6]


@pytest.mark.parametrize("text", ["0", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_what_names_no_time_to_wait_does_not_shorten_a_pause(clock, text):
    Reader(Server((503, text), (200, None))).get(PATH)
    assert clock.slept == [0.2]


@pytest.mark.parametrize(("asked", "slept"), [("30", [30, 30, 30, 30]), ("45", [45, 45]), ("3600", [])])
def test_a_server_is_left_alone_for_as_long_as_it_asks_for_unless_there_is_no_such_time(clock, asked, slept):
    with pytest.raises(ApiError):
        Reader(Server((429, asked))).get(PATH)
    assert clock.slept == slept


@pytest.mark.parametrize(("status", "repeated"), [(429, False), (503, True)])
def test_only_what_may_have_been_carried_out_counts_as_an_earlier_attempt(clock, status, repeated):
    with pytest.raises(ApiError) as caught:
        Reader(Server((status, None), (409, None))).get(PATH)
    assert caught.value.repeated is repeated


class Module:
    """A module that fails by an exception."""

    check_mode = False

    def fail_json(self, **result):
        raise SystemExit(result["msg"])


def test_pauses_double_up_to_a_bound_where_others_write_at_the_same_time(monkeypatch, clock):
    def lose(*_operation):
        error = Conflict("PATCH", PATH, 409, "Conflict", "someone else was faster")
        error.origin = Server.origin
        raise error

    for name, value in {"connect": lambda _module: None, "apply": lose, "time": clock}.items():
        monkeypatch.setattr(_runner, name, value)
    monkeypatch.setattr(_runner.observe, "pools", lambda _client: (None, {}))
    plan = Plan(operations=[Operation("patch", "Namespace", "payments")])
    with pytest.raises(SystemExit):
        _runner.run_plan(Module(), lambda *_read: None, lambda _observed: plan)
    bounds = [0.5, 1, 2, 4, 5, 5, 5, 5, 5]
    assert all(bound / 2 <= slept <= bound for slept, bound in zip(clock.slept, bounds, strict=True))
