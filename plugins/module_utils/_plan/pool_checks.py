# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What forbids a declaration of pools, found before anything is written and reported all together."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter

from .._core.pool import spec_problems
from . import pool_view, ranges
from .operation import Problem

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LONGEST_NAME = 253
_SHOWN = 5  # pods or blocks that a message names before it only counts


def declaration_problems(wanted, observed, gone):
    """(problems, warnings) of the declared set as a whole, against the cluster. `gone`: pools to be removed."""
    problems, sound = [], []
    for view in wanted.pools:
        own = list(_own_problems(view))
        problems += own
        if not any(problem.option == "cidr" for problem in own):
            sound.append((view, ipaddress.ip_network(view["cidr"])))
    problems += _repeated_names(wanted.pools)
    problems += _changed_immutables(wanted.pools, observed.pools)
    problems += _overlaps(sound, observed.pools, gone)
    problems += _foreign_blocks(sound, observed, gone)
    outside, warnings = _pod_cidr_findings(sound, wanted, observed)
    return problems + outside, warnings


def removal_problems(pools, blocks):
    """A pool with addresses in use is not removed: one problem for each such pool."""
    for pool in pools:
        network = _network(pool["spec"].get("cidr"))
        used = [
            (block, list(_holders(block))) for block in blocks if _overlap(network, _network(block["spec"]["cidr"]))
        ]
        holders = sorted(holder for _block, holders in used for holder in holders)
        if holders:
            name, cidr = pool["metadata"]["name"], pool["spec"]["cidr"]
            where = _some(sorted(block["spec"]["cidr"] for block, held in used if held))
            users = f"{len(holders)} addresses of {cidr} are in use, by {_some(holders)} (blocks {where})"
            disabled = "; it is disabled, nothing new comes from it" if pool["spec"].get("disabled") else ""
            yield Problem(f"pool {name}", "state", "absent", f"it cannot be removed: {users}{disabled}")


def _own_problems(view):
    subject = f"pool {view['name']}"
    if len(view["name"]) > _LONGEST_NAME or not _NAME.fullmatch(view["name"]):
        message = f"{view['name']!r} is no object name: lower-case letters, digits, '-' and '.' are allowed"
        yield Problem(subject, "name", view["name"], message)
    if view["cidr"] is None:
        yield Problem(subject, "cidr", None, "it is missing; a range such as 10.244.0.0/16 is needed")
        return
    for field, message in spec_problems(pool_view.spec(view)):
        option = pool_view.OPTION_OF_FIELD[field]
        yield Problem(subject, option, view[option], message)


def _repeated_names(views):
    counts = Counter(view["name"] for view in views)
    for name in sorted(name for name, count in counts.items() if count > 1):
        yield Problem(
            f"pool {name}", "name", name, f"{name!r} is declared {counts[name]} times; each name may stand once"
        )


def _changed_immutables(views, pools):
    for view in views:
        existing = pools.get(view["name"])
        before = pool_view.stored(existing) if existing else view
        for option in pool_view.IMMUTABLE:
            if view[option] != before[option]:
                message = (
                    f"it is {before[option]} in the cluster and declared as {view[option]}, but cannot be changed;"
                    " declare a new pool, move the pods to it, then remove this one"
                )
                yield Problem(f"pool {view['name']}", option, view[option], message)


def _overlaps(sound, pools, gone):
    declared = {view["name"]: network for view, network in sound}
    others = {name: _network(pool["spec"].get("cidr")) for name, pool in pools.items()}
    kept = [
        (name, network) for name, network in others.items() if network and name not in declared and name not in gone
    ]
    named = [(view["name"], network) for view, network in sound] + kept
    networks = {**dict(kept), **declared}
    for outer, inner in ranges.overlaps(named):
        if inner not in declared:
            outer, inner = inner, outer
        if inner in declared and outer != inner:
            origin = "declared too" if outer in declared else "which exists in the cluster"
            message = f"{networks[inner]} overlaps pool {outer} ({networks[outer]}), {origin}"
            yield Problem(f"pool {inner}", "cidr", str(networks[inner]), message)


def _foreign_blocks(sound, observed, gone):
    """Blocks of another size in a new pool's range: Calico would not see them and give their addresses out twice."""
    leaving = [_network(observed.pools[name]["spec"].get("cidr")) for name in gone]
    blocks = [_network(block["spec"]["cidr"]) for block in observed.blocks]
    blocks = [block for block in blocks if not any(_overlap(block, network) for network in leaving)]
    for view, network in sound:
        if view["name"] in observed.pools:
            continue
        other = sorted(
            str(block) for block in blocks if _overlap(block, network) and block.prefixlen != view["block_size"]
        )
        if other:
            message = f"{view['block_size']} differs from blocks that exist in {network}: {_some(other)}"
            yield Problem(f"pool {view['name']}", "block_size", view["block_size"], message)


def _pod_cidr_findings(sound, wanted, observed):
    """(problems, warnings) about pools outside of the pod CIDR. The option wins over what the cluster says."""
    given = wanted.pod_cidrs is not None
    cidrs = list(wanted.pod_cidrs if given else observed.pod_cidrs or ())
    if not cidrs:
        return [], [] if given or not sound else [_UNKNOWN_POD_CIDRS]
    known, malformed = ranges.parse(cidrs)
    problems = [Problem("option pod_cidrs", "pod_cidrs", cidr, f"{cidr!r} is not a CIDR") for cidr in malformed]
    warnings = []
    for view, network in sound:
        if view["allowed_uses"] == ["LoadBalancer"]:
            continue
        if not ranges.has_family(known, network.version):
            warnings.append(
                f"pool {view['name']}: the pod CIDRs ({', '.join(cidrs)}) have none of IPv{network.version}"
            )
        elif not ranges.lies_in(network, known):
            message = f"{network} does not lie in the cluster's pod CIDRs ({', '.join(cidrs)})"
            problems.append(Problem(f"pool {view['name']}", "cidr", view["cidr"], message))
    return problems, warnings


_UNKNOWN_POD_CIDRS = (
    "whether the pools lie in the cluster's pod CIDRs was not checked: ConfigMap kube-system/kubeadm-config does not"
    " say what they are; give them as option pod_cidrs ([] to leave the check out)"
)


def _holders(block):
    """A text for each address of a block that is allocated: its pod, else its handle."""
    attributes = block["spec"].get("attributes") or []
    for index in block["spec"].get("allocations") or ():
        if index is not None:
            attribute = attributes[index] if index < len(attributes) else {}
            owner = attribute.get("secondary") or {}
            if owner.get("pod"):
                yield f"pod {owner.get('namespace')}/{owner['pod']}"
            else:
                yield f"handle {attribute.get('handle_id') or 'unknown'}"


def _some(texts):
    texts = list(dict.fromkeys(texts))
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more


def _overlap(one, other):
    return bool(one and other and one.version == other.version and one.overlaps(other))


def _network(cidr):
    try:
        return ipaddress.ip_network(cidr)
    except (ValueError, TypeError):
        return None
