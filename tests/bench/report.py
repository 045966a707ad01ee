# SPDX-License-Identifier: Apache-2.0
"""Draw the figures that `tests/bench --figures FILE` wrote: docs/performance.md with its pictures.

    report.py FIGURES [DOCS]

The same figures give the same bytes.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

WIDTH, HEIGHT = 760, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 230, 36, 48
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf", "#7f7f7f", "#bcbd22")

# Of the plugin's part: what is compared, with what, and how many calls at once are many.
RATIOS_OF, MANY = ("podnet-ipam, local first", "host-local", "does nothing, musl static"), 16

Series = dict[str, Sequence[float]]

PAGE = """\
# Performance

Drawn by `make report` from [figures](performance/figures.json): {machine}. Figures are medians.
The API server and etcd run on the same cores as what is measured, so every figure that waits for them shows both.
The load average when a part started tells how much others used the machine.

{measured}

## Allocator

The allocator is a [bitmap with summary levels](../plugins/module_utils/_core/bitmap.py). A pair is to take the lowest
free index and to give it back. In C no Python object is made; *compiled* is the same code called from Python, through
the stable ABI. Free addresses are spread over the whole bitmap; with one left, each level changes twice.

![Time of a pair by size](performance/allocator-size.svg)

![Time of a pair by filling, compiled, called from Python](performance/allocator-filling.svg)

{pairs}

Each level is a word that has to be read before it is known which word of the next one counts. In C a nearly full bitmap
of 2^24 addresses therefore takes longer than an empty one; called from Python, the two calls cost more than that.
Interpreted, each level costs about 1 us. So it runs in modules, which only repair blocks of up to 4,096 addresses.

{memory}

A [block](../plugins/module_utils/_core/block.py) adds owners, sequence numbers and the order in which addresses were
freed:

{blocks}

## ADD and DEL

One process per call, {pause} ms apart, through the CNI executable; host-local writes files. *Written through*, an
address is stored at the API server before it is answered; *local first*, it is stored in the node's database, and at
the API server afterwards.

![Time of an ADD by addresses held](performance/add-held.svg)

![ADDs per second by how many run at once](performance/add-rate.svg)

{plugin}

{ratios}

{burst}

A CHECK takes {check:.2f} ms, the start of its process included.

## The agent

{agent}

A stretch is what the event loop does between two looks for new requests, all that is ready then; where others take the
cores, the time without them counts as well. Python here was built without profile-guided optimisation.

## Claims

A node claims a block with a fixed number of requests, whatever the size of the cluster. Nodes are simulated in one
process by the agent's own code and share one watch cache; a burst is the first claim of every node, 16 at a time.

![Time of a claim by number of nodes](performance/claims.svg)

{claims}

## Modules

Beside `kubernetes.core.k8s` on the same API server, with the same declaration, as an operator runs them. A task's time
is that of a playbook with this task, less that of one with an `ansible.builtin.ping` and the same variables.

{modules}

Requests that reach the API server: pages of pools + other reads, discovery among them + trial writes, that are dry runs
or refused + writes.

{requests}

Creating is bound by the API server and etcd: 1,000 creations cost them 1.8 s of processor time, and a bare HTTP client
that only posts these objects waits 1.1 s for them, 4 or 32 at once. Of an unchanged run's time 0.3 s are Ansible's own,
for a task with 1,000 pools as its argument: 0.06 s to resolve them, 0.05 s to pack the module, 0.19 s to hand the task
back from its worker. The module itself takes 0.28 s longer than `ping`: 0.08 s to compile its code, which Ansible sends
as source, 0.05 s for imports, 0.04 s to check the options, 0.05 s for the list and 0.03 s for the plan.

`pod_audit` takes {audit[seconds]:.1f} s and {audit[memory_mb]} MB for a cluster of 5,000 namespaces, 1,000 pools and
10,000 pods, the start of its process included; {audit[own_cpu_seconds]:.1f} s of that it computes itself.

## The role

On three fresh nodes of a kind cluster, the archives being there, the role takes {nodes[fresh]:.0f} s; a run that
changes nothing takes {nodes[unchanged]:.0f} s. The nodes share the two cores with what installs them.

A Deployment of 60 pods on one node, from its creation until all are Ready, takes {nodes[pods][podnet-ipam]:.1f} s with
podnet-ipam and {nodes[pods][host-local]:.1f} s with host-local, on the same node in turn.
"""
PARTS = ("allocator", "plugin", "agent", "claims", "modules", "audit", "nodes")


def main(figures_file: str, docs: str = str(ROOT / "docs")) -> None:
    figures = json.loads(Path(figures_file).read_text())
    pictures = Path(docs) / "performance"
    pictures.mkdir(exist_ok=True)
    for name, picture in _pictures(figures).items():
        (pictures / f"{name}.svg").write_text(picture)
    (Path(docs) / "performance.md").write_text(_page(figures))


def _pictures(figures: dict) -> dict[str, str]:
    return {
        **_allocator_pictures(figures["allocator"]),
        **_plugin_pictures(figures["plugin"]["programs"]),
        "claims": chart(
            "A single claim",
            ("nodes that have claims", "ms"),
            [f"{row['nodes']:,}" for row in figures["claims"]["rows"]],
            {"claim": [row["ms"] for row in figures["claims"]["rows"]]},
        ),
    }


def _allocator_pictures(allocator: dict) -> dict[str, str]:
    pairs = _pairs(allocator)
    bits = [row["bits"] for row in allocator["memory"]]
    fillings = sorted({key[1] for key in pairs})
    by_size = {
        f"{form}, {_filling(filling)}": [pairs[form, filling, False, size] for size in bits]
        for form in ("interpreted", "compiled", "C")
        for filling in (0, 0.9999, 1)
    }
    by_filling = {
        f"2^{size} addresses": [pairs["compiled", filling, False, size] for filling in fillings] for size in bits
    }
    title = "Allocate and release"
    return {
        "allocator-size": chart(title, ("addresses", "ns"), [f"2^{size}" for size in bits], by_size, logarithmic=True),
        "allocator-filling": chart(f"{title}, compiled", ("filling", "ns"), [*map(_filling, fillings)], by_filling),
    }


def _plugin_pictures(programs: dict[str, dict]) -> dict[str, str]:
    held = {name: dict(each["held"]) for name, each in programs.items() if "held" in each}
    rates = {name: dict(each["rates"]) for name, each in programs.items()}
    return {
        "add-held": _curves("A single ADD", ("addresses held on the node", "ms"), held),
        "add-rate": _curves("ADDs per second", ("calls at once", "ADD/s"), rates, logarithmic=True),
    }


def _curves(title: str, axes: tuple[str, str], curves: dict[str, dict[int, float]], logarithmic: bool = False) -> str:
    labels = [str(each) for each in next(iter(curves.values()))]
    return chart(title, axes, labels, {name: [*curve.values()] for name, curve in curves.items()}, logarithmic)


def _page(figures: dict) -> str:
    return PAGE.format(
        machine=figures["machine"],
        measured=_table(
            ["", *PARTS],
            [
                ["date", *(figures[part]["date"] for part in PARTS)],
                ["load", *(str(figures[part]["load"]) for part in PARTS)],
            ],
        ),
        pause=figures["plugin"]["pause"],
        ratios=_ratios(figures["plugin"]["programs"]),
        burst=_burst(figures["plugin"]["written_burst"]),
        check=figures["plugin"]["check"],
        pairs=_pairs_table(figures["allocator"]),
        memory=_memory_table(figures["allocator"]["memory"]),
        blocks=_blocks_table(figures["allocator"]["blocks"]),
        plugin=_plugin_table(figures["plugin"]["programs"]),
        agent=_agent_table(figures["agent"]),
        claims=_claims_table(figures["claims"]["rows"]),
        modules=_modules_table(figures["modules"]["seconds"]),
        requests=_requests_table(figures["modules"]["requests"]),
        audit=figures["audit"],
        nodes=figures["nodes"],
    )


def _pairs_table(allocator: dict) -> str:
    pairs = _pairs(allocator)
    bits = [row["bits"] for row in allocator["memory"]]
    kinds = dict.fromkeys(key[:3] for key in sorted(pairs, key=lambda key: (key[0], key[2], key[1])))
    rows = []
    for form, filling, reserved in kinds:
        name = f"{form}, {_filling(filling)}" + (", 1 of 16 reserved" if reserved else "")
        rows.append([name, *(f"{pairs[form, filling, reserved, size]:.0f}" for size in bits)])
    return _table(["ns of a pair", *(f"2^{size}" for size in bits)], rows)


def _memory_table(memory: list[dict]) -> str:
    return _table(
        ["memory, with all objects", *(f"2^{row['bits']}" for row in memory)],
        [
            ["bytes", *(f"{row['bytes']:,}" for row in memory)],
            ["bits per address", *(f"{row['bits_per_address']:.2f}" for row in memory)],
        ],
    )


def _blocks_table(blocks: list[dict]) -> str:
    fillings = dict.fromkeys(row["filling"] for row in blocks)
    rows: dict[str, list[str]] = {}
    for row in blocks:
        name = f"{row['form']}, {row['size']:,} addresses"
        rows.setdefault(name, [name]).append(f"{row['ns'] / 1000:.1f}")
    return _table(["block: assign and release, us", *map(_filling, fillings)], [*rows.values()])


def _plugin_table(programs: dict[str, dict]) -> str:
    parallel = [parallel for parallel, _rate in next(iter(programs.values()))["rates"]]
    rows = [
        [name, f"{each['add']:.2f}", f"{each['del']:.2f}", *(f"{rate:.0f}" for _parallel, rate in each["rates"])]
        for name, each in programs.items()
    ]
    return _table(["", "ADD, ms", "DEL, ms", *(f"ADD/s, {count} at once" for count in parallel)], rows)


def _ratios(programs: dict[str, dict]) -> str:
    rates = {name: dict(program["rates"]) for name, program in programs.items()}
    ours, peer, nothing = (rates[name] for name in RATIOS_OF)
    one, many, times = ours[1] / peer[1], ours[MANY] / peer[MANY], nothing[1] / ours[1]
    return (
        f"Right after one another, podnet-ipam answers {one:.1f} ADDs in the time of one of {RATIOS_OF[1]}, "
        f"{MANY} at once {many:.1f}.\nAn ADD then takes {times:.1f} times as long as the quickest program that does "
        "nothing. The rest is to wake the agent up, its\nturn, and to wake the caller up: all answers of a node come "
        "from one loop, so that no two contradict each other."
    )


def _burst(burst: dict) -> str:
    writes = ", ".join(f"{count} to `{kind}`" for kind, count in burst["writes"].items() if count)
    return (
        f"A burst of {burst['adds']} ADDs that are written through takes {burst['ms']:.0f} ms and makes these writes "
        f"at the API server:\n{writes}. A pod has a handle of its own; changes that wait for one block share "
        "a write."
    )


def _agent_table(agent: dict) -> str:
    churn, requests = agent["churn"], agent["requests"]
    return _table(
        ["one node with 250 pods, in a cluster of 100 pools and 5,000 namespaces", ""],
        [
            ["resident, MB", f"{agent['resident']:.0f}"],
            ["of a core when nothing happens, %", f"{agent['idle']:.2f}"],
            [f"ADD while {churn['adds']:,} pods are replaced, 8 at once, ms", f"{churn['p50']:.1f}"],
            ["the same, 99th percentile", f"{churn['p99']:.1f}"],
            ["stretches of more than 5 ms meanwhile", f"{churn['long']} of {churn['turns']:,}"],
            ["writes at the API server for an ADD", f"{requests['writes']:.2f}"],
            ["reads at the API server for an ADD", f"{requests['reads']:.2f}"],
            *([f"ready after its start with {records:,} records, ms", f"{ms:.0f}"] for records, ms in agent["start"]),
            ["of which Python's own start and imports", f"{agent['imports']:.0f}"],
        ],
    )


def _claims_table(rows: list[dict]) -> str:
    return _table(
        ["nodes", "ms of a claim", "requests", "claims per second in a burst", "requests of a claim in a burst"],
        [
            [
                f"{row['nodes']:,}",
                f"{row['ms']:.1f}",
                f"{row['requests']:.2f}",
                f"{row['rate']:.0f}",
                f"{row['requests_at_once']:.2f}",
            ]
            for row in rows
        ],
    )


def _modules_table(cases: list[dict]) -> str:
    return _table(
        ["seconds of a task", "podnet.ipam", "kubernetes.core.k8s", "times as fast"],
        [
            [case["case"], f"{case['ours']:.2f}", f"{case['peer']:.2f}", f"{case['peer'] / case['ours']:.1f}"]
            for case in cases
        ],
    )


def _requests_table(rows: list[dict]) -> str:
    cases: dict[str, list[str]] = {}
    for row in rows:
        cases.setdefault(row["case"], [row["case"]]).append(" + ".join(map(str, row["requests"])))
    return _table(["", "podnet.ipam", "kubernetes.core.k8s"], [*cases.values()])


def _pairs(allocator: dict) -> dict[tuple, float]:
    return {(row["form"], row["filling"], row["reserved"], row["bits"]): row["ns"] for row in allocator["pairs"]}


def _filling(filling: float) -> str:
    return {0: "empty", 1: "one left"}.get(filling, f"{filling * 100:.4g} %")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def chart(title: str, axes: tuple[str, str], labels: Sequence[str], series: Series, logarithmic: bool = False) -> str:
    """Lines over evenly spaced labels, as SVG. `axes`: what stands on them, with the unit."""
    values = [value for curve in series.values() for value in curve]
    place, ticks = _logarithmic(min(values), max(values)) if logarithmic else _linear(max(values))
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(index: int) -> float:
        return LEFT + (right - LEFT) * (index + 0.5) / len(labels)

    def y(value: float) -> float:
        return bottom - (bottom - TOP) * place(value)

    parts = [
        # REUSE-IgnoreStart
        "<!-- SPDX-License-Identifier: Apache-2.0 -->",
        # REUSE-IgnoreEnd
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(LEFT, 20, title, size=14),
        _text(LEFT - 8, TOP - 10, axes[1], anchor="end"),
        _text((LEFT + right) / 2, HEIGHT - 8, axes[0], anchor="middle"),
    ]
    for tick in ticks:
        parts.append(f'<path d="M{LEFT} {y(tick):.1f}H{right}" stroke="#dddddd"/>')
        parts.append(_text(LEFT - 8, y(tick) + 4, f"{tick:,g}", anchor="end"))
    parts += [_text(x(index), bottom + 18, label, anchor="middle") for index, label in enumerate(labels)]
    for number, (name, curve) in enumerate(series.items()):
        colour, row = COLOURS[number % len(COLOURS)], TOP + 10 + 18 * number
        points = " ".join(f"{x(index):.1f},{y(value):.1f}" for index, value in enumerate(curve))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<path d="M{right + 12} {row}h20" stroke="{colour}" stroke-width="2"/>')
        parts.append(_text(right + 38, row + 4, name))
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _linear(highest: float) -> tuple[Callable[[float], float], list[float]]:
    """Where a value stands on the axis from 0 to 1, and the ticks."""
    step = 10 ** math.floor(math.log10(highest))
    step = next(part * step for part in (0.2, 0.5, 1, 2) if highest / (part * step) <= 6)
    count = math.ceil(highest / step)
    return (lambda value: value / (count * step)), [step * number for number in range(count + 1)]


def _logarithmic(lowest: float, highest: float) -> tuple[Callable[[float], float], list[float]]:
    """Where a value stands on the axis from 0 to 1, and the ticks."""
    first, last = math.floor(math.log10(lowest)), math.ceil(math.log10(highest))
    ticks = [10.0**power for power in range(first, last + 1)]
    return (lambda value: (math.log10(value) - first) / (last - first)), ticks


if __name__ == "__main__":
    main(*sys.argv[1:])
