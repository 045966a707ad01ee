# SPDX-License-Identifier: Apache-2.0
"""What the clients of the modules can do, and what counts as the outcome of a write."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible_collections.podnet.ipam.plugins.module_utils import _runner
from ansible_collections.podnet.ipam.plugins.module_utils._kube.client import Reader, Writer
from ansible_collections.podnet.ipam.plugins.module_utils._kube.content import contains


@pytest.mark.parametrize("check_mode", [True, False])
def test_check_mode_gets_a_client_that_cannot_write(monkeypatch, check_mode):
    monkeypatch.setattr(_runner, "open_connection", lambda options: options)
    client = _runner.connect(SimpleNamespace(check_mode=check_mode, params={}))
    assert isinstance(client, Reader) and isinstance(client, Writer) is not check_mode


def test_a_client_that_only_reads_has_no_method_that_writes():
    public = {name for name in dir(Reader) if not name.startswith("_")}
    assert public == {"origin", "get", "find", "list"}
    added = {name for name in dir(Writer) if not name.startswith("_")} - public
    assert added == {"create", "replace", "patch", "delete", "evict", "rehearsal"}


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
