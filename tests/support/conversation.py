# SPDX-License-Identifier: Apache-2.0
"""The agent's socket without the executable: bytes as they are, or a whole request and its answer."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from podnet_ipam.agent.protocol import Request, encode_request
from support.plane import CniReply

# An agent that says nothing for so long hangs.
ANSWER_SECONDS = 60.0


def exchange(path: Path, data: bytes) -> bytes:
    """What the agent sends back to these bytes until it closes the connection; b"" when it just closes it."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(ANSWER_SECONDS)
        client.connect(str(path))
        received = b""
        try:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            while chunk := client.recv(1 << 16):
                received += chunk
        except (BrokenPipeError, ConnectionResetError):
            pass  # it had heard enough
        return received


def ask(path: Path, command: str, container: str, config: dict, **variables: str) -> CniReply:
    """The answer to a request of a runtime. `config` is beside what every one has."""
    variables = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container,
        "CNI_NETNS": "/proc/self",
        "CNI_IFNAME": "eth0",
        **variables,
    }
    config = {"cniVersion": "1.1.0", "name": "podnet", "type": "macvlan", "ipam": {"type": "podnet-ipam"}, **config}
    return parse(exchange(path, encode_request(Request(variables, json.dumps(config).encode()))))


def parse(answer: bytes) -> CniReply:
    """An answer must be the exit status, and what is printed: nothing, or JSON."""
    status, printed = answer[0], answer[1:]
    return CniReply(status, json.loads(printed) if printed else {})
