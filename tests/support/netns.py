# SPDX-License-Identifier: Apache-2.0
"""Nodes and pods as network namespaces. Nothing outside of them is touched."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

PORT = 9000
# Seconds for one exchange between two pods that can reach each other.
EXCHANGE_SECONDS = 5

_SERVE = f"""
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.create_server((sys.argv[1], {PORT}), family=family) as server:
    server.settimeout({2 * EXCHANGE_SECONDS})
    print("listening", flush=True)
    connection, peer = server.accept()
    connection.sendall(peer[0].encode())
    connection.close()
"""
_ASK = f"""
import socket, sys
with socket.create_connection((sys.argv[1], {PORT}), timeout={EXCHANGE_SECONDS}) as connection:
    print(connection.recv(100).decode())
"""


class CommandFailedError(Exception):
    """A command ended with an error; the text is what it said."""


def run(*command: object, env: dict[str, str] | None = None) -> str:
    """The standard output of a command that has to succeed."""
    done = subprocess.run([str(part) for part in command], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandFailedError(f"{done.stdout}{done.stderr}".strip())
    return done.stdout


@contextmanager
def namespace(role: str) -> Iterator[str]:
    """A new network namespace with loopback up, that forwards packets, and without the wait for duplicate addresses."""
    name = f"podnet-{role}-{uuid.uuid4().hex[:8]}"
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "set", "lo", "up")
        for key, value in (
            ("ipv4/ip_forward", 1),
            ("ipv6/conf/all/forwarding", 1),
            ("ipv6/conf/all/accept_dad", 0),
            ("ipv6/conf/default/accept_dad", 0),
        ):
            run("ip", "netns", "exec", name, "sh", "-c", f"echo {value} > /proc/sys/net/{key}")
        yield name
    finally:
        run("ip", "netns", "del", name)


def kernel_has(link: str) -> bool:
    """Whether this kernel makes links of a type."""
    with namespace("probe") as name:
        run("ip", "-n", name, "link", "add", "under", "type", "veth", "peer", "name", "other")
        try:
            run("ip", "-n", name, "link", "add", "link", "under", "name", "probe", "type", link)
        except CommandFailedError:
            return False
        return True


def exchange(client: str, server: str, address: str) -> str:
    """Connect from one namespace to an address in another; the address under which the server saw the client."""
    serving = subprocess.Popen(
        ["ip", "netns", "exec", server, sys.executable, "-c", _SERVE, address], stdout=subprocess.PIPE, text=True
    )
    try:
        assert serving.stdout.readline() == "listening\n"
        return run("ip", "netns", "exec", client, sys.executable, "-c", _ASK, address).strip()
    finally:
        serving.kill()
        serving.wait()
        serving.stdout.close()
