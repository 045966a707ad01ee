# SPDX-License-Identifier: Apache-2.0
"""The agent's log has exactly one line of each ADD and DEL, whatever becomes of it."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from podnet_ipam._kube.calico import V1
from support.plane import create_pool, settled

_FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)(?: |$)')


@pytest.fixture
async def node(client, start_node):
    await create_pool(client, "main", "10.244.0.0/24")
    spec = {"strictAffinity": True, "autoAllocateBlocks": True}
    await client.create(V1.path("IPAMConfig"), V1.new("IPAMConfig", "default", spec))
    return await start_node("node-1")


async def requests(node):
    """The lines of requests as they came, each as a dict; any text that is no field of such a line is an error."""
    await node.ctl("status")  # an answer goes before its line, but both before any later answer
    found = []
    for line in node.log.read_text().splitlines():
        level, _space, text = line.partition(" ")
        if not text.startswith("verb="):
            continue
        assert _FIELD.sub("", text) == "", text
        fields = {key: json.loads(value) if value.startswith('"') else value for key, value in _FIELD.findall(text)}
        found.append({"level": level, **fields})
    return found


async def test_an_add_and_a_del_say_whose_addresses_they_gave_and_how(node, client):
    first = await node.add("c1", pod="web-0")
    await settled(client, [first.address])
    second = await node.add("c2", pod="web-1")
    await node.add("c2", pod="web-1")
    await node.delete("c2", pod="web-1")
    await node.delete("c2", pod="web-1")
    lines = await requests(node)
    assert all(float(line.pop("ms")) > 0 for line in lines)
    web_0 = {"level": "INFO", "pod": "default/web-0", "container": "c1", "code": "0"}
    web_1 = {**web_0, "pod": "default/web-1", "container": "c2"}
    held = {"addresses": second.address, "pools": "main"}
    assert lines == [
        {"verb": "ADD", **web_0, "addresses": first.address, "pools": "main", "mode": "written-through"},
        {"verb": "ADD", **web_1, **held, "mode": "local-first"},
        {"verb": "ADD", **web_1, **held, "mode": "already-held"},
        {"verb": "DEL", **web_1, **held, "mode": "local-first"},
        {"verb": "DEL", **web_1, "addresses": "-", "pools": "-", "mode": "nothing-held"},
    ]


async def test_a_failure_says_why_with_the_code_of_the_answer(node):
    reply = await node.add("c1", annotations={"cni.projectcalico.org/ipv4pools": '["nowhere"]'})
    [line] = await requests(node)
    assert (line["level"], line["verb"], line["pod"], line["code"]) == ("ERROR", "ADD", "default/c1", "7")
    assert line["error"] == reply.body["msg"] and line["addresses"] == line["mode"] == "-"


async def test_a_request_that_cannot_be_decoded_is_one_line_too_and_cannot_forge_others(node):
    variables = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": 'c1 code=0\nverb=DEL pod="x"'}
    await node.run(variables, b"no JSON")
    [line] = await requests(node)
    assert line["container"] == variables["CNI_CONTAINERID"]
    assert line["code"] == "6" and line["pod"] == "-"


async def test_a_del_that_is_postponed_says_so_and_is_a_line_again_when_it_is_carried_out(node, plane):
    plane.stop_apiserver()
    try:
        assert (await node.delete("unheard-of")).status == 0
    finally:
        plane.start_apiserver()
    line = (await requests(node))[0]
    assert line["mode"] == "postponed" and line["code"] == "0" and "no answer from the API server" in line["error"]
    async with asyncio.timeout(20):
        while (await requests(node))[-1]["mode"] != "nothing-held":
            await asyncio.sleep(0.05)


async def test_verbs_that_runtimes_send_all_the_time_are_logged_when_they_fail(node, client):
    await node.call("STATUS", "")
    assert await requests(node) == []
    await node.call("CHECK", "c1", prevResult={"ips": [{"address": "10.244.0.9/24"}]})
    [line] = await requests(node)
    assert (line["verb"], line["code"]) == ("CHECK", "101")
