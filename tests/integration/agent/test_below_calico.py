# SPDX-License-Identifier: Apache-2.0
"""Under the name calico-ipam this plugin answers as Calico's own does, which is asked the same beside it."""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import subprocess

import pytest
from podnet_ipam._kube.calico import V1
from support.plane import SHIM, allocated, create_pool, settled


@pytest.fixture
async def pools(client):
    await create_pool(client, "main", "10.244.0.0/24", blockSize=28)
    await create_pool(client, "six", "fd00:10:244::/64")
    await create_pool(client, "closed", "10.245.0.0/24", disabled=True)
    await create_pool(client, "tunnels", "10.246.0.0/24", allowedUses=["Tunnel"])
    await create_pool(client, "elsewhere", "10.247.0.0/24", nodeSelector="rack == '1'")
    await create_pool(client, "single", "10.248.0.0/32", blockSize=32, nodeSelector="!all()")


@pytest.fixture
async def pair(pools, start_node, calico_node):
    """A node with this plugin and one with Calico's."""
    return await start_node("node-1"), await calico_node("node-2")


async def ask(node, container, ipam=None, arguments="", **config):
    """Ask this plugin as Calico's main plugin does."""
    return await node.add(
        container,
        type="calico",
        version="1.0.0",
        ipam={"type": "calico-ipam", **(ipam or {})},
        arguments=f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={container};{arguments}".rstrip(";"),
        annotations={"cni.projectcalico.org/ipv4pools": '["unknown"]'},
        **config,
    )


def prefixes(reply):
    """The prefix lengths of the answered addresses, after a look at what else Calico's main plugin goes by."""
    assert reply.status == 0, reply.body
    assert reply.body["cniVersion"] == "1.0.0" and all(entry.keys() == {"address"} for entry in reply.body["ips"])
    return [ipaddress.ip_interface(entry["address"]).network.prefixlen for entry in reply.body["ips"]]


@pytest.mark.parametrize(
    "ipam",
    (
        {},
        {"assign_ipv6": "true"},
        {"assign_ipv4": "false", "assign_ipv6": "true"},
        {"ipv4_pools": ["main"]},
        {"ipv4_pools": ["10.244.0.0/24"]},
        {"ipv4_pools": ["elsewhere"]},
    ),
    ids=str,
)
async def test_the_answer_is_that_of_calicos_plugin(pair, ipam):
    ours, theirs = await ask(pair[0], "ours", ipam), await pair[1].add("theirs", ipam=ipam)
    assert prefixes(ours) == prefixes(theirs)
    # Calico 3.32 and newer; without them its main plugin makes no route to the pod.
    assert ours.body["routes"] == [{"dst": entry["address"]} for entry in ours.body["ips"]]


async def test_an_address_that_is_asked_for_is_answered_as_by_calicos_plugin(pair):
    ours, theirs = (
        await ask(pair[0], "ours", {}, "IP=10.244.0.5"),
        await pair[1].add("theirs", arguments="IP=10.244.0.37"),
    )
    assert ours.body["ips"] == [{"address": "10.244.0.5/32"}]
    assert prefixes(ours) == prefixes(theirs)


@pytest.mark.parametrize(
    ("ipam", "arguments"),
    (
        ({"ipv4_pools": ["unknown"]}, ""),
        ({"ipv4_pools": ["10.244.0.0/33"]}, ""),
        ({"ipv4_pools": ["six"]}, ""),
        ({"ipv4_pools": ["fd00:10:244::/64"]}, ""),
        ({"ipv4_pools": ["closed"]}, ""),
        ({"ipv4_pools": ["10.9.0.0/16"]}, ""),
        ({"ipv4_pools": ["10.244.0.0/25"]}, ""),
        ({"ipv4_pools": ["tunnels"]}, ""),
        ({}, "IP=10.9.9.9"),
        ({}, "IP=10.245.0.1"),
        ({}, "IP=10.244.0.200"),
    ),
    ids=str,
)
async def test_a_refusal_has_the_words_of_calicos_plugin(pair, ipam, arguments):
    await pair[1].add("holder", arguments="IP=10.244.0.200")
    ours, theirs = await ask(pair[0], "ours", ipam, arguments), await pair[1].add("theirs", (), ipam, arguments)
    assert (ours.status, theirs.status) == (1, 1)
    assert (ours.body["msg"], ours.body["code"]) == (theirs.body["msg"], theirs.body["code"])


async def test_that_there_is_no_pool_can_be_told_from_other_refusals_all_the_same(pair):
    assert (await ask(pair[0], "closed", {"ipv4_pools": ["closed"]})).body["reason"] == "NoPool"
    assert "reason" not in (await ask(pair[0], "strange", {}, "IP=10.9.9.9")).body


@pytest.mark.parametrize("strict", (True, False))
async def test_a_full_pool_is_refused_in_the_words_of_calicos_plugin(pair, client, strict):
    spec = {"strictAffinity": strict, "autoAllocateBlocks": True}
    await client.create(V1.path("IPAMConfig"), V1.new("IPAMConfig", "default", spec))
    await asyncio.sleep(0.3)
    single = {"ipv4_pools": ["single"]}
    assert (await ask(pair[0], "first", single)).address == "10.248.0.0", "an ordinary address to Calico"
    ours, theirs = await ask(pair[0], "ours", single), await pair[1].add("theirs", ipam=single)
    assert ours.body["msg"] == theirs.body["msg"]


async def test_each_address_of_a_pod_is_asked_for_in_a_call_of_its_own(pair, client):
    node, _calico = pair
    four = await ask(node, "pod", {}, "IP=10.244.0.5")
    six = await ask(node, "pod", {}, "IP=fd00:10:244::5")
    assert [four.body["ips"], six.body["ips"]] == [[{"address": "10.244.0.5/32"}], [{"address": "fd00:10:244::5/128"}]]
    await settled(client, ["10.244.0.5", "fd00:10:244::5"])
    await node.delete("pod")
    await settled(client, [])


async def test_a_further_address_that_cannot_be_had_leaves_the_first_one(pair, client):
    node, _calico = pair
    await ask(node, "pod", {}, "IP=10.244.0.5")
    await ask(node, "other", {}, "IP=fd00:10:244::5")
    assert (await ask(node, "pod", {}, "IP=fd00:10:244::5")).status == 1
    assert (await ask(node, "pod", {}, "IP=10.244.0.6")).status == 1, "it has an IPv4 address"
    assert (await allocated(client)) == {"10.244.0.5": "podnet.pod", "fd00:10:244::5": "podnet.other"}
    await node.delete("pod")
    await settled(client, ["fd00:10:244::5"])


async def test_both_wait_for_whoever_holds_calicos_lock_on_the_machine(pair, client):
    ours, theirs = pair
    with theirs.lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = [
            asyncio.create_task(ask(ours, "ours", ipam_lock_file=str(theirs.lock))),
            asyncio.create_task(ask(ours, "more", ipam_lock_file=str(theirs.lock))),
            asyncio.create_task(theirs.add("theirs")),
        ]
        await asyncio.wait(waiting, timeout=1)
        assert await allocated(client) == {}
    assert [reply.status for reply in await asyncio.gather(*waiting)] == [0, 0, 0]
    with theirs.lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_installers_upgrade_finds_nothing_to_do(tmp_path):
    program = tmp_path / "calico-ipam"
    program.symlink_to(SHIM)
    done = subprocess.run([program, "-upgrade"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert done.returncode == 0
