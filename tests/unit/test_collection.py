# SPDX-License-Identifier: Apache-2.0
"""What the collection says of itself: who is in the action group, what is found where, and under which licence."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MODULES = {path.stem: path for path in sorted((ROOT / "plugins/modules").glob("*.py"))}
# They look at the machine that they run on, and reach no cluster.
OF_NODES = {"node_files", "node_files_info", "node_preflight", "node_probe"}
REACHING = sorted(MODULES.keys() - OF_NODES)
GROUP = "podnet.ipam.ipam"
# What runs inside of Ansible has Ansible's licence. What the modules import also runs on nodes, without Ansible.
LICENCES = {"module_utils": "Apache-2.0"}


def text_in(path, name):
    """The YAML in a plugin's variable, such as DOCUMENTATION, also inside of a class."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign) and [getattr(target, "id", None) for target in node.targets] == [name]:
            return yaml.safe_load(ast.literal_eval(node.value))
    raise AssertionError(f"{path.name} has no {name}")


@pytest.mark.parametrize("name", REACHING)
def test_a_module_is_in_the_action_group_and_its_documentation_says_so(name):
    meta = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())
    assert name in meta["action_groups"]["ipam"]
    fragments = text_in(MODULES[name], "DOCUMENTATION")["extends_documentation_fragment"]
    assert "podnet.ipam._connection" in fragments
    (used,) = [each for each in fragments if each.startswith("podnet.ipam._attributes")]
    variable = used.removeprefix("podnet.ipam._attributes").lstrip(".").upper() or "DOCUMENTATION"
    attributes = text_in(ROOT / "plugins/doc_fragments/_attributes.py", variable)["attributes"]
    assert attributes["action_group"]["membership"] == [GROUP]


def test_the_action_group_names_no_module_that_does_not_exist():
    meta = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())
    assert meta["action_groups"]["ipam"] == REACHING


@pytest.mark.parametrize("name", [name for name in REACHING if name.endswith(("_info", "_facts"))])
def test_a_module_that_only_reads_says_that_it_changes_nothing(name):
    assert (
        "podnet.ipam._attributes.info_module"
        in text_in(MODULES[name], "DOCUMENTATION")["extends_documentation_fragment"]
    )


@pytest.mark.parametrize("name", MODULES)
def test_a_module_has_an_example_with_its_full_name_and_a_sample_of_each_returned_value(name):
    tasks = text_in(MODULES[name], "EXAMPLES")
    assert any(f"podnet.ipam.{name}" in task for task in tasks)
    for key, value in text_in(MODULES[name], "RETURN").items():
        assert "sample" in value or "contains" in value, f"RETURN.{key} has no sample"


def test_the_readme_names_everything_that_a_user_can_run():
    readme = (ROOT / "README.md").read_text()
    plugins = [path.stem for kind in ("filter", "test", "lookup") for path in (ROOT / "plugins" / kind).glob("*.yml")]
    roles = [path.name for path in (ROOT / "roles").iterdir() if path.is_dir()]
    playbooks = [path.stem for path in (ROOT / "playbooks").glob("*.yml")]
    missing = [name for name in (*MODULES, *plugins, *roles, *playbooks) if name not in readme]
    assert not missing


def test_every_guide_is_in_the_index_of_the_documentation_site():
    docsite = ROOT / "docs/docsite"
    guides = {path.stem for path in (docsite / "rst").glob("*.rst")}
    index = yaml.safe_load((docsite / "extra-docs.yml").read_text())
    listed = [name for section in index["sections"] for name in section["toctree"]]
    assert sorted(listed) == sorted(guides)


# REUSE-IgnoreStart
def licence(path):
    """What the file says its licence is; REUSE.toml speaks for files that do not say."""
    for line in path.read_text(errors="replace").splitlines()[:10]:
        if "SPDX-License-Identifier:" in line:
            return line.partition("SPDX-License-Identifier:")[2].strip()
    return None


# REUSE-IgnoreEnd
@pytest.mark.parametrize("folder", sorted(path.name for path in (ROOT / "plugins").iterdir() if path.is_dir()))
def test_plugins_are_under_the_licence_of_ansible_and_what_they_import_is_not(folder):
    wanted = LICENCES.get(folder, "GPL-3.0-or-later")
    files = [path for kind in ("*.py", "*.yml") for path in (ROOT / "plugins" / folder).rglob(kind)]
    assert {str(path.relative_to(ROOT)): licence(path) for path in files if licence(path) != wanted} == {}


def test_what_the_modules_import_is_named_for_execution_environments_without_an_upper_bound():
    environment = yaml.safe_load((ROOT / "meta/execution-environment.yml").read_text())
    lines = [
        line.partition("#")[0].strip()
        for line in (ROOT / environment["dependencies"]["python"]).read_text().splitlines()
        if line.partition("#")[0].strip()
    ]
    assert [line.partition(">=")[0] for line in lines] == ["kubernetes", "netaddr"]
    assert not [line for line in lines if "<" in line or "==" in line]
    oldest = (ROOT / "requirements/core-2.18.in").read_text()
    for line in lines:
        name, _sign, version = line.partition(">=")
        assert f"{name}=={version}" in oldest, f"requirements/core-2.18.in does not test {line}"
