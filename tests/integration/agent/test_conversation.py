# SPDX-License-Identifier: Apache-2.0
"""The CNI conversation itself, and what happens when one side of it is missing or misbehaves."""

from __future__ import annotations

import asyncio
import resource
import socket

import pytest
from support.plane import AgentNode, create_pool


@pytest.fixture
async def node(client, start_node):
    await create_pool(client, "main", "10.244.0.0/20")
    return await start_node("node-1")


async def test_version_needs_no_agent(tmp_path, executable):
    nobody = AgentNode("nobody", tmp_path, tmp_path / "none", shim=executable)
    reply = await nobody.run({"CNI_COMMAND": "VERSION"}, {})
    assert reply.status == 0
    assert reply.body["supportedVersions"] == ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]


@pytest.mark.parametrize(("command", "code"), (("ADD", 11), ("CHECK", 11), ("STATUS", 50)))
async def test_without_an_agent_the_runtime_is_told_to_try_again_and_where_to_look(tmp_path, executable, command, code):
    reply = await AgentNode("nobody", tmp_path, tmp_path / "none", shim=executable).call(command, "c1")
    assert (reply.status, reply.body["code"]) == (1, code)
    assert "cannot reach the agent on its socket: No such file or directory" in reply.body["msg"]
    assert "podnet-ipam.service" in reply.body["details"]


@pytest.mark.parametrize("version", ("0.3.1", "0.4.0", "1.0.0", "1.1.0"))
async def test_the_answer_has_the_shape_of_the_version_asked_for(node, version):
    reply = await node.add("c1", version=version)
    assert reply.body["cniVersion"] == version
    assert ("version" in reply.body["ips"][0]) == (version < "1.0.0")


@pytest.mark.parametrize("version", ("0.2.0", "1.2.0", None))
async def test_another_version_is_refused_with_the_ones_that_are_supported(node, version):
    reply = await node.add("c1", version=version)
    assert reply.body["code"] == 1
    assert reply.body["details"] == "supported: 0.3.1, 0.4.0, 1.0.0, 1.1.0"


@pytest.mark.parametrize(
    ("variables", "config", "code", "message"),
    (
        ({"CNI_CONTAINERID": "c1"}, b"{", 6, "the network configuration is not JSON"),
        ({"CNI_CONTAINERID": "c1"}, b"[]", 6, "not a JSON object"),
        ({"CNI_CONTAINERID": "c1"}, {"cniVersion": "1.0.0"}, 7, "the network's name is None"),
        ({"CNI_CONTAINERID": "c1"}, {"cniVersion": "1.0.0", "name": "a/b"}, 7, "the network's name is 'a/b'"),
        ({"CNI_CONTAINERID": ""}, {"cniVersion": "1.0.0", "name": "a"}, 4, "CNI_CONTAINERID is ''"),
        (
            {"CNI_CONTAINERID": "c1", "CNI_ARGS": "A=B;oops"},
            {"cniVersion": "1.0.0", "name": "a"},
            4,
            "CNI_ARGS contains 'oops'",
        ),
        (
            {"CNI_CONTAINERID": "c1", "CNI_COMMAND": "FIX"},
            {"cniVersion": "1.0.0", "name": "a"},
            4,
            "CNI_COMMAND is 'FIX'",
        ),
    ),
)
async def test_a_defect_of_the_request_is_named_with_the_code_for_it(node, variables, config, code, message):
    reply = await node.run({"CNI_COMMAND": "ADD", **variables}, config)
    assert (reply.status, reply.body["code"]) == (1, code)
    assert message in reply.body["msg"]


async def test_check_compares_what_the_runtime_was_told_with_what_is_held(node):
    added = await node.add("c1")
    assert (await node.call("CHECK", "c1", prevResult=added.body)).status == 0
    other = {**added.body, "ips": [{"address": "10.244.9.9/20"}]}
    reply = await node.call("CHECK", "c1", prevResult=other)
    assert (reply.status, reply.body["code"]) == (1, 101)
    assert "handle podnet.c1 does not hold 10.244.9.9" in reply.body["msg"]


async def test_check_needs_what_the_runtime_was_told(node):
    await node.add("c1")
    reply = await node.call("CHECK", "c1")
    assert (reply.status, reply.body["code"]) == (1, 7)
    assert "prevResult" in reply.body["msg"]


async def test_check_of_a_container_that_holds_nothing_fails_whatever_the_runtime_was_told(node):
    reply = await node.call("CHECK", "c1", prevResult={"cniVersion": "1.1.0", "ips": []})
    assert (reply.status, reply.body["code"]) == (1, 101)
    assert "handle podnet.c1 holds nothing" in reply.body["msg"]


@pytest.mark.parametrize(
    "request_bytes", (b"", b"GET / HTTP/1.1\r\n\r\n", b"P1CNI_COMMAND=ADD", b"P1novalue\0\0{}", b"P1\xff=\xff\0\0")
)
async def test_garbage_on_the_socket_disturbs_nobody(node, request_bytes):
    reader, writer = await asyncio.open_unix_connection(node.socket)
    writer.write(request_bytes)
    writer.write_eof()
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()
    assert (await node.add("c1")).status == 0


async def test_clients_that_hang_do_not_keep_others_waiting(node):
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    hanging = []
    try:
        for number in range(min(10_000, most - 1000)):
            client = socket.socket(socket.AF_UNIX)
            hanging.append(client)
            await asyncio.get_running_loop().run_in_executor(None, client.connect, str(node.socket))
            client.send(b"P1CNI_COMMAND=ADD\0")
            if number % 1000 == 0:
                assert (await node.add(f"c{number}")).status == 0
        assert (await node.add("last")).status == 0
    finally:
        for client in hanging:
            client.close()


async def test_without_file_descriptors_the_agent_waits_until_there_are_some(node):
    node.limit(resource.RLIMIT_NOFILE, 64)
    hanging = []
    try:
        for _number in range(100):
            client = socket.socket(socket.AF_UNIX)
            hanging.append(client)
            client.connect(str(node.socket))
            client.send(b"P1CNI_COMMAND=ADD\0")
        await node.logged("a connection cannot be accepted")
        before = node.cpu_seconds
        await asyncio.sleep(2)
        assert node.cpu_seconds - before < 0.5
        assert node.log.read_text().count("a connection cannot be accepted") < 100
    finally:
        for client in hanging:
            client.close()
    assert (await node.add("c1")).status == 0


async def test_a_request_of_any_size_that_a_pod_can_cause_is_served(node):
    annotations = {f"key-{number}": "x" * 1000 for number in range(250)}
    assert (await node.add("c1", annotations=annotations)).status == 0


async def test_while_the_api_server_is_away_the_runtime_is_told_so_and_nothing_is_lost(node, plane):
    before = await node.add("before")
    plane.stop_apiserver()
    try:
        reply = await node.add("during")
        assert (reply.status, reply.body["code"]) == (1, 11)
        assert (
            "not stored at the API server within 15 s: no answer from the API server" in reply.body["msg"]
            and "kubeconfig" in reply.body["msg"]
        )
        assert (await node.add("before")) == before, "what is held is known without the API server"
    finally:
        plane.start_apiserver()
    after = await node.add("during")
    assert after.status == 0 and after.address != before.address
