# SPDX-License-Identifier: Apache-2.0
"""How many requests reached an API server, from its own metrics."""

from __future__ import annotations

import re
import ssl
import urllib.request
from collections import Counter

from cluster.apiserver import ControlPlane

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
