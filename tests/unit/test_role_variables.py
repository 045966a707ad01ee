# SPDX-License-Identifier: Apache-2.0
"""The roles' variables: what is said of them agrees, and texts do what numbers, booleans and lists do.

INI files and `--extra-vars key=value` give texts, which Ansible takes for these types and does not convert.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROLES = Path(__file__).resolve().parents[2] / "roles"
ROLE = ROLES / "cni_ipam"
SPECS = {
    role.name: yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    for role in sorted(ROLES.iterdir())
}
CONVERTED = {
    name: option["type"]
    for spec in SPECS.values()
    for name, option in spec.items()
    if option["type"] in ("int", "bool")
}
# In the form that the types have, and as text.
NUMBERS = {name: number for number, name in enumerate(CONVERTED, 41) if CONVERTED[name] == "int"}
BOOLEANS = [name for name in CONVERTED if CONVERTED[name] == "bool"]
LISTS = {
    "cni_ipam_families": ["IPv4", "IPv6"],
    "cni_ipam_ipv4_pools": ["one", "two"],
    "cni_ipam_ipv6_pools": ["six"],
    "cni_ipam_gateways": ["10.0.0.1", "fd00::1"],
    "cni_ipam_subnets": ["10.0.0.0/8", "fd00::/64"],
    "cni_ipam_wheel": ["/one.whl", "/two.whl"],
    "drift_ignore": ["leaked_handle"],
}
TYPED = {
    "everything": {**NUMBERS, **LISTS, **dict.fromkeys(BOOLEANS, True)},
    "nothing": {**NUMBERS, "cni_ipam_mtu": 0, **{name: [] for name in LISTS}, **dict.fromkeys(BOOLEANS, False)},
}
DRIFT = yaml.safe_load((ROLES.parent / "playbooks/drift.yml").read_text())[0]["vars"]
# What tells how things are, in place of nodes and a cluster.
CIRCUMSTANCES = {
    "ansible_managed": "managed",
    "cni_ipam_node_name": "node-1",
    "cni_ipam_test_image": "pause",
    "cni_ipam_cache_dir": "/cache",
    "cni_ipam_platforms": ["3.12-x86_64"],
    "cni_ipam_present": {"files": {"/etc/cni/net.d/05-other.conflist": {}, "/etc/cni/net.d/10-podnet.conflist": {}}},
    "drift_audit": {"findings": [{"check": "leaked"}, {"check": "leaked_handle"}]},
    "drift_role": {},
    "drift_ignored": DRIFT["drift_ignored"],
    "pod_ip_ranges_namespace_label_selectors": [],
    "pool_migration_begin": {"stuck": []},
    "pool_migration_number": 1,
}


def text(value):
    return ",".join(value) if isinstance(value, list) else str(value).lower()


def named(line):
    """The variables to convert that a line of a role names."""
    return [name for name in CONVERTED if re.search(rf"\b{name}\b", line)]


def tasks(folder):
    """All tasks of a role."""
    waiting = [task for file in sorted(folder.glob("tasks/*.yml")) for task in yaml.safe_load(file.read_text())]
    while waiting:
        task = waiting.pop()
        waiting += task.get("block", []) + task.get("rescue", []) + task.get("always", [])
        yield task


def conditions():
    """The conditions of the roles' tasks that such a variable decides."""
    for role in SPECS:
        for task in tasks(ROLES / role):
            for said in (task.get("when"), task.get("ansible.builtin.assert", {}).get("that")):
                yield from (each for each in ([said] if isinstance(said, str) else said or []) if named(each))


CONDITIONS = list(conditions())


def texts(value):
    """All texts in nested lists and dicts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from texts(each)


def expressions():
    """What the roles have Ansible work out: conditions, and what stands in braces."""
    yield from CONDITIONS
    for role in SPECS:
        values = list(texts(list(tasks(ROLES / role))))
        values += texts(yaml.safe_load((ROLES / role / "vars/main.yml").read_text()))
        for file in (ROLES / role).glob("templates/*"):
            values += file.read_text().splitlines()
        braced = (re.search(r"(?s)\{[{%].*[%}]\}", each) for each in values)
        yield from (each[0] for each in braced if each)


def template(name):
    return f"{{{{ lookup('ansible.builtin.template', '{ROLE}/templates/{name}') }}}}"


RENDERED = {
    "agent.toml": template("agent.toml.j2"),
    "unit": template("podnet-ipam.service.j2"),
    "conflist": "{{ cni_ipam_conflist_content }}",
    "record": "{{ cni_ipam_record }}",
    "sysctls": "{{ cni_ipam_sysctls }}",
    "displaced": "{{ cni_ipam_displaced }}",
    "wheelhouse": "{{ cni_ipam_wheelhouse_command }}",
    "platform": "{{ cni_ipam_node_platform }}",
    "lease": "{{ cni_ipam_lease_seconds | int }}",
    "drift": DRIFT["drift_found"],
    "pools": next(
        task["podnet.ipam.cluster_preflight"]["pools"]
        for task in tasks(ROLE)
        if "podnet.ipam.cluster_preflight" in task
    ),
}


def play(file, variables):
    """Write what the role makes of `variables` to a file, and whether each of the conditions holds."""
    decided = [
        {"ansible.builtin.set_fact": {f"condition_{number}": True}, "when": condition}
        for number, condition in enumerate(CONDITIONS)
    ]
    held = [f"{{{{ condition_{number} is defined }}}}" for number in range(len(CONDITIONS))]
    content = json.dumps({**RENDERED, "conditions": held})
    return {
        "hosts": file.name,
        "gather_facts": False,
        "vars_files": [str(ROLE / "defaults/main.yml"), str(ROLE / "vars/main.yml")],
        "vars": {"role_path": str(ROLE)},
        "tasks": [
            {"ansible.builtin.setup": {"gather_subset": ["!all", "!min", "python", "platform"]}},
            {
                "vars": {**CIRCUMSTANCES, **variables},
                "block": [
                    *decided,
                    {
                        "ansible.builtin.copy": {"content": "{{ rendered | to_json }}", "dest": str(file)},
                        "vars": {"rendered": json.loads(content)},
                    },
                ],
            },
        ],
    }


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """{case and form: what the roles make of the variables}."""
    folder = tmp_path_factory.mktemp("rendered")
    plays = [
        play(
            folder / f"{case}-{form}",
            {name: value if form == "typed" else text(value) for name, value in given.items()},
        )
        for case, given in TYPED.items()
        for form in ("typed", "text")
    ]
    host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory = {"all": {"hosts": {each["hosts"]: host for each in plays}}}
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
    (folder / "play.json").write_text(json.dumps(plays))
    command = [Path(sys.executable).with_name("ansible-playbook"), "-i", folder / "hosts.yml", folder / "play.json"]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {each["hosts"]: json.loads((folder / each["hosts"]).read_text()) for each in plays}


@pytest.mark.parametrize("what", [*RENDERED, "conditions"])
@pytest.mark.parametrize("case", TYPED)
def test_texts_do_what_numbers_booleans_and_lists_do(rendered, case, what):
    assert rendered[f"{case}-text"][what] == rendered[f"{case}-typed"][what]


def test_a_declaration_that_is_a_text_is_refused_as_it_would_be_taken_for_an_empty_one(tmp_path):
    role = {"ansible.builtin.include_role": {"name": "podnet.ipam.pod_ip_ranges"}}
    (tmp_path / "play.json").write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [role]}]))
    declaration = 'pod_ip_ranges_declaration={"pools":[]}'
    command = [Path(sys.executable).with_name("ansible-playbook"), "--extra-vars", declaration, tmp_path / "play.json"]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pod_ip_ranges_declaration is a text; a mapping is expected" in done.stdout + done.stderr


def test_a_value_of_another_type_stops_a_roll_out_before_any_node_is_looked_at(tmp_path):
    (tmp_path / "hosts").write_text("[k8s_nodes]\nnode-[1:2] ansible_connection=local\n")
    command = [Path(sys.executable).with_name("ansible-playbook"), "-i", tmp_path / "hosts", "podnet.ipam.deploy"]
    done = subprocess.run([*command, "-e", "cni_ipam_mtu=much"], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 2 and "argument 'cni_ipam_mtu' is of type" in said, said
    [task] = re.findall(r"(?m)^TASK \[.* : (.*)\]", done.stdout)
    assert task.startswith("Validating arguments against arg spec 'look'")


def test_what_a_role_reads_itself_it_converts():
    for expression in expressions():
        for name in named(expression):
            # Alone it is the option of a module, which converts it.
            converted = re.search(rf"\b{name} \| {CONVERTED[name]}\b", expression)
            assert converted or expression == f"{{{{ {name} }}}}", expression


@pytest.mark.parametrize("role", SPECS)
def test_specification_and_defaults_name_the_same_variables_with_the_same_defaults(role):
    defaults = yaml.safe_load((ROLES / role / "defaults/main.yml").read_text())
    optional = {name: option for name, option in SPECS[role].items() if not option.get("required")}
    assert sorted(optional) == sorted(defaults)
    said = {name: option["default"] for name, option in optional.items() if "default" in option}
    assert said == {name: defaults[name] for name in said}
