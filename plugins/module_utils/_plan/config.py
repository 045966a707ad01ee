# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The settings of address management for the whole cluster, one object named `default`.

Source of fields, defaults, limits and the rules between them: IPAMConfig (v1) and IPAMConfiguration (v3) of Calico 3.29
to 3.32. The API server knows none of these rules; Calico's own tools check them when they write the object, and so does
this. A *view* is a dict with one key per option of `ipam_config`.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import holders, ownership
from .operation import Operation, Plan, Problem

KIND, NAME = "IPAMConfig", "default"
_SUBJECT = f"{KIND} {NAME}"
_DEFAULT_BLOCKS = 20  # what 0, or no object at all, means
# (option, field of the spec, default)
_FIELDS = (
    ("strict_affinity", "strictAffinity", False),
    ("auto_allocate_blocks", "autoAllocateBlocks", True),
    ("max_blocks_per_host", "maxBlocksPerHost", 0),
)
MOST_BLOCKS = {"crd.projectcalico.org/v1": 2147483647, "projectcalico.org/v3": 1000000}


@dataclass(frozen=True)
class Observed:
    """`api_group` is None where the kind is not served; `config` the object, None when it does not exist.

    `windows_nodes`: names of the nodes that run Windows, needed only where `turns_strictness_off` says so.
    """

    api_group: str | None
    config: dict | None = None
    windows_nodes: tuple = ()


def given(options):
    """The options that were not left out."""
    return {option: options[option] for option, _field, _default in _FIELDS if options[option] is not None}


def turns_strictness_off(wanted, config):
    """Whether something is to be written that leaves strict affinity off; `wanted` is None for a removal."""
    if wanted is None:
        return view(config)["strict_affinity"]
    after = {**view(config), **wanted}
    return not after["strict_affinity"] and (config is None or after != view(config))


_NOT_SERVED = Problem(
    "the cluster",
    "ipam_config",
    None,
    "it serves neither IPAMConfig in crd.projectcalico.org/v1 nor IPAMConfiguration in projectcalico.org/v3: install"
    " Calico first, or the node plugin of this collection with role podnet.ipam.cni_ipam",
)


def plan(wanted, observed):
    """The Plan for `wanted`, the options that were given. What was not given is left alone. None is for no object."""
    if wanted is None:
        return _removal(observed)
    if observed.api_group is None:
        return Plan(problems=[_NOT_SERVED])
    before = view(observed.config)
    after = {**before, **wanted}
    outcome = Plan(before={NAME: before if observed.config else None}, after={NAME: after})
    outcome.problems += _problems(wanted, after, observed)
    if outcome.problems or (observed.config and before == after):
        return outcome
    outcome.operations.append(_operation(before, after, observed.config))
    outcome.warnings += _windows_warnings(after, observed)
    return outcome


def _removal(observed):
    """Without the object, Calico's defaults count."""
    if observed.config is None or ownership.is_leaving(observed.config):
        return Plan()
    outcome = Plan(before={NAME: view(observed.config)}, after={NAME: None})
    outcome.operations.append(Operation("delete", KIND, NAME, observed=observed.config))
    outcome.warnings += _windows_warnings(view(None), observed)
    return outcome


def _windows_warnings(after, observed):
    if observed.windows_nodes and not after["strict_affinity"]:
        yield (
            f"{_SUBJECT}: strict_affinity is off, but Calico gives nodes with Windows no addresses then:"
            f" {holders.some(observed.windows_nodes)}"
        )


def view(config):
    """The view of the object, Calico's defaults where there is none."""
    spec = (config or {}).get("spec") or {}
    return {option: default if spec.get(field) is None else spec[field] for option, field, default in _FIELDS}


def _problems(wanted, after, observed):
    """Calico's rules, on the object as it would be."""
    if observed.config and ownership.is_leaving(observed.config):
        yield Problem(_SUBJECT, "state", "present", "it is being deleted in the cluster; run again when it is gone")
    most, blocks = MOST_BLOCKS[observed.api_group], after["max_blocks_per_host"]
    if not 0 <= blocks <= most:
        message = f"{blocks} is outside of 0..{most}, the limits of {observed.api_group}"
        yield Problem(_SUBJECT, "max_blocks_per_host", blocks, message)
    if after["strict_affinity"]:
        return
    strict = f"strict_affinity is false ({_origin('strict_affinity', wanted, observed)})"
    if not after["auto_allocate_blocks"]:
        message = (
            f"it is false ({_origin('auto_allocate_blocks', wanted, observed)}), but {strict}: Calico cannot disable"
            " StrictAffinity and AutoAllocateBlocks at the same time; set one of them to true"
        )
        yield Problem(_SUBJECT, "auto_allocate_blocks", False, message)
    if blocks > 0:
        message = (
            f"it is {blocks} ({_origin('max_blocks_per_host', wanted, observed)}), but {strict}: Calico's"
            " MaxBlocksPerHost requires StrictAffinity to be enabled; set strict_affinity to true, or this to 0, which"
            f" means {_DEFAULT_BLOCKS}"
        )
        yield Problem(_SUBJECT, "max_blocks_per_host", blocks, message)


def _origin(option, wanted, observed):
    if option in wanted:
        return "declared"
    return "in the cluster" if observed.config else "by default"


def _operation(before, after, config):
    if config is None:
        spec = {field: after[option] for option, field, _default in _FIELDS}
        return Operation("create", KIND, NAME, body={"spec": spec})
    changes = {field: after[option] for option, field, _default in _FIELDS if before[option] != after[option]}
    return Operation("patch", KIND, NAME, body={"spec": changes}, observed=config)
