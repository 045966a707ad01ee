# SPDX-License-Identifier: Apache-2.0
"""The main job on a real cluster, from nothing to a pod in its range; ends with an error when any of it is not so."""

from __future__ import annotations

import ipaddress
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from podnet_ipam._core.assignment import Subject, choose  # noqa: E402
from podnet_ipam._core.names import POOLS_ANNOTATIONS  # noqa: E402
from podnet_ipam._core.pool import Pool  # noqa: E402
from support.kind import ROOT, Story, wait_for  # noqa: E402

SITE = HERE / "demo/site.yml"
V4 = POOLS_ANNOTATIONS[4]
# Which pools the pods of each Deployment must have their addresses from, by node where that decides.
RACKS = {"podnet-worker": "rack-1", "podnet-worker2": "rack-2"}
COLUMNS = ("POD", "NODE", "ADDRESS", "POOL", "WHY", "STATE")


def main() -> None:
    story = Story(ROOT / ".cache/demo")
    started = time.monotonic()
    heading("A cluster without pod network, and the collection installed from its tarball")
    story.begin()
    show_nodes(story, ready=False)

    heading("One playbook: the plugin on every node, the pools, and who draws from which")
    story.play(SITE)
    show_nodes(story, ready=True)

    heading("Every pod has an address of its pool")
    check_pools(story)
    check_reachability(story)
    draw_map(story)

    heading("An annotation changed on a running pod changes nothing but what the pod would get today")
    check_stale(story)

    heading("Drift: a pool edited and an annotation removed behind the playbook's back")
    check_drift(story)

    heading("A pod that asks for a pool that does not exist")
    check_unknown_pool(story)
    print(f"\nAll of it is so. ({time.monotonic() - started:.0f} s)")


def heading(text: str) -> None:
    print(f"\n=== {text}", flush=True)


def check(condition: object, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def show_nodes(story: Story, ready: bool) -> None:
    """Print the nodes once all of them are Ready, or none."""

    def as_expected() -> list[dict]:
        nodes = story.get("nodes")
        return nodes if len(nodes) == 3 and all(is_ready(node) == ready for node in nodes) else []

    wait_for("all nodes Ready" if ready else "all nodes NotReady", as_expected)
    print(story.kubectl("get", "nodes", "--label-columns", "rack"), end="")


def is_ready(node: dict) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in node["status"]["conditions"])


def running_pods(story: Story) -> list[dict]:
    """The pods of both namespaces, once every Deployment has exactly its new pods, all of them ready."""

    def settled() -> list[dict]:
        pods = [*story.get("pods", "-n", "payments"), *story.get("pods", "-n", "shop")]
        ready = [pod for pod in pods if is_ready(pod) and not pod["metadata"].get("deletionTimestamp")]
        return pods if len(pods) == len(ready) == 10 else []

    for namespace, name in (("payments", "ledger"), ("payments", "settlement"), ("shop", "web"), ("shop", "api")):
        story.kubectl("rollout", "status", f"deployment/{name}", "-n", namespace, "--timeout=120s")
    return sorted(wait_for("ten pods ready", settled), key=lambda pod: (pod["metadata"]["namespace"], name_of(pod)))


def name_of(pod: dict) -> str:
    return pod["metadata"]["name"]


def app_of(pod: dict) -> str:
    return pod["metadata"]["labels"]["app"]


def assess(story: Story, pods: list[dict]) -> list[dict]:
    """For each address of each pod its pool, and which pools the pod's assignment stands for now and why."""
    pools = [Pool.from_object(obj) for obj in story.get("ippools.crd.projectcalico.org")]
    namespaces = {obj["metadata"]["name"]: obj["metadata"] for obj in story.get("namespaces")}
    nodes = {obj["metadata"]["name"]: obj["metadata"]["labels"] for obj in story.get("nodes")}
    rows = []
    for pod in pods:
        namespace = namespaces[pod["metadata"]["namespace"]]
        subject = Subject(
            namespace=namespace["name"],
            name=name_of(pod),
            node=pod["spec"]["nodeName"],
            pod_annotations=pod["metadata"].get("annotations") or {},
            namespace_annotations=namespace.get("annotations") or {},
            namespace_labels=namespace["labels"],
            node_labels=nodes[pod["spec"]["nodeName"]],
        )
        for entry in pod["status"]["podIPs"]:
            address = ipaddress.ip_address(entry["ip"])
            choice = choose(address.version, subject, pools)
            pool = next((pool.name for pool in pools if pool.contains(str(address))), "none")
            current = pool in {each.name for each in choice.pools}
            values = (
                f"{namespace['name']}/{name_of(pod)}",
                subject.node,
                str(address),
                pool,
                choice.source.replace(f" of {subject}", " of the pod").replace("cni.projectcalico.org/", ""),
                "" if current else f"stale: would be {choice.pools[0].name}",
            )
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def show(rows: list[dict]) -> None:
    widths = {column: max(len(column), *(len(row[column]) for row in rows)) for column in COLUMNS}
    for row in ({column: column for column in COLUMNS}, *rows):
        print("  ".join(f"{row[column]:<{widths[column]}}" for column in COLUMNS).rstrip())


def check_pools(story: Story) -> None:
    pods = running_pods(story)
    rows = assess(story, pods)
    show(rows)
    check(len({row["ADDRESS"] for row in rows}) == len(rows) == 12, "12 addresses, no one twice")
    check(not any(row["STATE"] for row in rows), "no pod is stale")
    for row in rows:
        app = row["POD"].partition("/")[2].split("-")[0]
        expected = {"ledger": "payments", "settlement": "legacy-firewall"}.get(app, RACKS[row["NODE"]])
        expected = "dual-v6" if ":" in row["ADDRESS"] else expected
        check(row["POOL"] == expected, f"{row['POD']} has {row['ADDRESS']} of {row['POOL']}, not of {expected}")
    families = [sorted(":" in entry["ip"] for entry in pod["status"]["podIPs"]) for pod in pods if app_of(pod) == "api"]
    check(families == [[False, True]] * 2, "pods of api have one address of each family")
    check({row["NODE"] for row in rows if "web" in row["POD"]} == RACKS.keys(), "pods of web run on both nodes")


def check_reachability(story: Story) -> None:
    """Each pod of the dual-stack Deployment reaches the other, on the other node, in both families."""
    first, second = (pod for pod in running_pods(story) if app_of(pod) == "api")
    check(first["spec"]["nodeName"] != second["spec"]["nodeName"], "the pods of api run on different nodes")
    for source, target in ((first, second), (second, first)):
        for entry in target["status"]["podIPs"]:
            host = f"[{entry['ip']}]" if ":" in entry["ip"] else entry["ip"]
            command = ("exec", name_of(source), "-n", "shop", "--", "workload", "get", f"http://{host}:8080")
            answer = story.kubectl(*command).strip()
            check(answer.startswith(name_of(target)), f"{host} answered {answer!r}")
            print(f"{name_of(source)} on {source['spec']['nodeName']} asked {host}: {answer}")


def draw_map(story: Story) -> None:
    picture = story.folder / "addresses.svg"
    story.play_quietly(HERE / "demo/map.yml", "--extra-vars", f"picture={picture}")
    drawn = picture.read_text()
    for node in RACKS:
        check(f": {node}, " in drawn, f"the picture shows blocks of {node}")
    print(f"A picture of it: {picture.relative_to(ROOT)}")


def check_stale(story: Story) -> None:
    pod = next(pod for pod in running_pods(story) if app_of(pod) == "web")
    story.kubectl("annotate", "pod", name_of(pod), "-n", "shop", f'{V4}=["payments"]')
    [changed] = (each for each in running_pods(story) if name_of(each) == name_of(pod))
    rows = assess(story, [changed])
    show(rows)
    check(changed["status"]["podIPs"] == pod["status"]["podIPs"], "the address stays")
    check(rows[0]["STATE"] == "stale: would be payments", "the table says that the pod is stale")
    story.kubectl("annotate", "pod", name_of(pod), "-n", "shop", f"{V4}-")


def check_drift(story: Story) -> None:
    story.kubectl(
        "patch", "ippool.crd.projectcalico.org", "rack-1", "--type=merge", '-p={"spec":{"nodeSelector":"all()"}}'
    )
    story.kubectl("annotate", "namespace", "payments", f"{V4}-")
    expected = [
        {"verb": "patch", "kind": "IPPool", "name": "rack-1"},
        {"verb": "patch", "kind": "Namespace", "name": "payments"},
    ]

    foreseen = story.play_quietly(SITE, "--check", "--diff")
    print("Check mode foresees:")
    show_changes(foreseen)
    check(operations(foreseen) == expected, f"check mode shows exactly the drift, not {operations(foreseen)}")

    corrected = story.play_quietly(SITE, "--diff")
    print("The next run corrects:")
    show_changes(corrected)
    check(operations(corrected) == expected, f"the run corrects exactly the drift, not {operations(corrected)}")
    diffs = [[result["diff"] for _host, _task, result in run["tasks"]] for run in (foreseen, corrected)]
    check(diffs[0] == diffs[1], "check mode foresaw the very diff")

    after = story.play_quietly(SITE)
    changes = {host: stats["changed"] for host, stats in after["stats"].items()}
    print(f"The run after it changes: {changes}")
    check(not any(changes.values()), f"changed=0 everywhere, not {changes}: {after['tasks']}")


def operations(run: dict) -> list[dict]:
    """The writes of a run, of those tasks that say which; any other change is listed by its task."""
    return [
        operation for host, task, result in run["tasks"] for operation in result.get("operations") or [{host: task}]
    ]


def show_changes(run: dict) -> None:
    for _host, task, result in run["tasks"]:
        diff = result["diff"]
        print(f"  {task}:")
        for name in diff["after"]:
            for field, after in diff["after"][name].items():
                before = diff["before"][name][field]
                if before != after:
                    print(f"    {name}: {field}: {before!r} -> {after!r}")


def check_unknown_pool(story: Story) -> None:
    manifest = (HERE / "demo/typo.yml").read_text()
    (story.folder / "typo.yml").write_text(manifest)
    story.kubectl("apply", "-f", str(story.folder / "typo.yml"))

    def events() -> list[str]:
        found = story.get("events", "-n", "shop", "--field-selector", "involvedObject.name=typo")
        return [event["message"] for event in found if "does not exist" in event["message"]]

    message = wait_for("an event that names the pool", events)[0]
    print(f"The pod's event:\n  {message}")
    wanted = (
        f"pod shop/typo: annotation {V4} of pod shop/typo names pool 'legacy-firewal', which does not exist; "
        "pools of this family: legacy-firewall, payments, rack-1, rack-2"
    )
    check(wanted in message, f"the event says: {wanted}")
    [pod] = story.get("pods", "-n", "shop", "--field-selector", "metadata.name=typo")
    lines = [line for line in story.node_log(pod["spec"]["nodeName"]).splitlines() if wanted in line]
    check(lines, f"the agent's log says: {wanted}")
    print(f"The agent's log on {pod['spec']['nodeName']}:\n  {lines[0]}")
    story.kubectl("delete", "pod", "typo", "-n", "shop", "--wait=false")


if __name__ == "__main__":
    try:
        main()
    except (AssertionError, subprocess.CalledProcessError) as error:
        said = f"\n{error.stderr}" if isinstance(error, subprocess.CalledProcessError) and error.stderr else ""
        raise SystemExit(f"\nNot so: {error}{said}") from None
