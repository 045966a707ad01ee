# SPDX-License-Identifier: Apache-2.0
"""A machine without a cluster: pools from a file, the real agent and executable, and no API server."""

from __future__ import annotations

import asyncio
import signal
import subprocess

import pytest
from support.machine import Machine
from support.plane import AGENT, allocated, settled, stored

POOLS = """
[[pools]]
name = "main"
cidr = "10.88.0.0/16"

[[pools]]
name = "six"
cidr = "fd00:10:88::/64"

[[pools]]
name = "closed"
cidr = "10.89.0.0/24"
assignment_mode = "Manual"
"""
TINY = '[[pools]]\nname = "tiny"\ncidr = "10.88.0.0/30"\nblock_size = 30\n'
BOTH = {"assign_ipv4": "true", "assign_ipv6": "true"}
VALID = "cni.dev/valid-attachments"


@pytest.fixture
async def machine(start_machine):
    return await start_machine(POOLS)


def addresses(reply):
    return [ip["address"] for ip in reply.body["ips"]]


async def test_a_container_gets_an_address_of_the_declared_pool_and_gives_it_back(machine):
    reply = await machine.add("c1")
    assert reply.status == 0, reply.body
    assert addresses(reply) == [f"{reply.address}/16"]
    assert reply.body["ips"][0]["gateway"] == "10.88.0.0"
    assert await allocated(machine) == {reply.address: "podnet.c1"}
    assert (await machine.call("CHECK", "c1", prevResult=reply.body)).status == 0
    assert (await machine.delete("c1")).status == 0
    await settled(machine, [])
    assert (await machine.call("CHECK", "c1", prevResult=reply.body)).body["code"] == 101


async def test_a_container_gets_an_address_of_each_family(machine):
    reply = await machine.add("c1", ipam=BOTH)
    v4, v6 = addresses(reply)
    assert v4.startswith("10.88.") and v6.startswith("fd00:10:88:")
    assert (await machine.delete("c1")).status == 0
    await settled(machine, [])


async def test_a_pool_that_serves_only_by_name_can_be_asked_for_in_the_configuration_and_by_annotation(machine):
    configured = await machine.add("c1", ipam={"ipv4_pools": ["closed"]})
    annotated = await machine.add("c2", annotations={"cni.projectcalico.org/ipv4pools": '["closed"]'})
    assert all(reply.address.startswith("10.89.0.") for reply in (configured, annotated))


async def test_a_runtime_may_ask_for_one_address(machine):
    reply = await machine.call("ADD", "c1", arguments="IgnoreUnknown=1;IP=10.88.7.7")
    assert reply.address == "10.88.7.7"
    taken = await machine.call("ADD", "c2", arguments="IgnoreUnknown=1;IP=10.88.7.7")
    assert taken.body["code"] == 102


async def test_a_runtime_that_names_a_pod_without_annotations_is_served(machine):
    arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=web;K8S_POD_NAME=web"
    reply = await machine.call("ADD", "c1", arguments=arguments, runtimeConfig={})
    assert reply.status == 0, reply.body


async def test_reserved_addresses_are_not_given_out(start_machine):
    reserved = '[[reservations]]\nname = "low"\nreserved_cidrs = ["10.88.0.2/32"]\n'
    machine = await start_machine(TINY + reserved)
    assert (await machine.add("c1")).address == "10.88.0.1"
    assert (await machine.add("c2")).body["code"] == 100


async def test_a_full_pool_is_named(start_machine):
    machine = await start_machine(TINY)
    for number in range(2):
        assert (await machine.add(f"c{number}")).status == 0
    reply = await machine.add("one-too-many")
    assert reply.body["code"] == 100
    assert "no free address in pools tiny (10.88.0.0/30)" in reply.body["msg"]


async def test_a_machine_may_use_all_blocks_of_its_pool(start_machine):
    machine = await start_machine('[[pools]]\nname = "main"\ncidr = "10.88.0.0/24"\nblock_size = 29\n')
    replies = await asyncio.gather(*(machine.add(f"c{number}") for number in range(254)))
    assert len({reply.address for reply in replies}) == 254


@pytest.mark.parametrize("how", (signal.SIGTERM, signal.SIGKILL))
async def test_addresses_are_held_over_a_restart(machine, how):
    before = await machine.add("c1", ipam=BOTH)
    machine.stop(how)
    await machine.start()
    assert (await machine.add("c1", ipam=BOTH)).body == before.body
    assert (await machine.delete("c1")).status == 0
    await settled(machine, [])


async def test_no_address_is_lost_or_given_twice_when_the_agent_dies_among_parallel_requests(machine):
    held = {"first": await machine.add("first")}
    requests = {f"c{number}": asyncio.ensure_future(machine.add(f"c{number}", ipam=BOTH)) for number in range(32)}
    await asyncio.wait(requests.values(), return_when=asyncio.FIRST_COMPLETED)
    machine.stop(signal.SIGKILL)
    replies = {name: await request for name, request in requests.items()}
    held |= {name: reply for name, reply in replies.items() if reply.status == 0}
    await machine.start()
    for name, reply in replies.items():
        again = await machine.add(name, ipam=BOTH)
        assert again.status == 0
        assert reply.status or again.body == reply.body
        held[name] = again
    given = [address.partition("/")[0] for reply in held.values() for address in addresses(reply)]
    assert len(given) == len(set(given)) == 65
    await settled(machine, given)


async def test_a_delete_without_an_agent_is_carried_out_when_there_is_one_again(start_machine, executable):
    machine = await start_machine(POOLS, shim=executable)
    await machine.add("c1")
    machine.stop()
    assert (await machine.delete("c1")).status == 0
    await machine.start()
    await settled(machine, [])


async def test_a_freed_address_rests(start_machine):
    machine = await start_machine(TINY, cooldown=60)
    for number in range(2):
        await machine.add(f"c{number}")
    await machine.delete("c1")
    assert "was freed a moment ago" in (await machine.add("next")).body["msg"]


async def test_gc_frees_what_is_not_in_its_list(start_machine):
    machine = await start_machine(POOLS, grace=0)
    kept, _gone = await machine.add("kept"), await machine.add("gone")
    valid = [{"containerID": "kept", "ifname": "eth0"}]
    assert (await machine.call("GC", "", **{VALID: valid})).status == 0
    await settled(machine, [kept.address])


async def test_status_succeeds_while_a_pool_is_enabled(machine):
    assert (await machine.call("STATUS", "")).status == 0
    await machine.declare(TINY + "disabled = true\n", "changes of what is declared")
    async with asyncio.timeout(10):
        while not (reply := await machine.call("STATUS", "")).status:
            await asyncio.sleep(0.02)
    assert reply.body["code"] == 50


async def test_a_container_whose_network_namespace_is_gone_for_long_gives_its_address_back(start_machine, tmp_path):
    machine = await start_machine(POOLS, grace=0.1)
    netns = tmp_path / "netns"
    netns.touch()
    living = await machine.add("living", netns=str(netns))
    await machine.add("vanished", netns="/run/netns/is-not-there")
    await settled(machine, [living.address])


async def test_a_container_that_is_started_again_without_a_delete_keeps_its_address(start_machine, tmp_path):
    machine = await start_machine(POOLS, grace=0.1)
    netns = tmp_path / "netns"
    netns.touch()
    before = await machine.add("c1", netns="/run/netns/before-the-reboot")
    assert (await machine.add("c1", netns=str(netns))).body == before.body
    machine.stop()
    await machine.start()
    await machine.add("vanished", netns="/run/netns/is-not-there")
    await settled(machine, [before.address])  # the collector has been at work


async def test_a_changed_pools_file_is_followed(machine):
    before = await machine.add("c1")
    await machine.declare('[[pools]]\nname = "other"\ncidr = "10.90.0.0/24"\n', "4 changes of what is declared")
    async with asyncio.timeout(10):
        while not (reply := await machine.add("c2")).address.startswith("10.90.0."):
            await machine.delete("c2")
    assert (await machine.call("CHECK", "c1", prevResult=before.body)).status == 0
    assert (await machine.delete("c1")).status == 0
    await settled(machine, [reply.address])


BAD = {
    "not TOML": ("[[pools", "not TOML"),
    "empty": ("", "it declares no pool"),
    "unknown section": (TINY + "[[nodes]]\n", "unknown key 'nodes'; known are pools, reservations"),
    "unknown field": (TINY + "blocksize = 26\n", "pool tiny: unknown field 'blocksize'"),
    "wrong type": ('[[pools]]\nname = "a"\ncidr = 10\n', "pool a: expected str, got int at $.cidr"),
    "missing field": ('[[pools]]\nname = "a"\n', "pool a: field 'cidr' is missing"),
    "no table": ('pools = ["a"]', "pool 1: expected object, got str at $"),
    "host bits": ('[[pools]]\nname = "a"\ncidr = "10.0.0.1/24"\n', "pool a: cidr: '10.0.0.1/24'"),
    "block size": (TINY.replace("= 30", "= 33"), "pool tiny: block_size: 33 is outside of 20..32"),
    "mode": (TINY + 'assignment_mode = "auto"\n', "pool tiny: assignment_mode: 'auto' is none of Automatic, Manual"),
    "name": (TINY.replace('"tiny"', '"Tiny_1"'), "pool Tiny_1: name: lower-case letters"),
    "repeated": (TINY + TINY.replace("10.88", "10.91"), "pool tiny: name: declared 2 times"),
    "overlap": (POOLS + '[[pools]]\nname = "part"\ncidr = "10.88.4.0/24"\n', "cidr: 10.88.4.0/24 overlaps pool main"),
    "reservation": (TINY + '[[reservations]]\nname = "r"\nreserved_cidrs = ["x"]\n', "reservation r: reserved_cidrs:"),
    "one table": ('pools = {name = "a"}', "pools is a dict; write each pool as a table [[pools]]"),
}


@pytest.mark.parametrize("case", BAD)
async def test_a_bad_pools_file_is_reported_and_keeps_the_old_pools(machine, case):
    pools, message = BAD[case]
    before = await stored(machine, "IPPool")
    await machine.declare(pools, "what the last good file declared stays in force")
    assert message in machine.log.read_text() and str(machine.pools_file) in machine.log.read_text()
    assert await stored(machine, "IPPool") == before
    machine.stop()
    await machine.start()
    assert (await machine.add("c1")).address.startswith("10.88.")


async def test_a_pool_cannot_get_blocks_of_a_size_that_lie_across_those_in_use(machine):
    await machine.add("c1")
    smaller = POOLS.replace('"10.88.0.0/16"', '"10.88.0.0/16"\nblock_size = 28')
    await machine.declare(smaller, "stays in force")
    assert "pool main: block_size: /28 does not go with block 10.88." in machine.log.read_text()


def test_a_bad_pools_file_keeps_an_agent_from_its_first_start(tmp_path):
    machine = Machine(tmp_path, "[[pools")
    done = subprocess.run([AGENT, "--config", machine.config], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"podnet-ipam-agent: {machine.pools_file}: not TOML" in done.stderr


async def test_a_damaged_datastore_keeps_the_agent_from_starting_and_says_what_to_do(machine):
    await machine.add("c1")
    machine.stop()
    machine.datastore.write_bytes(b"garbage" * 1000)
    done = subprocess.run([AGENT, "--config", machine.config], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"end all of them, remove {machine.datastore}* and the agent's store" in done.stderr


async def test_a_lost_store_loses_no_address(machine):
    held = await machine.add("c1")
    machine.stop()
    for file in machine.folder.glob("store.sqlite*"):
        file.unlink()
    await machine.start()
    assert (await machine.add("c2")).address != held.address
    assert (await machine.add("c1")).body == held.body


def test_either_a_cluster_or_a_pools_file_must_be_configured(tmp_path):
    machine = Machine(tmp_path, POOLS)
    machine.config.write_text(machine.config.read_text() + '\nkubeconfig = "/etc/podnet-ipam/kubeconfig"\n')
    done = subprocess.run([AGENT, "--config", machine.config], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "either kubeconfig or, where there is no cluster, pools_file must be given" in done.stderr
