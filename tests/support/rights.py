# SPDX-License-Identifier: Apache-2.0
"""What the role gives the agents: rights, policies, and an account for each node, out of the role's own templates."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import jinja2
import yaml
from cluster.apiserver import ControlPlane
from podnet_ipam._kube.calico import V1, CalicoApi
from podnet_ipam._kube.errors import AlreadyExists, ApiError
from podnet_ipam._kube.tokens import request_body, request_path
from podnet_ipam.agent.api import Client, read_kubeconfig

ROLE = Path(__file__).resolve().parents[2] / "roles/cni_ipam"
NAMESPACE = "podnet-ipam"
READY_SECONDS = 30.0

_PLURALS = {
    "Namespace": "namespaces",
    "ServiceAccount": "serviceaccounts",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}


def rendered(template: str, **variables) -> list[dict]:
    """The objects of one of the role's templates, with the role's defaults."""
    # As Ansible does it.
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined, autoescape=False)
    environment.filters["to_json"] = json.dumps
    prefix = yaml.safe_load((ROLE / "vars/main.yml").read_text())["cni_ipam_account_prefix"]
    values = {"cni_ipam_namespace": NAMESPACE, "cni_ipam_account_prefix": prefix, **variables}
    text = environment.from_string((ROLE / "templates" / template).read_text()).render(values)
    return [obj for obj in yaml.safe_load_all(text) if obj]


def account_of(node: str) -> str:
    """The name of a node's ServiceAccount."""
    return rendered("accounts.yml.j2", cni_ipam_nodes=[node])[0]["metadata"]["name"]


async def install_rights(plane: ControlPlane, admin: Client, folder: Path, calico: CalicoApi = V1) -> None:
    """Create what all agents share, and wait until the policies are in force."""
    for template in ("namespace.yml.j2", "rights.yml.j2", "policy.yml.j2"):
        for obj in rendered(template):
            await _create(admin, obj)
    foreign = (
        calico.new_affinity("other", "10.0.0.0/26", "pending"),
        calico.new("IPAMBlock", "10-0-0-0-26", empty_block("10.0.0.0/26", "other")),
    )
    async with client_of_node(plane, admin, "probe", folder) as probe, asyncio.timeout(READY_SECONDS):
        for obj in foreign:
            while not await _is_refused(probe, f"{calico.path(obj['kind'])}?dryRun=All", obj):
                await asyncio.sleep(0.2)


def empty_block(cidr: str, node: str, size: int = 64) -> dict:
    """The spec of a block of a node in which everything is free."""
    return {
        "cidr": cidr,
        "affinity": f"host:{node}",
        "allocations": [None] * size,
        "unallocated": list(range(size)),
        "attributes": [],
        "deleted": False,
        "strictAffinity": False,
    }


async def give_account(client: Client, node: str) -> None:
    """The account of a node, with its rights."""
    for obj in rendered("accounts.yml.j2", cni_ipam_nodes=[node]):
        await _create(client, obj)


async def token_of(client: Client, node: str, lifetime: int = 3600) -> str:
    answer = await client.create(request_path(NAMESPACE, account_of(node)), request_body(lifetime))
    return answer["status"]["token"]


async def node_kubeconfig(plane: ControlPlane, client: Client, node: str, folder: Path, server: str = "") -> Path:
    """The kubeconfig of a node's agent as the role writes it, with a first token in a file beside it.

    `server` is the URL of what stands in front of the API server, if anything does.
    """
    await give_account(client, node)
    token = folder / f"{node}.token"
    token.write_text(await token_of(client, node))
    path = folder / f"{node}.kubeconfig"
    path.write_text(kubeconfig(plane, {"tokenFile": str(token)}, server))
    return path


def kubeconfig(plane: ControlPlane, user: dict, server: str = "") -> str:
    cluster = {"server": server or plane.url, "certificate-authority": str(plane.ca)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "podnet-ipam",
        "contexts": [{"name": "podnet-ipam", "context": {"cluster": "cluster", "user": "agent"}}],
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": "agent", "user": user}],
    }
    return json.dumps(config)


@asynccontextmanager
async def client_of_node(plane: ControlPlane, admin: Client, node: str, folder: Path) -> AsyncIterator[Client]:
    """A client with the credentials of a node's agent."""
    client = Client(read_kubeconfig(await node_kubeconfig(plane, admin, node, folder)))
    try:
        yield client
    finally:
        await client.close()


async def _create(client: Client, obj: dict) -> None:
    group_version, namespace = obj["apiVersion"], obj["metadata"].get("namespace")
    root = f"/apis/{group_version}" if "/" in group_version else f"/api/{group_version}"
    within = f"/namespaces/{namespace}" if namespace else ""
    with suppress(AlreadyExists):
        await client.create(f"{root}{within}/{_PLURALS[obj['kind']]}?fieldValidation=Strict", obj)


async def _is_refused(client: Client, path: str, obj: dict) -> bool:
    """Whether a policy forbids to create the object."""
    try:
        await client.create(path, obj)
    except ApiError as error:
        return "ValidatingAdmissionPolicy" in error.message
    return False
