# SPDX-License-Identifier: Apache-2.0
"""Whoever has one node's credentials cannot touch what is another's. Every other test here shows that they suffice."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import time

import pytest
from cluster.apiserver import ControlPlane
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from podnet_ipam._core.block import Block
from podnet_ipam._core.names import affinity_name, cidr_name
from podnet_ipam._kube.calico import V1, V3
from podnet_ipam._kube.errors import ApiError
from podnet_ipam._kube.tokens import Token, request_body, request_path
from support.cluster_objects import Objects, install
from support.plane import client_of, create_pool, stored
from support.rights import NAMESPACE, account_of, client_of_node, empty_block, install_rights

SMALL = "10.244.0.0/29"  # two blocks of four


@pytest.fixture
async def small_pool(client):
    await create_pool(client, "small", SMALL, blockSize=30)


@pytest.fixture
async def thief(plane, client, tmp_path):
    """A client with the stolen credentials of node-1."""
    async with client_of_node(plane, client, "node-1", tmp_path) as thief:
        yield thief


@pytest.fixture
async def block(small_pool, client, start_node):
    """The block of node-2, in which its pod holds an address."""
    node = await start_node("node-2")
    assert (await node.add("c1")).status == 0
    node.stop()
    [found] = (await stored(client, "IPAMBlock")).values()
    return found


@pytest.fixture
async def claim(block, client):
    [found] = (await stored(client, "BlockAffinity")).values()
    return found


async def refused(write, *words):
    """Expect that the API server forbids `write`, and says so in these words."""
    with pytest.raises(ApiError) as error:
        await write
    assert error.value.status == 403, error.value
    for word in words:
        assert word in error.value.message, error.value


def replaced(client, obj, calico=V1, **spec):
    path = calico.path(obj["kind"], obj["metadata"]["name"])
    return client.replace(path, calico.changed(obj, {**obj["spec"], **spec}))


def deleted(client, obj, calico=V1):
    return client.delete(calico.path(obj["kind"], obj["metadata"]["name"]), obj["metadata"]["uid"])


def with_address(obj, handle, node, count=1):
    """The block's spec after `count` more addresses were taken in the name of a node."""
    block = Block(copy.deepcopy(obj["spec"]))
    for number in range(count):
        assert block.assign(f"{handle}{number}", {"node": node, "pod": f"p{number}", "namespace": "default"}) >= 0
    block.sequence_number += 1
    return block.spec()


async def test_an_address_of_anothers_block_can_only_be_taken_in_ones_own_name(block, thief):
    rule = ("node node-1 may only take free addresses for itself", "host:node-2")
    await refused(replaced(thief, block, **with_address(block, "podnet.x", "node-2")), *rule)
    await refused(replaced(thief, block, **with_address(block, "podnet.x", "")), *rule)
    await replaced(thief, block, **with_address(block, "podnet.x", "node-1"))


async def test_the_addresses_of_anothers_pods_can_be_neither_freed_nor_taken(block, thief):
    rule = ("give back its own", "host:node-2")
    [attribute] = block["spec"]["attributes"]
    freed = Block(copy.deepcopy(block["spec"]))
    freed.release(attribute["handle_id"])
    await refused(replaced(thief, block, **freed.spec()), *rule)
    own = {**attribute, "secondary": {**attribute["secondary"], "node": "node-1"}}
    await refused(replaced(thief, block, attributes=[own]), *rule)
    await refused(replaced(thief, block, attributes=[{**attribute, "handle_id": "podnet.mine"}]), *rule)


async def test_a_borrowed_address_can_be_given_back_and_its_neighbour_stays(block, client, thief):
    lent = await replaced(thief, block, **with_address(block, "podnet.x", "node-1", count=2))
    given = Block(lent["spec"])
    given.release("podnet.x0")
    given.sequence_number += 1
    await replaced(thief, lent, **given.spec())
    [now] = (await stored(client, "IPAMBlock")).values()
    handles = [attribute["handle_id"] for attribute in now["spec"]["attributes"]]
    assert handles == ["podnet.c1", "podnet.x1"]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"affinity": "host:node-1"}, "may not change the CIDR nor the affinity (host:node-2)"),
        ({"cidr": "10.244.0.0/24"}, "may not change the CIDR nor the affinity (host:node-2)"),
        ({"affinityClaimTime": "2020-01-01T00:00:00Z"}, "may not change size, claim time"),
        ({"sequenceNumber": 7}, "sequence number by more than one"),
        ({"allocations": [], "unallocated": []}, "may not change size"),
        ({"unallocated": [3, 3, 3]}, "must name each free address once"),
        ({"unallocated": []}, "must name each free address once"),
        ({"deleted": True}, "may not delete the block of host:node-2 while others hold addresses"),
    ],
)
async def test_anothers_block_keeps_what_makes_it_that_nodes(block, thief, change, rule):
    await refused(replaced(thief, block, **change), rule)


async def test_anothers_block_goes_only_when_nothing_in_it_is_in_use(block, client, thief):
    await refused(deleted(thief, block), "may not delete the block of host:node-2 while others hold addresses of it")
    spec = with_address(
        {**block, "spec": {**block["spec"], **empty_block("10.244.0.0/30", "node-2", 4)}}, "x", "node-1"
    )
    empty = await replaced(client, block, **spec)
    await deleted(thief, await replaced(thief, empty, deleted=True))


async def test_a_block_is_created_for_oneself_only_and_under_its_name(thief):
    def create(name, node):
        spec = empty_block("10.244.0.0/30", node, 4)
        return thief.create(V1.path("IPAMBlock"), V1.new("IPAMBlock", name, spec))

    name = cidr_name("10.244.0.0/30")
    await refused(create(name, "node-2"), "node node-1 may create blocks of its own only", "host:node-2")
    await refused(create("10-244-9-0-30", "node-1"), "block 10.244.0.0/30 may not be named 10-244-9-0-30")
    own = await create(name, "node-1")
    await refused(replaced(thief, own, affinity="host:node-2"), "may not change the CIDR nor the affinity")
    await deleted(thief, own)


async def test_a_claim_is_made_for_oneself_only_and_under_its_name(thief):
    def create(affinity):
        return thief.create(V1.path("BlockAffinity"), affinity)

    cidr = "10.244.0.0/30"
    others, own = (V1.new_affinity(node, cidr, "pending") for node in ("node-2", "node-1"))
    await refused(create(others), "node node-1 may claim blocks for itself only, not for node-2")
    own["metadata"]["name"] = affinity_name("node-2", cidr)
    await refused(create(own), "the claim of node node-1 must be named node-1-10-244-0-0-30")
    made = await create(V1.new_affinity("node-1", cidr, "pending"))
    await refused(replaced(thief, made, node="node-2"), "may not change whose claim this is (node-1)")
    await deleted(thief, await replaced(thief, made, state="confirmed"))


async def test_anothers_claim_can_be_released_and_no_more(claim, thief):
    owner = "node node-1 may not change whose claim this is (node-2)"
    await refused(replaced(thief, claim, node="node-1"), owner)
    await refused(replaced(thief, claim, cidr="10.244.0.4/30"), owner)
    await refused(replaced(thief, claim, state="pending"), "may only make the claim of node node-2 pendingDeletion")
    unlabelled = {**claim, "metadata": {**claim["metadata"], "labels": {}}}
    await refused(replaced(thief, unlabelled), "may only make the claim of node node-2 pendingDeletion")
    await refused(deleted(thief, claim), "only when it is marked as deleted")
    await refused(replaced(thief, claim, deleted="true"), "as deleted only when it is pendingDeletion")
    pending = await replaced(thief, claim, state="pendingDeletion")
    again = await replaced(thief, pending, state="confirmed")
    pending = await replaced(thief, again, state="pendingDeletion")
    await deleted(thief, await replaced(thief, pending, deleted="true"))


async def test_nothing_else_of_the_cluster_can_be_written(small_pool, client, thief):
    pool = await client.get(V1.path("IPPool", "small"))
    signer = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest"}
    approval = "/apis/certificates.k8s.io/v1/certificatesigningrequests/any/approval"
    await refused(thief.replace(V1.path("IPPool", "small"), V1.changed(pool, {**pool["spec"], "disabled": True})))
    await refused(deleted(thief, pool))
    await refused(thief.create(V1.path("IPReservation"), V1.new("IPReservation", "r", {"reservedCIDRs": [SMALL]})))
    await refused(thief.create(V1.path("IPAMConfig"), V1.new("IPAMConfig", "default", {"strictAffinity": False})))
    await refused(thief.replace(approval, {**signer, "metadata": {"name": "any"}}))
    await refused(thief.get(f"/api/v1/namespaces/{NAMESPACE}/secrets"))


async def test_a_token_can_be_had_for_no_other_node(client, thief):
    own, other = account_of("node-1"), account_of("node-2")
    await refused(thief.create(request_path(NAMESPACE, other), request_body(600)))
    answer = await thief.create(request_path(NAMESPACE, own), request_body(600))
    assert Token.parse(answer["status"]["token"]).account == own


async def test_the_largest_block_can_be_borrowed_from(client, thief):
    """4,096 addresses, all but one in use: what the policy costs the API server has a limit."""
    spec = empty_block("10.244.0.0/20", "node-2", 4096)
    block = Block(spec)
    for number in range(4095):
        owner = {
            "node": "node-2",
            "namespace": "default",
            "pod": f"pod-{number}",
            "timestamp": "2026-01-01 00:00:00 UTC",
        }
        block.assign(f"podnet.{number:064x}", owner)
    full = await client.create(V1.path("IPAMBlock"), V1.new("IPAMBlock", "10-244-0-0-20", block.spec()))
    lent = await replaced(thief, full, **with_address(full, "podnet.x", "node-1"))
    await refused(replaced(thief, lent, **with_freed(lent, "podnet." + 64 * "0")), "give back its own")
    await replaced(thief, lent, **with_freed(lent, "podnet.x0"))


async def test_the_same_holds_for_the_other_api_group(tmp_path):
    """There, `deleted` of a claim is a boolean. What must be refused is tried by `install_rights`."""
    cidr = "10.244.0.0/30"
    with ControlPlane() as plane:
        install(Objects(plane), "v3")
        async with client_of(plane, tmp_path) as admin:
            await install_rights(plane, admin, tmp_path, V3)
            async with client_of_node(plane, admin, "node-1", tmp_path) as thief:
                claim = await admin.create(V3.path("BlockAffinity"), V3.new_affinity("node-2", cidr, "confirmed"))
                await refused(replaced(thief, claim, V3, deleted=True), "as deleted only when it is pendingDeletion")
                pending = await replaced(thief, claim, V3, state="pendingDeletion")
                await deleted(thief, await replaced(thief, pending, V3, deleted=True), V3)
                block = V3.new("IPAMBlock", cidr_name(cidr), empty_block(cidr, "node-2", 4))
                full = await admin.create(V3.path("IPAMBlock"), {**block, "spec": with_address(block, "x", "node-2")})
                await refused(replaced(thief, full, V3, deleted=True), "while others hold addresses of it")


def with_freed(obj, handle):
    block = Block(copy.deepcopy(obj["spec"]))
    assert block.release(handle)
    block.sequence_number += 1
    return block.spec()


def aged(plane, token, age, rest):
    """The token as if issued `age` seconds ago and good for `rest` more: signed by the API server's key."""
    header, payload, _signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    now = int(time.time())
    claims |= {"iat": now - age, "nbf": now - age, "exp": now + rest}
    signed = f"{header}.{_base64(json.dumps(claims).encode())}"
    key = load_pem_private_key((plane.folder / "service-accounts.key").read_bytes(), None)
    pair = decode_dss_signature(key.sign(signed.encode(), ECDSA(SHA256())))
    return f"{signed}.{_base64(b''.join(number.to_bytes(32, 'big') for number in pair))}"


def _base64(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


async def eventually(condition, seconds=10):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


@pytest.fixture
async def node_with_token(plane, small_pool, client, start_node, tmp_path):
    """A node whose agent starts with a token of that age; gives the node and the token's file."""
    node = await start_node("node-1", token_lifetime=7200)
    file = tmp_path / "node-1.token"

    async def restart(age, rest, ready=True):
        node.stop()
        file.write_text(aged(plane, file.read_text(), age, rest))
        node.launch()
        if ready:
            await node.logged("ready: node")
        return node, file

    return restart


async def test_an_agent_renews_its_token_when_four_fifths_of_its_time_are_over(node_with_token):
    _node, file = await node_with_token(age=700, rest=300)
    old = file.read_text()
    await asyncio.sleep(0.5)
    assert file.read_text() == old, "its time has not come yet"
    node, file = await node_with_token(age=900, rest=100)
    await eventually(lambda: Token.parse(file.read_text()).age < 0.1)
    token = Token.parse(file.read_text())
    assert token.expires - token.issued == 7200
    assert file.stat().st_mode & 0o777 == 0o600
    assert (await node.add("c1")).status == 0


async def test_an_agent_whose_renewal_fails_goes_on_and_says_so(client, node_with_token):
    role = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/rolebindings/{account_of('node-1')}"
    await client.delete(role, (await client.get(role))["metadata"]["uid"])
    node, file = await node_with_token(age=900, rest=100)
    await node.logged("is not renewed")
    assert Token.parse(file.read_text()).age > 0.8
    assert (await node.add("c1")).status == 0


async def test_an_agent_whose_token_has_expired_says_what_to_do(node_with_token):
    node, _file = await node_with_token(age=1200, rest=-120, ready=False)
    assert "run the role podnet.ipam.cni_ipam for this node again" in await node.logged("expired at")


async def test_the_credentials_of_a_deleted_account_are_worth_nothing(client, thief):
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account_of('node-1')}"
    await thief.list(V1.path("IPPool"))
    await client.delete(path, (await client.get(path))["metadata"]["uid"])
    async with asyncio.timeout(15):
        while True:
            try:
                await thief.list(V1.path("IPPool"))
            except ApiError as error:
                assert error.status == 401
                return
            await asyncio.sleep(0.2)
