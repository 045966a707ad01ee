# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""`podnet-ipam-ctl`: asks the node's agent about itself, on a Unix socket that is open to root alone.

Exit status: 0, or 1 when `check` has found a disagreement, or 2 when there is no answer.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

CONTROL_SOCKET = Path("/run/podnet-ipam/control.sock")
UNIT = "podnet-ipam.service"
# `check` reads the API server, whose own limit is below this.
ANSWER_SECONDS = 30.0
_MAP_WIDTH = 64
_LEGEND = "# used   r reserved   c cooling   . free"


class NoAnswerError(Exception):
    """The agent cannot be asked, or says why it cannot tell. The text is for the operator."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path):
        super().__init__("agent", timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(path: Path, question: str) -> object:
    """The agent's answer, decoded."""
    connection = _UnixConnection(path)
    try:
        connection.request("GET", question)
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoAnswerError(
            f"the agent does not answer on {path}: {error or type(error).__name__}\n"
            f"see: systemctl status {UNIT}; journalctl -u {UNIT}"
        ) from None
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise NoAnswerError(answer["error"])
    return answer


def _status(answer: dict) -> Iterable[str]:
    versions = answer["versions"]
    store = answer["store"]
    rows = store.get("error") or f"{store['held']} held, {store['released']} released"
    away = answer["api_server_away_seconds"]
    yield f"node         {answer['node']}"
    yield f"ready        {'yes' if answer['ready'] else 'no: ' + answer['reason']}"
    built = f"Python {versions['python']}, {versions['core']} core, JSON by {versions['json']}"
    yield f"version      {versions['podnet-ipam']} ({built})"
    yield f"up           {answer['up_seconds']:.0f} s; the event loop was busy {answer['longest_busy_ms']} ms at most"
    yield f"API server   {f'away for {away:.0f} s' if away else 'answers'}"
    yield f"store        {store['path']}: {rows}"
    yield f"tombstones   {answer['tombstones']}"
    if "blocks" in answer:
        yield f"attachments  {answer['attachments']}; {answer['unsettled']} on their way to the API server"
        left = ", ".join(f"{count} {family}" for family, count in answer["addresses_left"].items())
        yield f"left         {left}"
        yield ""
        yield from _table(answer["blocks"], {key: key.upper() for key in ("cidr", "pool", "free", "mode", "why")})


def _pools(answer: list[dict]) -> Iterable[str]:
    columns = ("name", "family", "cidr", "blocks", "spare", "used", "reserved", "cooling", "free", "lent", "borrowed")
    yield from _table(answer, {**{key: key.upper() for key in columns}, "not_usable": "GIVES NOTHING BECAUSE"})


def _blocks(answer: list[dict]) -> Iterable[str]:
    for block in answer:
        figures = ", ".join(f"{block[key]} {key}" for key in ("used", "reserved", "cooling", "free", "lent"))
        yield f"{block['cidr']} of pool {block['pool']}{' (spare)' if block['spare'] else ''}: {figures}"
        for start in range(0, len(block["states"]), _MAP_WIDTH):
            yield f"  {start:>5}  {block['states'][start : start + _MAP_WIDTH]}"
    yield _LEGEND if answer else "this node has no blocks"


def _explain(answer: dict) -> Iterable[str]:
    yield f"pod {answer['namespace']}/{answer['pod']} on node {answer['node']}"
    if answer["scheduled_to"] != answer["node"]:
        yield f"it is scheduled to {answer['scheduled_to'] or 'no node yet'}; this is what it would get here"
    if answer["configuration"] is None:
        yield "no ADD has come since the agent started: the plugin's configuration is taken to be empty"
    if answer["holds"]:
        yield f"holds    {', '.join(answer['holds'])}"
    yield f"families {', '.join(answer['families']) or 'none'}, by {answer['families_source']}"
    if answer["error"]:
        yield f"error    {answer['error']}"
    for family in ("ipv4", "ipv6"):
        choice = answer[family]
        if choice is None:
            continue
        pools = ", ".join(choice["pools"])
        yield f"{family}     " + (f"{pools}, by {choice['source']}" if pools else f"none: {choice['error']}")
        if pools and choice["error"]:
            yield f"           no address: {choice['error']}"
        elif pools:
            yield f"           gets its address from {choice['pool']}"
        for refused in [each for each in choice["room"] if choice["pool"] and each["reason"]] + choice["refused"]:
            yield f"           not {refused['name']}: {refused['reason']}"


def _check(answer: list[dict]) -> Iterable[str]:
    if answer:
        return _table(answer, {"subject": "WHAT", "problem": "DISAGREEMENT"})
    return ["store, memory, API server and pods agree"]


def _table(rows: Sequence[dict], columns: dict[str, str]) -> Iterable[str]:
    """Lines of a table; `columns` has the title of each key."""
    cells = [list(columns.values()), *([_cell(row[key]) for key in columns] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _cell(value: object) -> str:
    return "-" if value is None else str(value)


VIEWS: dict[str, tuple[Callable[..., Iterable[str]], str]] = {
    "status": (_status, "the agent, its store, and whether its blocks can be answered from without the API server"),
    "pools": (_pools, "what this node has of each pool"),
    "blocks": (_blocks, "this node's blocks, address by address"),
    "explain": (_explain, "which pool a pod would draw from on this node, and why not from the others"),
    "check": (_check, "where store, memory, API server and pods disagree; exit status 1 when they do"),
}


def main() -> None:
    options = _options()
    question = f"/{options.command}"
    if options.command == "explain":
        namespace, name = options.pod
        question += f"/{quote(namespace, safe='')}/{quote(name, safe='')}"
    try:
        answer = ask(options.socket, question)
    except NoAnswerError as error:
        print(f"podnet-ipam-ctl: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if options.output == "json":
        print(json.dumps(answer, indent=2))
    else:
        view, _help = VIEWS[options.command]
        print("\n".join(view(answer)))
    if options.command == "check" and answer:
        raise SystemExit(1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="ask the node agent of podnet-ipam about itself")
    parser.add_argument("--socket", type=Path, default=CONTROL_SOCKET, help=f"default: {CONTROL_SOCKET}")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (_view, text) in VIEWS.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--output", choices=("table", "json"), default="table")
        if name == "explain":
            command.add_argument("pod", metavar="NAMESPACE/POD", type=_pod)
    return parser.parse_args()


def _pod(text: str) -> tuple[str, str]:
    namespace, separator, name = text.partition("/")
    if not (namespace and separator and name) or "/" in name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAMESPACE/POD, such as default/web-0")
    return namespace, name
