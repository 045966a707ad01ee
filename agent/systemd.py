# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The two things that a service says to systemd: take over its socket, and report its state.

Source: sd_listen_fds(3), sd_notify(3).
"""

from __future__ import annotations

import os
import socket

_FIRST_FD = 3


def activated_socket() -> socket.socket | None:
    """The listening socket of the socket unit, or None when the process was not started by one."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    return socket.socket(fileno=_FIRST_FD)


def notify(*states: str) -> None:
    """Send states such as `READY=1` to the service manager; without one, do nothing."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.sendto("\n".join(states).encode(), address)
