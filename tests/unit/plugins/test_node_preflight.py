# SPDX-License-Identifier: Apache-2.0
"""What the node plugin would stumble over on a node, from real files and real answers."""

from __future__ import annotations

import json
import socket
import socketserver
import ssl
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from ansible_collections.podnet.ipam.plugins.module_utils import _preflight

WANTED = {"main_plugin": "ptp", "conflist": "10-podnet.conflist", "network": "k8s-pod-network", "replace": False}
DATE = "Tue, 24 Nov 2026 12:00:00 GMT"
THEN = 1795521600.0


def told(findings):
    return [(each["severity"], each["check"]) for each in findings]


def run(command):
    """As a module runs a command."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def conflist(ipam, network="k8s-pod-network"):
    return {"name": network, "plugins": [{"type": "main", "ipam": {"type": ipam}}, {"type": "portmap"}]}


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """The only folder of programs."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


# What `containerd config dump` of containerd 1.6 says of a file that names two other folders and imports one that names
# a registry.
DUMPED = """\
disabled_plugins = []
imports = ["/etc/containerd/config.toml", "/etc/containerd/conf.d/registry.toml"]
version = 2

[plugins]

  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "registry.k8s.io/pause:3.6"

    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/opt/cni/bin"
      conf_dir = "/etc/cni/net.d"
      conf_template = ""
      ip_pref = ""
      max_conf_num = 1
"""


def test_containerd_is_asked_as_its_version_decides_what_an_import_replaces(tmp_path, programs):
    (tmp_path / "dumped").write_text(DUMPED)
    containerd = programs / "containerd"
    containerd.write_text(f"#!/bin/sh\n[ \"$3 $4\" = 'config dump' ] && /bin/cat {tmp_path}/dumped\n")
    containerd.chmod(0o755)
    config = tmp_path / "config.toml"
    config.write_text('[plugins."io.containerd.grpc.v1.cri".cni]\nbin_dir = "/srv/bin"\nconf_dir = "/srv/net.d"\n')
    sockets = {"containerd": str(tmp_path)}
    asked = _preflight.runtime_folders(run, sockets, str(config))
    assert asked == {"containerd": ("/etc/cni/net.d", ["/opt/cni/bin"], "")}
    (tmp_path / "dumped").unlink()
    read = _preflight.runtime_folders(run, sockets, str(config))
    assert read == {"containerd": ("/srv/net.d", ["/srv/bin"], "")}


@pytest.mark.usefixtures("programs")
def test_the_runtimes_folders_are_read_from_containerds_configuration_and_what_it_imports(tmp_path):
    (tmp_path / "more.toml").write_text(
        'imports = ["config.toml", "even/*.toml"]\n[plugins."io.containerd.grpc.v1.cri".cni]\nconf_dir = "/srv/net.d"\n'
    )
    (tmp_path / "even").mkdir()
    (tmp_path / "even/more.toml").write_text('[plugins."io.containerd.grpc.v1.cri".cni]\nbin_dir = "/srv/bin"\n')
    (tmp_path / "config.toml").write_text(
        'imports = ["more*.toml"]\n[plugins."io.containerd.grpc.v1.cri".cni]\n'
        'bin_dir = "/elsewhere"\nconf_dir = "/elsewhere"\n'
    )
    sockets = {"containerd": str(tmp_path)}
    folders = _preflight.runtime_folders(run, sockets, str(tmp_path / "config.toml"))
    assert folders == {"containerd": ("/srv/net.d", ["/srv/bin"], "")}


@pytest.mark.usefixtures("programs")
def test_the_folders_of_a_containerd_with_the_third_version_of_its_file_are_found(tmp_path):
    (tmp_path / "config.toml").write_text(
        "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs = ['/one', '/two']\n"
    )
    folders = _preflight.runtime_folders(run, {"containerd": str(tmp_path)}, str(tmp_path / "config.toml"))
    assert folders == {"containerd": ("/etc/cni/net.d", ["/one", "/two"], "")}


# As packages write it: everything but what was chosen is a comment.
CRIO_CONF = """\
[crio]
# root = "/var/lib/containers/storage"
[crio.api]
# listen = "/var/run/crio/crio.sock"
[crio.runtime]
conmon_cgroup = "pod"
# The crio.network table containers settings pertaining to the management of CNI plugins.
[crio.network]
# cni_default_network = ""
network_dir = "/first/"
plugin_dirs = [
    "/srv/bin/",
    "/usr/lib/cni",
]
"""


def test_cri_o_takes_the_last_file_that_says_something(tmp_path):
    (tmp_path / "crio.conf").write_text(CRIO_CONF)
    (tmp_path / "crio.conf.d/more").mkdir(parents=True)
    (tmp_path / "crio.conf.d/10-crio.conf").write_text('[crio.network]\nnetwork_dir = "/second"\n')
    (tmp_path / "crio.conf.d/more/own.conf").write_text('[crio.network]\nnetwork_dir = "/last"\n')
    files = (str(tmp_path / "crio.conf"), str(tmp_path / "crio.conf.d/**"))
    folders = _preflight.runtime_folders(run, {"CRI-O": str(tmp_path)}, crio=files)
    assert folders == {"CRI-O": ("/last", ["/srv/bin/", "/usr/lib/cni"], "")}


def test_the_former_option_of_cri_o_adds_a_folder(tmp_path):
    (tmp_path / "crio.conf").write_text('[crio.network]\nplugin_dir = "/srv/bin"\n')
    folders = _preflight.runtime_folders(run, {"CRI-O": str(tmp_path)}, crio=(str(tmp_path / "crio.conf"),))
    assert folders == {"CRI-O": ("/etc/cni/net.d", ["/opt/cni/bin", "/srv/bin"], "")}


class Running(BaseHTTPRequestHandler):
    """CRI-O's interface for `crio status`, as far as it is asked for its configuration."""

    def do_GET(self):
        known = self.path == "/config"
        self.send_response_only(200 if known else 404)
        self.end_headers()
        self.wfile.write(CRIO_CONF.replace("# cni_default", "cni_default").encode() if known else b"")

    def log_message(self, *_arguments):
        pass


def test_cri_o_that_answers_tells_what_it_runs_with_whatever_its_files_say(tmp_path):
    (tmp_path / "crio.conf").write_text('[crio.network]\nnetwork_dir = "/changed/since"\n')
    path = str(tmp_path / "crio.sock")
    with socketserver.UnixStreamServer(path, Running) as server, serving(server):
        folders = _preflight.runtime_folders(run, {"CRI-O": path}, crio=(str(tmp_path / "crio.conf"),))
    assert folders == {"CRI-O": ("/first/", ["/srv/bin/", "/usr/lib/cni"], "")}


@pytest.mark.usefixtures("programs")
def test_a_runtime_without_a_configuration_has_its_defaults_and_one_that_does_not_listen_does_not_count(tmp_path):
    sockets = {"containerd": str(tmp_path), "CRI-O": str(tmp_path / "absent")}
    folders = _preflight.runtime_folders(run, sockets, str(tmp_path / "absent.toml"))
    assert folders == {"containerd": ("/etc/cni/net.d", ["/opt/cni/bin"], "")}
    assert list(_preflight.runtime(folders, "/etc/cni/net.d", "/opt/cni/bin", "pods")) == []


def test_a_runtime_that_looks_elsewhere_is_an_error_for_each_folder():
    folders = {"CRI-O": ("/srv/net.d", ["/srv/bin", "/srv/more"], "")}
    configurations, binaries = _preflight.runtime(folders, "/etc/cni/net.d", "/opt/cni/bin", "pods")
    assert "in /srv/net.d, not in /etc/cni/net.d" in configurations["message"]
    assert "in /srv/bin, /srv/more, not in /opt/cni/bin" in binaries["message"]
    assert told(_preflight.runtime({}, "/a", "/b", "pods")) == [("error", "runtime")]


def test_cri_o_that_takes_only_another_network_is_an_error(tmp_path):
    (tmp_path / "crio.conf").write_text('[crio.network]\ncni_default_network = "multus-cni-network"\n')
    folders = _preflight.runtime_folders(run, {"CRI-O": str(tmp_path)}, crio=(str(tmp_path / "crio.conf"),))
    [error] = _preflight.runtime(folders, "/etc/cni/net.d", "/opt/cni/bin", "pods")
    assert error["message"].startswith("CRI-O takes no network but multus-cni-network, and pods is not it: ")
    assert list(_preflight.runtime(folders, "/etc/cni/net.d", "/opt/cni/bin", "multus-cni-network")) == []


@pytest.mark.usefixtures("programs")
def test_a_configuration_that_is_no_toml_is_named(tmp_path):
    (tmp_path / "config.toml").write_text("= no")
    with pytest.raises(ValueError, match=r"config\.toml is not TOML"):
        _preflight.runtime_folders(run, {"containerd": str(tmp_path)}, str(tmp_path / "config.toml"))


def test_the_first_configuration_in_alphabetical_order_is_in_force(tmp_path):
    (tmp_path / "05-notes.txt").write_text("no configuration")
    (tmp_path / "20-b.conflist").write_text(json.dumps(conflist("host-local")))
    (tmp_path / "10-a.conf").write_text(json.dumps({"name": "a", "type": "bridge", "ipam": {"type": "whereabouts"}}))
    name, configuration = _preflight.in_force(str(tmp_path))
    assert (name, _preflight.ipam_of(configuration)) == ("10-a.conf", ("a", "whereabouts"))
    assert _preflight.in_force(str(tmp_path), leaving={name})[0] != name
    assert _preflight.in_force(str(tmp_path / "absent")) is None


@pytest.mark.parametrize("ipam", ("calico-ipam", "host-local", "whereabouts"))
def test_another_ipam_before_ours_is_an_error_unless_it_is_to_be_set_aside(ipam):
    found = ("05-other.conflist", conflist(ipam))
    [error] = _preflight.network(found, [], WANTED)
    assert error["severity"] == "error" and f"IPAM {ipam}" in error["message"]
    assert told(_preflight.network(found, [], {**WANTED, "replace": True})) == [("warning", "network")]


def test_the_pods_of_the_former_network_are_named():
    pods = [f"shop/web-{number}" for number in range(7)]
    [same] = _preflight.network(("20-other.conflist", conflist("host-local")), pods, WANTED)
    assert "7 pods run in network k8s-pod-network of host-local and keep" in same["message"]
    assert same["message"].endswith("shop/web-4 and 2 more")
    [other] = _preflight.network(("20-other.conflist", conflist("host-local", "kindnet")), pods, WANTED)
    assert "must be replaced" in other["message"]


def test_our_own_configuration_is_no_finding():
    assert list(_preflight.network(("10-podnet.conflist", conflist("podnet-ipam")), ["a/b"], WANTED)) == []
    assert list(_preflight.network(None, [], WANTED)) == []


def test_below_calico_its_configuration_must_be_in_force():
    below = {**WANTED, "main_plugin": "calico"}
    assert list(_preflight.network(("10-calico.conflist", conflist("calico-ipam")), ["a/b"], below)) == []
    assert told(_preflight.network(None, [], below)) == [("error", "network")]
    assert told(_preflight.network(("10-x.conflist", conflist("host-local")), [], below)) == [("error", "network")]


def test_present_pods_are_those_of_the_network_whatever_else_lies_in_the_folder(tmp_path):
    def record(name, network):
        arguments = [["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", name]]
        (tmp_path / f"{network}-{name}-eth0").write_text(json.dumps({"networkName": network, "cniArgs": arguments}))

    record("web-1", "pods")
    record("web-0", "pods")
    record("web-2", "other")
    (tmp_path / "broken").write_text("{")
    (tmp_path / "list").write_text("[]")
    assert _preflight.present_pods("pods", str(tmp_path)) == ["shop/web-0", "shop/web-1"]


def test_too_little_room_is_an_error_also_below_a_folder_that_does_not_exist(tmp_path):
    [error] = _preflight.disk(str(tmp_path / "not/yet"), needed=1 << 60)
    assert (error["severity"], error["check"]) == ("error", "disk")
    assert list(_preflight.disk(str(tmp_path / "not/yet"), needed=1)) == []


def test_executables_that_are_missing_are_named_together(tmp_path):
    (tmp_path / "ptp").touch(mode=0o755)
    [error] = _preflight.executables(str(tmp_path), ["ptp", "portmap", "bridge"])
    assert error["message"].startswith(f"portmap, bridge cannot be executed in {tmp_path}")


def test_systemd_is_told_by_the_folder_that_it_makes(tmp_path):
    assert told(_preflight.systemd(str(tmp_path))) == [("error", "systemd")]
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert list(_preflight.systemd(str(tmp_path))) == []


@pytest.mark.parametrize(
    ("seconds", "findings"),
    ((0, []), (4, []), (-30, ["warning"]), (30, ["warning"]), (90, ["error"]), (-90, ["error"])),
)
def test_a_clock_that_is_wrong_is_noticed_and_one_that_is_very_wrong_refused(seconds, findings):
    assert [each["severity"] for each in _preflight.clock(DATE, THEN + seconds)] == findings


def test_a_date_that_cannot_be_read_says_nothing():
    assert list(_preflight.clock(None, THEN)) == list(_preflight.clock("now", THEN)) == []


@pytest.fixture
def server(tmp_path):
    """An HTTPS server that refuses everybody, as an API server may do, and dates its answers."""

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response_only(403)
            self.send_header("Date", DATE)
            self.end_headers()

        def log_message(self, *_arguments):
            pass

    subprocess.run(
        [
            *["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=api"],
            "-keyout",
            tmp_path / "key",
            "-out",
            tmp_path / "certificate",
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        with serving(server):
            yield f"https://127.0.0.1:{server.server_port}"


@contextmanager
def serving(server):
    """Have a server answer."""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


def test_an_api_server_that_refuses_us_answers_all_the_same(server):
    assert list(_preflight.api_server(server, lambda: THEN)) == []
    assert told(_preflight.api_server(server, lambda: THEN + 3600)) == [("error", "clock")]


def test_an_api_server_that_does_not_answer_is_an_error():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{closed.getsockname()[1]}"
        [error] = _preflight.api_server(url)
    assert error["check"] == "api_server" and url in error["message"]
