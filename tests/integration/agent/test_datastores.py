# SPDX-License-Identifier: Apache-2.0
"""What the agent asks of whatever holds its objects: the same of an API server and of a machine's own datastore."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from podnet_ipam._kube.calico import V1
from podnet_ipam._kube.errors import AlreadyExists, ApiError, Conflict, NotFound
from podnet_ipam.agent.cluster import detect_calico_api
from podnet_ipam.agent.local import LocalDatastore
from podnet_ipam.agent.watch import Reflector
from support.plane import client_of, remove_everything

HANDLES = V1.path("IPAMHandle")


def local_datastore(tmp_path):
    pools = tmp_path / "pools.toml"
    pools.write_text('[[pools]]\nname = "main"\ncidr = "10.88.0.0/16"\n')
    return LocalDatastore(tmp_path / "datastore.sqlite", pools)


@pytest.fixture(params=("api server", "local"))
async def datastore(request, plane, tmp_path):
    if request.param == "api server":
        async with client_of(plane, tmp_path) as client:
            await remove_everything(client)
            yield client
    else:
        datastore = local_datastore(tmp_path)
        yield datastore
        await datastore.close()


def handle(name, **block):
    return V1.new("IPAMHandle", name, {"handleID": name, "block": block or {"10.88.0.0/26": 1}, "deleted": False})


async def changes(events, count):
    """The next `count` events that are no bookmarks."""
    seen = []
    async with aclosing(events):
        async for event in events:
            if event["type"] != "BOOKMARK":
                seen.append(event)
            if len(seen) == count:
                return seen


async def test_what_is_created_is_found(datastore):
    created = await datastore.create(HANDLES, handle("net.a"))
    assert created["metadata"]["uid"] and created["metadata"]["resourceVersion"]
    assert await datastore.get(f"{HANDLES}/net.a") == created
    objects, _version = await datastore.list(HANDLES)
    assert [obj["metadata"]["name"] for obj in objects] == ["net.a"]


async def test_integers_keep_their_64_bits(datastore):
    block = V1.new("IPAMHandle", "net.a", {"handleID": "net.a", "block": {"10.88.0.0/26": 1787304482417330915}})
    await datastore.create(HANDLES, block)
    found = await datastore.get(f"{HANDLES}/net.a")
    assert found["spec"]["block"] == {"10.88.0.0/26": 1787304482417330915}


async def test_a_name_can_be_taken_once(datastore):
    await datastore.create(HANDLES, handle("net.a"))
    with pytest.raises(AlreadyExists):
        await datastore.create(HANDLES, handle("net.a"))


async def test_nothing_is_found_changed_or_deleted_that_does_not_exist(datastore):
    created = await datastore.create(HANDLES, handle("net.a"))
    uid = created["metadata"]["uid"]
    await datastore.delete(f"{HANDLES}/net.a", uid)
    for attempt in (
        datastore.get(f"{HANDLES}/net.a"),
        datastore.replace(f"{HANDLES}/net.a", created),
        datastore.delete(f"{HANDLES}/net.a", uid),
    ):
        with pytest.raises(NotFound):
            await attempt


async def test_of_two_changes_of_the_same_version_one_is_refused(datastore):
    created = await datastore.create(HANDLES, handle("net.a"))
    changed = await datastore.replace(f"{HANDLES}/net.a", V1.changed(created, {**created["spec"], "deleted": True}))
    assert changed["metadata"]["resourceVersion"] != created["metadata"]["resourceVersion"]
    with pytest.raises(Conflict):
        await datastore.replace(f"{HANDLES}/net.a", created)
    assert await datastore.get(f"{HANDLES}/net.a") == changed


async def test_an_object_is_not_deleted_in_place_of_an_older_one_of_its_name(datastore):
    old = await datastore.create(HANDLES, handle("net.a"))
    await datastore.delete(f"{HANDLES}/net.a", old["metadata"]["uid"])
    new = await datastore.create(HANDLES, handle("net.a"))
    with pytest.raises(Conflict):
        await datastore.delete(f"{HANDLES}/net.a", old["metadata"]["uid"])
    assert await datastore.get(f"{HANDLES}/net.a") == new


async def test_an_object_is_not_changed_in_place_of_an_older_one_of_its_name(datastore):
    old = await datastore.create(HANDLES, handle("net.a"))
    await datastore.delete(f"{HANDLES}/net.a", old["metadata"]["uid"])
    new = await datastore.create(HANDLES, handle("net.a"))
    with pytest.raises(Conflict):
        await datastore.replace(f"{HANDLES}/net.a", old)
    assert await datastore.get(f"{HANDLES}/net.a") == new


async def test_a_watch_shows_each_change_since_its_version_in_order(datastore):
    _objects, version = await datastore.list(HANDLES)
    following = asyncio.ensure_future(changes(datastore.watch(HANDLES, version), 3))
    await asyncio.sleep(0.2)
    created = await datastore.create(HANDLES, handle("net.a"))
    changed = await datastore.replace(f"{HANDLES}/net.a", V1.changed(created, {**created["spec"], "deleted": True}))
    await datastore.delete(f"{HANDLES}/net.a", created["metadata"]["uid"])
    async with asyncio.timeout(10):
        seen = await following
    assert [event["type"] for event in seen] == ["ADDED", "MODIFIED", "DELETED"]
    assert [event["object"]["spec"]["deleted"] for event in seen] == [False, True, True]
    assert seen[1]["object"] == changed


async def test_a_cache_misses_nothing_that_happens_while_it_is_filled(datastore):
    cache = Reflector(datastore, HANDLES, decode=lambda obj: obj["metadata"]["name"])
    follower = asyncio.ensure_future(cache.run())
    for number in range(30):
        await datastore.create(HANDLES, handle(f"net.{number}"))
        await asyncio.sleep(0)
    await cache.synced.wait()
    await datastore.create(HANDLES, handle("net.30"))
    async with asyncio.timeout(10):
        while len(cache.items) < 31:
            await asyncio.sleep(0.02)
    follower.cancel()
    await asyncio.wait({follower})


async def test_the_group_of_the_pools_is_found(datastore):
    assert await detect_calico_api(datastore) is V1


async def test_a_watch_from_a_version_that_is_past_is_answered_with_list_again(tmp_path):
    datastore = local_datastore(tmp_path)
    _objects, version = await datastore.list(HANDLES)
    await datastore.create(HANDLES, handle("net.a"))
    with pytest.raises(ApiError) as refused:
        await changes(datastore.watch(HANDLES, version), 1)
    assert refused.value.status == 410
    await datastore.close()


async def test_what_is_stored_outlives_the_process(tmp_path):
    first = local_datastore(tmp_path)
    created = await first.create(HANDLES, handle("net.a"))
    await first.close()
    second = local_datastore(tmp_path)
    assert await second.get(f"{HANDLES}/net.a") == created
    newer = await second.create(HANDLES, handle("net.b"))
    assert int(newer["metadata"]["resourceVersion"]) > int(created["metadata"]["resourceVersion"])
    await second.close()
