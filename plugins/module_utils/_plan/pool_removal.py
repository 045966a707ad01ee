# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The removal of pools as Calico's own API does it: disable, release the blocks, delete.

A pool is disabled first, so that nothing new comes from it. Then the nodes' claims on its blocks go: a block without
addresses in use is deleted, any other only loses its affinity, and stays until its last address is given back. Each is
written only if it is still as it was read, so that an address assigned meanwhile stops the removal. Then the pool goes.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from .._core.names import is_deleted
from . import holders, pool_view, ranges
from .operation import Operation, Problem


@dataclass(frozen=True)
class Removal:
    """One pool that is to go.

    `blocks` and `affinities` lie in its range. `used` are the addresses of it that are in use, as `holders.uses` has
    them, `where` the CIDRs of their blocks.
    """

    pool: dict
    blocks: tuple
    affinities: tuple
    used: tuple
    where: tuple

    @property
    def name(self):
        return self.pool["metadata"]["name"]

    def usage(self):
        """How many addresses are in use, by whom and where, as a text."""
        users = holders.some(holders.holder(use) for use in self.used)
        cidr, where = ranges.pool_network(self.pool), holders.some(self.where)
        return f"{holders.counted(self.used)} of {cidr} in use, by {users} (blocks {where})"


def survey(gone, kept, blocks, affinities):
    """The Removal of each pool of `gone`, in their order. `kept` are the pools that stay.

    A block that lies in a pool that stays, and has that pool's block size, is that pool's: of pools that overlap, one
    can be removed without taking anything from the other.
    """
    blocks = _by_pool(gone, _without_home(blocks, kept))
    affinities = _by_pool(gone, _without_home(affinities, kept))
    return [_removal(pool, blocks.get(place, []), affinities.get(place, [])) for place, pool in enumerate(gone)]


def _removal(pool, blocks, affinities):
    network, used, where = ranges.pool_network(pool), [], []
    for block in blocks:
        own = [use for use in holders.uses(block) if ipaddress.ip_address(use["address"]) in network]
        used += own
        where += [block["spec"]["cidr"]] if own else []
    return Removal(pool, _inside(blocks, network), _inside(affinities, network), tuple(used), tuple(where))


_UNTOLD = "whether addresses of it are in use, nobody can tell: the cluster does not serve IPAMBlocks"


def refusals(removals, blocks_served=True):
    """One problem for each pool with addresses in use, and for every one when nobody can tell."""
    for each in removals:
        if not blocks_served:
            message = f"{_UNTOLD}; force removes it all the same"
            yield Problem(f"pool {each.name}", "state", "absent", message)
        if each.used:
            disabled = "; it is disabled, nothing new comes from it" if each.pool["spec"].get("disabled") else ""
            message = f"it cannot be removed with {each.usage()}; force removes it all the same{disabled}"
            yield Problem(f"pool {each.name}", "state", "absent", message, {"in_use": listed([each])})


def listed(removals):
    """Every address in use of the pools, as modules return it."""
    return [{"pool": each.name, **use} for each in removals for use in each.used]


def warnings(removals, blocks_served=True):
    """What is left behind by the forced removal of pools in use."""
    if not blocks_served:
        return [f"pool {each.name} is removed; {_UNTOLD}" for each in removals]
    return [
        f"pool {each.name} is removed with {each.usage()}: they stay in use until their pods are replaced"
        for each in removals
        if each.used
    ]


def operations(removals):
    """The writes that remove the pools, in their order."""
    pools = [each.pool for each in removals]
    held, free = _blocks(removals)
    affinities = _each_once(affinity for each in removals for affinity in each.affinities)
    return [
        *(disable(pool) for pool in pools if not pool["spec"].get("disabled")),
        *(_release(affinity) for affinity in affinities if _is_claimed(affinity)),
        *(_delete("IPAMBlock", block) for block in free),
        *(_without_affinity(block) for block in held if block["spec"].get("affinity")),
        *(_delete("BlockAffinity", affinity) for affinity in affinities),
        *(_delete("IPPool", pool) for pool in pools),
    ]


def deleted_blocks(removals):
    """Names of the blocks that are deleted with the pools."""
    return {block["metadata"]["name"] for block in _blocks(removals)[1]}


def _blocks(removals):
    """(blocks with addresses in use, blocks without) of the pools, each once, by name."""
    held, free = [], []
    for block in _each_once(block for each in removals for block in each.blocks):
        (held if any(holders.uses(block)) else free).append(block)
    return held, free


def disable(pool):
    """The write after which nothing new comes from a pool."""
    body = {"spec": {"disabled": True}}
    return Operation("patch", "IPPool", pool["metadata"]["name"], body=body, observed=pool, settles=True)


def _is_claimed(affinity):
    return affinity["spec"].get("state") != "pendingDeletion" and not is_deleted(affinity)


def _release(affinity):
    body = {"spec": {"state": "pendingDeletion"}}
    return Operation("patch", "BlockAffinity", affinity["metadata"]["name"], body=body, observed=affinity)


def _without_affinity(block):
    spec = {key: value for key, value in block["spec"].items() if key not in ("affinity", "affinityClaimTime")}
    spec["sequenceNumber"] = (spec.get("sequenceNumber") or 0) + 1
    return Operation("replace", "IPAMBlock", block["metadata"]["name"], body={"spec": spec}, observed=block)


def _delete(kind, obj):
    """What is soft-deleted already is deleted too: whoever began did not finish."""
    return Operation("delete", kind, obj["metadata"]["name"], observed=obj)


def _each_once(objects):
    found = {each["metadata"]["name"]: each for each in objects}
    return [found[name] for name in sorted(found)]


def _networks(objects, network_of=ranges.network_of):
    """(position, network) of the objects that have a CIDR."""
    named = ((position, network_of(each)) for position, each in enumerate(objects))
    return [(position, network) for position, network in named if network]


def _without_home(objects, kept):
    """Those of blocks or affinities that belong to none of the pools that stay."""
    at_home = set()
    for pool, position in ranges.meetings(_networks(kept, ranges.pool_network), _networks(objects)) if objects else ():
        view, network = pool_view.stored(kept[pool]), ranges.network_of(objects[position])
        if network.prefixlen == view["block_size"] and network.subnet_of(ipaddress.ip_network(view["cidr"])):
            at_home.add(position)
    return [each for position, each in enumerate(objects) if position not in at_home]


def _by_pool(pools, objects):
    """Positions of pools, each with the objects that overlap it."""
    found = {}
    for pool, position in ranges.meetings(_networks(pools, ranges.pool_network), _networks(objects)):
        found.setdefault(pool, []).append(position)
    return {pool: [objects[position] for position in sorted(positions)] for pool, positions in found.items()}


def lies_in(obj, network):
    """Whether a block or an affinity lies in a network; not when its CIDR cannot be read."""
    own = ranges.network_of(obj)
    return own is not None and own.version == network.version and own.subnet_of(network)


def _inside(objects, network):
    return tuple(each for each in objects if lies_in(each, network))
