# SPDX-License-Identifier: Apache-2.0
"""The CNI executable, compiled or not: what it sends, what it prints, and what it does when no agent answers."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import threading
import time
from types import SimpleNamespace

import pytest
from podnet_ipam.agent.protocol import LARGEST_REQUEST, parse_request
from support.plane import SHIM
from support.shims import FORMS, script, shim

ENDED = "podnet-ipam: the agent ended before it answered: Connection reset by peer"
AWAY = "podnet-ipam: cannot reach the agent on its socket: No such file or directory"


@pytest.fixture(params=FORMS)
def executable(request, tmp_path):
    return shim(request.param, tmp_path)


@pytest.fixture
def listening(tmp_path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "agent.sock"))
        listening.listen(1)
        yield listening


@pytest.fixture
def agent(listening):
    """An agent that answers one request with `answer`; what it was sent is in `request` once `thread` has ended."""
    agent = SimpleNamespace(answer=b"\0", request=None)

    def serve():
        connection, _address = listening.accept()
        with connection:
            agent.request = received(connection)
            connection.sendall(agent.answer)

    agent.thread = threading.Thread(target=serve, daemon=True)
    agent.thread.start()
    return agent


def received(connection):
    data = b""
    while chunk := connection.recv(1 << 16):
        data += chunk
    return data


@pytest.fixture
def spool(tmp_path):
    folder = tmp_path / "spool"
    folder.mkdir()
    return folder


def environment(folder, command, **variables):
    own = {"PODNET_IPAM_SOCKET": str(folder / "agent.sock"), "PODNET_IPAM_SPOOL": str(folder / "spool")}
    return {**own, "PATH": os.defpath, "CNI_COMMAND": command, **variables}


@pytest.fixture
def call(executable, tmp_path):
    """Run the executable, which knows its command, its variables and its standard input."""

    def call(command, stdin=b"{}", arguments=(), **variables):
        known = environment(tmp_path, command, **variables)
        done = subprocess.run([executable, *arguments], env=known, input=stdin, capture_output=True, check=False)
        assert done.stderr == b""
        return done

    return call


def told(done):
    """The exit status, the error's code and its message."""
    answer = json.loads(done.stdout)
    assert answer["cniVersion"] == "1.0.0" and "podnet-ipam.service" in answer["details"]
    return done.returncode, answer["code"], answer["msg"]


@pytest.mark.parametrize("answer", (b"\0", b'\0{"ips":[]}', b'\1{"code":7}', b"\0" + b"x" * 1_000_000))
def test_the_first_byte_of_the_answer_is_the_exit_status_and_the_others_are_printed(agent, call, answer):
    agent.answer = answer
    done = call("ADD")
    assert (done.returncode, done.stdout) == (answer[0], answer[1:])


def test_the_agent_is_sent_the_variables_of_cni_and_standard_input_as_they_are(agent, call):
    args = os.fsdecode(b"A=\xff;B==")
    call("ADD", b"{\xff\0", CNI_ARGS=args, CNI_IFNAME="", OTHER="x")
    agent.thread.join()
    variables, _end, stdin = agent.request.removeprefix(b"P1").partition(b"\0\0")
    assert set(variables.split(b"\0")) == {b"CNI_COMMAND=ADD", b"CNI_IFNAME=", b"CNI_ARGS=A=\xff;B=="}
    assert stdin == b"{\xff\0"


def test_of_a_standard_input_without_end_no_more_is_sent_than_the_agent_refuses(agent, call):
    call("ADD", b" " * (LARGEST_REQUEST + 100))
    agent.thread.join()
    assert LARGEST_REQUEST < len(agent.request) < LARGEST_REQUEST + 100


def test_version_needs_no_agent_and_no_standard_input(executable):
    done = subprocess.run([executable], env={"CNI_COMMAND": "VERSION"}, capture_output=True, check=True)
    assert json.loads(done.stdout) == {
        "cniVersion": "1.1.0",
        "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
    }


def test_calicos_installer_is_told_that_there_is_nothing_to_carry_over(executable):
    done = subprocess.run([executable, "-upgrade"], env={}, capture_output=True, check=True)
    assert done.stdout == b""


@pytest.mark.parametrize(("command", "code"), (("ADD", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50)))
def test_an_agent_that_is_away_is_to_be_tried_again(call, command, code):
    assert told(call(command)) == (1, code, AWAY)


@pytest.mark.parametrize(("command", "code"), (("ADD", 11), ("STATUS", 50)))
def test_an_agent_that_ends_is_to_be_tried_again(agent, call, command, code):
    agent.answer = b""
    assert told(call(command)) == (1, code, ENDED)


def test_a_delete_without_an_agent_is_left_for_it(call, spool):
    stdin = b'{"name":"podnet"}'
    done = call("DEL", stdin, CNI_CONTAINERID="c1")
    assert (done.returncode, done.stdout) == (0, b"")
    [tombstone] = spool.iterdir()
    assert re.fullmatch(r"\d+-\d{9}-\d+", tombstone.name)
    assert stat.S_IMODE(tombstone.stat().st_mode) == 0o600
    request = parse_request(tombstone.read_bytes())
    assert (request.variables, request.stdin) == ({"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c1"}, stdin)


def test_a_delete_that_the_agent_did_not_answer_is_left_for_it(agent, call, spool):
    agent.answer = b""
    assert call("DEL").returncode == 0
    [tombstone] = spool.iterdir()
    assert tombstone.read_bytes() == agent.request


def test_a_delete_that_the_agent_answered_leaves_nothing(agent, call, spool):
    agent.answer = b"\1{}"
    assert call("DEL").returncode == 1
    assert list(spool.iterdir()) == []


def test_a_delete_that_cannot_be_left_fails(call):
    assert told(call("DEL")) == (1, 11, AWAY)


def test_a_tombstone_that_cannot_be_written_is_not_there_at_all(agent, executable, tmp_path, spool):
    agent.answer = b""
    # Through a shell, which limits the size of files and has the signal for it ignored.
    limited = ["sh", "-c", """ulimit -f 0; trap '' XFSZ; exec "$0" """, executable]
    done = subprocess.run(limited, env=environment(tmp_path, "DEL"), input=b"{}", capture_output=True, check=False)
    assert told(done) == (1, 11, ENDED.replace("Connection reset by peer", "File too large"))
    assert list(spool.iterdir()) == []


def test_a_standard_input_that_cannot_be_read_is_an_error_of_its_own(executable, tmp_path):
    with (tmp_path / "file").open("wb") as unreadable:
        done = subprocess.run(
            [executable], env=environment(tmp_path, "ADD"), stdin=unreadable, capture_output=True, check=False
        )
    assert told(done) == (1, 5, "podnet-ipam: cannot read standard input: Bad file descriptor")


def test_a_path_that_is_too_long_for_a_socket_is_named_so(call, tmp_path):
    long = str(tmp_path / ("s" * 108))
    status, code, message = told(call("ADD", PODNET_IPAM_SOCKET=long))
    # In the words of musl or of glibc.
    assert (status, code) == (1, 11) and re.search("cannot reach the agent on its socket: File ?name too long", message)


# The script alone, whose times can be changed.


def test_an_agent_that_does_not_answer_in_time_is_given_up(listening, tmp_path, spool):
    hurried = script(tmp_path, {"ANSWER_TIMEOUT_SECONDS": 1, "DEL_TIMEOUT_SECONDS": 1})
    message = "podnet-ipam: the agent did not answer in time: Resource temporarily unavailable"
    add, delete = (
        subprocess.run([hurried], env=environment(tmp_path, command), input=b"", capture_output=True, check=False)
        for command in ("ADD", "DEL")
    )
    assert told(add) == (1, 11, message)
    assert delete.returncode == 0 and len(list(spool.iterdir())) == 1


@pytest.fixture
def waiting(listening):
    """Clients that fill the queue of an agent that accepts nobody."""
    clients = [socket.socket(socket.AF_UNIX) for _number in range(2)]
    for client in clients:
        client.connect(listening.getsockname())
    yield clients
    for client in clients:
        client.close()


def test_an_agent_whose_queue_is_full_is_waited_for(listening, waiting, tmp_path):
    process = subprocess.Popen(
        [script(tmp_path, {"CONNECT_ATTEMPTS": 1})],
        env=environment(tmp_path, "ADD"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    time.sleep(0.5)
    for client in waiting:
        client.close()
        listening.accept()[0].close()
    connection, _address = listening.accept()
    with connection:
        received(connection)
        connection.sendall(b"\0served")
    assert process.communicate()[0] == b"served" and process.returncode == 0


def test_an_agent_whose_queue_stays_full_is_given_up_after_the_time_of_one_answer(waiting, tmp_path, spool):
    hurried = script(tmp_path, {"ANSWER_TIMEOUT_SECONDS": 1, "DEL_TIMEOUT_SECONDS": 1, "CONNECT_ATTEMPTS": 1000})
    add = given_up(hurried, tmp_path, "ADD")
    assert told(add) == (1, 11, AWAY.replace("No such file or directory", "Resource temporarily unavailable"))
    assert given_up(hurried, tmp_path, "DEL").returncode == 0 and len(list(spool.iterdir())) == 1


@pytest.mark.slow
def test_the_compiled_one_gives_up_an_agent_whose_queue_stays_full_as_well(waiting, tmp_path, spool):
    assert given_up(SHIM, tmp_path, "DEL").returncode == 0 and len(list(spool.iterdir())) == 1


def given_up(executable, folder, command):
    """Run the executable, which must come to an end long before it would have tried again and again."""
    known = environment(folder, command)
    return subprocess.run([executable], env=known, input=b"", capture_output=True, check=False, timeout=60)
