# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The CNI executable where there is no compiled one. shim.c says what it does and why; this does the same.

Nearly all of its time is Python's own start. So its first line, which setup.py writes, asks for a Python without
site-packages; it imports what is built in or frozen, and `_socket`, which is `socket` without the enumerations that
take as long as all the rest; and it ends without taking the interpreter down.
"""

import _socket
import errno
import os
import sys
import time

SOCKET = os.environb.get(b"PODNET_IPAM_SOCKET", b"/run/podnet-ipam/agent.sock")
SPOOL = os.environb.get(b"PODNET_IPAM_SPOOL", b"/var/lib/podnet-ipam/spool")
COMMAND = os.environb.get(b"CNI_COMMAND")
LONGEST_SOCKET = 107
READ_SIZE = 65536

ANSWER_TIMEOUT_SECONDS = 100
DEL_TIMEOUT_SECONDS = 20
CONNECT_ATTEMPTS = 20
CONNECT_PAUSE_SECONDS = 0.1
LARGEST_INPUT = 4 << 20

VERSIONS = '{"cniVersion":"1.1.0","supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]}\n'
ERROR = (
    '{"cniVersion":"1.0.0","code":%d,"msg":"podnet-ipam: %s: %s",'
    '"details":"see: systemctl status podnet-ipam.socket podnet-ipam.service"}\n'
)


class Unanswered(Exception):
    """The agent has not answered: what was tried, and the errno of what came of it."""


def write_all(fd, data):
    while data:
        data = data[os.write(fd, data) :]


def fail(what, number, code):
    write_all(1, (ERROR % (code, what, os.strerror(number))).encode())
    return 1


def read_input():
    data = b""
    while len(data) < LARGEST_INPUT:
        chunk = os.read(0, LARGEST_INPUT - len(data))
        if not chunk:
            break
        data += chunk
    return data


def encode_request(stdin):
    variables = [b"%s=%s\0" % pair for pair in os.environb.items() if pair[0].startswith(b"CNI_")]
    return b"P1" + b"".join(variables) + b"\0" + stdin


def connect_agent(seconds):
    if len(SOCKET) > LONGEST_SOCKET:
        raise OSError(errno.ENAMETOOLONG, "")
    # A struct timeval. Not `settimeout`: with that, a socket whose queue is full refuses instead of waiting.
    timeout = seconds.to_bytes(8, sys.byteorder) + bytes(8)
    attempts = CONNECT_ATTEMPTS
    while True:
        agent = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        agent.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, timeout)
        agent.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, timeout)
        try:
            agent.connect(SOCKET)
            return agent
        except OSError as error:
            agent.close()
            attempts -= 1
            # EAGAIN: the agent's queue has been full for all of `seconds`.
            if not attempts or error.errno not in (errno.ECONNREFUSED, errno.ENOENT):
                raise
        time.sleep(CONNECT_PAUSE_SECONDS)


def read_answer(agent):
    chunks = []
    while chunk := agent.recv(READ_SIZE):
        chunks.append(chunk)
    return b"".join(chunks)


def ask(request, seconds):
    """The answer, which is not empty; or Unanswered."""
    what = "cannot reach the agent on its socket"
    try:
        agent = connect_agent(seconds)
        what = "cannot send the request to the agent"
        agent.sendall(request)
        agent.shutdown(_socket.SHUT_WR)
        what = "the agent ended before it answered"
        answer = read_answer(agent)
    except OSError as error:
        if error.errno == errno.EAGAIN and what.startswith("the agent"):
            what = "the agent did not answer in time"
        raise Unanswered(what, error.errno) from None
    if not answer:
        raise Unanswered(what, errno.ECONNRESET)
    return answer


def leave_tombstone(request):
    """Leave the request in the spool folder, whole or not at all."""
    folder = os.open(SPOOL, os.O_RDONLY | os.O_DIRECTORY)
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    name = f"{seconds}-{nanoseconds:09}-{os.getpid()}"
    aside = f".{name}"
    file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
    try:
        write_all(file, request)
        os.fsync(file)
        os.rename(aside, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        os.unlink(aside, dir_fd=folder)
        raise
    os.fsync(folder)


def main():
    if sys.argv[1:2] == ["-upgrade"]:
        return 0
    if COMMAND == b"VERSION":
        write_all(1, VERSIONS.encode())
        return 0
    try:
        request = encode_request(read_input())
    except OSError as error:
        return fail("cannot read standard input", error.errno, 5)
    deleting = COMMAND == b"DEL"
    try:
        answer = ask(request, DEL_TIMEOUT_SECONDS if deleting else ANSWER_TIMEOUT_SECONDS)
    except Unanswered as unanswered:
        what, number = unanswered.args
    else:
        write_all(1, answer[1:])
        return answer[0]
    if deleting:
        try:
            leave_tombstone(request)
            return 0
        except OSError as error:
            number = error.errno
    return fail(what, number, 50 if COMMAND == b"STATUS" else 11)


os._exit(main())
