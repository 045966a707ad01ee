# SPDX-License-Identifier: Apache-2.0
"""How many requests reached an API server, from its own metrics."""

from __future__ import annotations

import re
import ssl
import time
import urllib.request
from collections import Counter

from cluster.apiserver import ControlPlane

WRITING, WRITTEN = ("POST", "PUT", "DELETE"), ("ipamhandles", "ipamblocks", "blockaffinities")
SETTLE_SECONDS = 2.5  # longer than an agent leaves unwritten what it has answered

_LINE = re.compile(r"^apiserver_request_total\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def count_requests(plane: ControlPlane) -> Counter[tuple[str, str]]:
    """{(verb, resource): requests finished so far}; verbs as Kubernetes names them: GET, POST, PUT, LIST, WATCH, ..."""
    request = urllib.request.Request(f"{plane.url}/metrics", headers={"Authorization": f"Bearer {plane.token}"})
    with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=plane.ca)) as answer:
        text = answer.read().decode()
    counted: Counter[tuple[str, str]] = Counter()
    for labels, count in _LINE.findall(text):
        label = dict(_LABEL.findall(labels))
        counted[label["verb"], label["resource"]] += int(float(count))
    return counted


def settle(plane: ControlPlane) -> Counter[tuple[str, str]]:
    """Wait until no agent has written anything for a while. The requests that were finished until then."""
    writes, before = None, -1
    while writes != before:
        time.sleep(SETTLE_SECONDS)
        counted = count_requests(plane)
        writes, before = sum(counted[verb, kind] for verb in WRITING for kind in WRITTEN), writes
    return counted
