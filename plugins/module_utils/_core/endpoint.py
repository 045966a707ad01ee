# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the agent's metrics are answered, as the role is told it and the agent reads it."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def loopback_endpoint(text):
    """(host, port) of a text such as `127.0.0.1:9764`. ValueError for anything but a loopback address with a port.

    What is answered there is for all who reach it.
    """
    try:
        parts = urlsplit(f"//{text}")
        if ipaddress.ip_address(parts.hostname).is_loopback and parts.port and parts.netloc == text:
            return parts.hostname, parts.port
    except ValueError:
        pass
    raise ValueError(f"{text!r}; a loopback address with a port is expected: '127.0.0.1:9764'")
