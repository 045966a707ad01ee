# SPDX-License-Identifier: Apache-2.0
"""Imports point downwards only: agent and modules over _kube and _plan, these over _core, which knows nobody."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UTILS = ROOT / "plugins/module_utils"
# Folder, the layers below it, and what of the world above it must not touch.
LAYERS = {
    UTILS / "_core": (set(), {"ansible", "kubernetes", "aiohttp", "netaddr", "socket", "ssl", "subprocess"}),
    UTILS / "_plan": ({"_core"}, {"ansible", "kubernetes", "aiohttp", "socket", "ssl", "subprocess"}),
    UTILS / "_kube": ({"_core"}, {"ansible", "aiohttp", "netaddr"}),
    ROOT / "agent": ({"_core", "_kube"}, {"ansible", "kubernetes", "netaddr"}),
}


def imports(file: Path):
    """(layer, None) for an import of a sibling layer, (None, package) for one of anything else."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 2:
            yield (node.module or node.names[0].name).partition(".")[0], None
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield None, node.module.partition(".")[0]
        elif isinstance(node, ast.Import):
            for name in node.names:
                yield None, name.name.partition(".")[0]


# Of the kubernetes client the connection is used, which is alike in all its releases, and which is quick to import.
OF_THE_CLIENT = {"kubernetes.client.Configuration", "kubernetes.client.rest.RESTClientObject", "kubernetes.config"}


def used_of_the_client(file: Path):
    """The dotted names that a file imports from the kubernetes client."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{each.name}" for each in node.names)
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names)


def test_neither_discovery_nor_model_classes_of_the_kubernetes_client_are_used():
    files = sorted((ROOT / "plugins").rglob("*.py"))
    used = {name for file in files for name in used_of_the_client(file) if name.partition(".")[0] == "kubernetes"}
    assert used == OF_THE_CLIENT


@pytest.mark.parametrize("folder", LAYERS, ids=lambda folder: folder.name)
def test_a_layer_imports_only_what_lies_below_it(folder):
    below, forbidden = LAYERS[folder]
    files = sorted(folder.glob("*.py"))
    assert files
    for file in files:
        for layer, package in imports(file):
            assert layer is None or layer in below, f"{file.name} imports {layer}"
            assert package not in forbidden, f"{file.name} imports {package}"


def test_only_the_codec_knows_how_json_is_read_where_msgspec_is_missing():
    users = {file.name for file in (ROOT / "agent").glob("*.py") if (None, "msgspec") in set(imports(file))}
    assert users == {"codec.py"}
