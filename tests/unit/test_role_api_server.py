# SPDX-License-Identifier: Apache-2.0
"""Where the role finds out how nodes reach the API server, and what it says where it cannot."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROLE = Path(__file__).resolve().parents[2] / "roles/cni_ipam"
SERVER = "https://192.0.2.10:6443"
NO_SERVER = "/etc/kubernetes/kubelet.conf names no API server: set cni_ipam_api_server or cni_ipam_kubelet_kubeconfig"
USEFUL = {
    "YAML": f"# server: https://192.0.2.1\nclusters:\n- cluster:\n    server: {SERVER}\n  name: k".encode(),
    "quoted": f"clusters:\n- cluster:\n    server: '{SERVER}'\n    tls-server-name: https://192.0.2.1".encode(),
    "flow": f"clusters: [{{name: k, cluster: {{server: {SERVER}}}}}]".encode(),
    "JSON": json.dumps({"clusters": [{"cluster": {"server": SERVER}}]}).encode(),
    "two": f"clusters: [{{cluster: {{server: '{SERVER}'}}}}, {{cluster: {{server: 'https://192.0.2.1'}}}}]".encode(),
}
USELESS = {
    "empty": b"",
    "a text": b"no kubeconfig",
    "a list": b"[1, 2]",
    "no clusters": b"clusters:",
    "no YAML": b"clusters: [\n  - {",
    "a tab": b"clusters:\n\t- cluster",
    "no UTF-8": b"\xff\xfe\xff",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """{content of the kubelet's kubeconfig: URL of the API server, and findings}."""
    file = tmp_path_factory.mktemp("found") / "found.json"
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars_files": [str(ROLE / "defaults/main.yml"), str(ROLE / "vars/main.yml")],
        "tasks": [
            {
                "ansible.builtin.set_fact": {"found": "{{ found | default({}) | combine({item.name: here}) }}"},
                "vars": {
                    "here": "{{ [cni_ipam_named_api_url, cni_ipam_no_api_url] }}",
                    "cni_ipam_kubelet": {"content": "{{ item.content }}"},
                },
                "loop": [
                    {"name": name, "content": base64.b64encode(content).decode()}
                    for name, content in {**USEFUL, **USELESS}.items()
                ],
            },
            {"ansible.builtin.copy": {"content": "{{ found | to_json }}", "dest": str(file)}},
        ],
    }
    file.with_name("play.json").write_text(json.dumps([play]))
    command = [Path(sys.executable).with_name("ansible-playbook"), "--connection=local", file.with_name("play.json")]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(file.read_text())


@pytest.mark.parametrize("content", USEFUL)
def test_it_is_read_out_of_the_kubelets_kubeconfig(found, content):
    assert found[content] == [SERVER, []]


@pytest.mark.parametrize("content", USELESS)
def test_a_kubeconfig_without_it_is_a_finding_with_file_and_remedy(found, content):
    url, [finding] = found[content]
    assert (url, finding["severity"], finding["check"]) == ("", "error", "api_server")
    assert finding["message"] == NO_SERVER
