# SPDX-License-Identifier: Apache-2.0
"""The test-cluster tool's decisions. What it starts is exercised by every test that uses a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cluster import (
    archive,
    binaries,
    cleanup,
    gobuild,
    health,
    image,
    inventory,
    kind,
    lifetime,
    paths,
    progress,
    record,
    rootfs,
    versions,
)
from cluster.errors import ClusterError

IMAGE = "localhost/podnet-node:one"
HEALTHY = health.Observation(
    containers=dict.fromkeys(health.NODES, "running"),
    image=IMAGE,
    nodes=dict.fromkeys(health.NODES, False),
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PODNET_CACHE", str(tmp_path / "cache"))


# Versions


def test_versions_come_from_the_go_mod_files():
    assert versions.numbers(versions.pinned("kubernetes")) >= (1, 36, 0)
    assert versions.numbers(versions.pinned("etcd")) >= (3, 6, 0)


def test_a_version_is_read_from_a_block_and_from_a_single_require_line():
    assert versions.required_version("require (\n\ta.test/x v1.2.3 // indirect\n)\n", "a.test/x") == "v1.2.3"
    assert versions.required_version("require a.test/x v1.2.3\n", "a.test/x") == "v1.2.3"


def test_a_module_that_is_not_required_is_an_error_by_name():
    with pytest.raises(ClusterError, match=r"a\.test/y"):
        versions.required_version("require a.test/x v1.2.3\n", "a.test/y")


def test_the_stock_image_has_the_minor_release_of_the_built_one():
    stock = versions.numbers(versions.STOCK_NODE_IMAGE)
    assert stock[:2] == versions.numbers(versions.pinned("kubernetes"))[:2]


@pytest.mark.parametrize(
    ("found", "accepted"),
    [
        ("Kubernetes v1.36.0", True),
        ("Kubernetes v1.37.1", True),
        ("Kubernetes v2.0.0", True),
        ("Kubernetes v1.35.9", False),
        ("Client Version: v1.32.4-dispatcher", False),
    ],
)
def test_a_program_fits_from_the_same_minor_release_on(found, accepted):
    assert versions.same_minor_or_newer(found, "v1.36.3") is accepted


# Finding programs


def program(folder: Path, name: str, says: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_kubebuilder_assets_win_over_path(tmp_path, monkeypatch):
    chosen = program(tmp_path / "assets", "etcd", "etcd Version: 3.5.0")
    program(tmp_path / "path", "etcd", "etcd Version: 9.9.9")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:{os.environ['PATH']}")
    assert binaries.ready_made("etcd") == chosen


def test_an_old_program_on_path_is_not_used(tmp_path, monkeypatch):
    program(tmp_path / "path", "kubectl", "Client Version: v1.32.4")
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:{os.environ['PATH']}")
    assert binaries.ready_made("kubectl") is None


def test_a_recent_program_on_path_is_used(tmp_path, monkeypatch):
    recent = program(tmp_path / "path", "kubectl", "Client Version: v1.99.0")
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:{os.environ['PATH']}")
    assert binaries.ready_made("kubectl") == recent


def test_a_program_that_tells_no_version_is_not_used(tmp_path):
    assert not binaries.recent_enough("etcd", str(program(tmp_path, "etcd", "hello")))


# Hash of the inputs


def test_the_hash_changes_with_a_files_content_its_name_and_a_setting(tmp_path):
    (tmp_path / "go.mod").write_text("one")
    first = gobuild.inputs_hash(tmp_path, "go1")
    assert gobuild.inputs_hash(tmp_path, "go1") == first
    assert gobuild.inputs_hash(tmp_path, "go2") != first
    (tmp_path / "go.mod").write_text("two")
    assert gobuild.inputs_hash(tmp_path, "go1") != first
    (tmp_path / "go.mod").write_text("one")
    (tmp_path / "go.mod").rename(tmp_path / "go.sum")
    assert gobuild.inputs_hash(tmp_path, "go1") != first


def test_the_node_images_name_is_stable_and_local():
    assert image.local_name() == image.local_name()
    assert image.local_name().startswith("localhost/podnet-node:")


def test_every_package_has_a_reason():
    for listing in (paths.SOURCES / "packages.txt", rootfs.NODE / "packages.txt"):
        for line in listing.read_text().splitlines():
            name, _hash, reason = line.partition("#")
            assert not name.strip() or reason.strip(), f"{listing.name}: {line}"


def test_a_list_of_packages_is_read_without_its_comments():
    assert rootfs.packages("# head\nruc  # why\n\nb\n") == ["ruc", "b"]


# Health


def test_a_cluster_whose_nodes_are_not_ready_is_usable():
    assert health.state(HEALTHY, IMAGE) is health.State.USABLE


def test_no_containers_means_no_cluster():
    assert health.state(health.Observation(), IMAGE) is health.State.ABSENT


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"containers": {"podnet-control-plane": "running"}}, "node container podnet-worker is missing"),
        ({"containers": HEALTHY.containers | {"podnet-worker2": "exited"}}, "podnet-worker2 is exited"),
        ({"image": None}, "never finished"),
        ({"image": "localhost/podnet-node:old"}, "wanted is localhost/podnet-node:one"),
        ({"api": "connection refused"}, "connection refused"),
        ({"nodes": {"podnet-control-plane": True, "podnet-worker": True}}, "podnet-worker2 is not"),
    ],
)
def test_a_half_dead_cluster_is_recognised_with_its_reason(change, reason):
    seen = replace(HEALTHY, **change)
    assert health.state(seen, IMAGE) is health.State.HALF_DEAD
    assert any(reason in complaint for complaint in health.complaints(seen, IMAGE))


def test_any_finished_image_will_do_where_none_is_asked_for():
    assert health.state(replace(HEALTHY, image="another")) is health.State.USABLE


def test_a_creation_counts_as_finished_until_it_is_forgotten():
    assert record.finished_image() is None
    record.finish(IMAGE)
    assert record.finished_image() == IMAGE
    record.forget()
    assert record.finished_image() is None


# Configuration and inventory


def test_kube_proxy_uses_nftables_only_where_the_image_is_ours():
    assert "kubeProxyMode: nftables" in kind.config(image.NodeImage("x", local=True))
    assert "kubeProxyMode: iptables" in kind.config(image.NodeImage("x", local=False))


def test_nodes_are_reached_through_their_engine():
    assert "ansible_connection: containers.podman.podman" in inventory.inventory("podman", health.NODES)
    assert "ansible_connection: community.docker.docker" in inventory.inventory("docker", health.NODES)


def test_the_inventory_tells_workers_from_the_control_plane():
    text = inventory.inventory("podman", reversed(health.NODES))
    control_plane, workers = text.split("    workers:\n")
    assert "podnet-control-plane: {}" in control_plane and "podnet-control-plane" not in workers
    assert "podnet-worker: {}" in workers and "podnet-worker2: {}" in workers


# Archives


def test_the_same_inputs_give_the_same_archive_layer(tmp_path):
    source = tmp_path / "program"
    source.write_bytes(b"x")
    for name in ("one", "two"):
        archive.write_layer(tmp_path / name, {"/usr/bin/program": source})
        os.utime(source, (1, 1))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with tarfile.open(tmp_path / "one") as layer:
        assert layer.getmember("usr/bin/program").mode == 0o755
        assert {"usr", "usr/bin", "etc/passwd", "tmp"} <= set(layer.getnames())


# Leftovers


def cgroup(folder: Path, procs: str) -> None:
    folder.mkdir(parents=True)
    (folder / "cgroup.procs").write_text(procs)


def test_a_kubelet_cgroup_with_a_process_below_it_is_not_a_leftover(tmp_path):
    cgroup(tmp_path / "cpu" / "kubelet", "")
    cgroup(tmp_path / "memory" / "kubelet", "")
    cgroup(tmp_path / "memory" / "kubelet" / "kubepods", "42\n")
    cgroup(tmp_path / "memory" / "other", "")
    assert cleanup.leaked_cgroups(tmp_path) == [tmp_path / "cpu" / "kubelet"]


def test_a_child_ends_when_its_parent_is_killed(tmp_path):
    script = (
        "import subprocess, sys, time\n"
        f"sys.path.insert(0, {str(paths.SOURCES.parent)!r})\n"
        "from cluster.lifetime import BOUND\n"
        f"subprocess.Popen([*BOUND, 'sleep', '61.25'], cwd={str(tmp_path)!r})\n"
        "print('started', flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "started\n"
        while not lifetime.processes_with_argument("61.25"):
            time.sleep(0.01)
        parent.kill()
    while lifetime.processes_in_folder(tmp_path):
        time.sleep(0.01)


# Progress


@pytest.mark.parametrize(("seconds", "text"), [(0.42, "0.4s"), (9.4, "9s"), (75.2, "1m15s")])
def test_times_are_short_to_read(seconds, text):
    assert progress.human(seconds) == text


def test_a_step_tells_what_it_took_the_last_time():
    assert "about 1m00s" in progress.typical_time("building", 60)
    progress.remember("building", 75)
    assert "last time 1m15s" in progress.typical_time("building", 60)
