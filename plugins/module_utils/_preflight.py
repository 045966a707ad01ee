# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What stands in the way of the node plugin on the machine that this runs on. Reads, and changes nothing.

It runs on nodes with whatever Python they have, to say so if that is too old: standard library only, from 3.9 on.
"""

from __future__ import annotations

import calendar
import email.utils
import glob
import http.client
import json
import os
import shutil
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from types import MappingProxyType

ERROR, WARNING = "error", "warning"
PYTHON = (3, 11)
# Bytes. A version takes 40 MB, its wheels while it is installed 20 MB, and two versions are kept.
NEEDED = 150 << 20
# Seconds by which this clock and the API server's may differ. Tokens of a minute ago must count as issued.
SKEW_NOTICED, SKEW_REFUSED = 5, 60
TIMEOUT = 10
OUR_IPAM = "podnet-ipam"
CALICO_IPAM = "calico-ipam"
SUFFIXES = (".conf", ".conflist", ".json")
RESULTS = "/var/lib/cni/results"
# Where each runtime is reached.
RUNTIMES = MappingProxyType(
    {
        "containerd": "/run/containerd/containerd.sock",
        "CRI-O": "/run/crio/crio.sock",
    }
)
CONTAINERD_CONFIG = "/etc/containerd/config.toml"
CRIO_CONFIG = ("/etc/crio/crio.conf", "/etc/crio/crio.conf.d/**")
_CONTAINERD_PLUGINS = ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime")  # versions 2 and 3 of the file
_SHOWN = 5


def finding(severity, check, message):
    return {"severity": severity, "check": check, "message": message}


def python():
    found = sys.version_info[:2]
    if found < PYTHON:
        version = ".".join(map(str, found))
        hint = "install a newer one and name it in ansible_python_interpreter"
        yield finding(ERROR, "python", f"{sys.executable} is Python {version}; the agent needs 3.11 or newer: {hint}")


def systemd(root="/"):
    if not os.path.isdir(os.path.join(root, "run/systemd/system")):
        yield finding(ERROR, "systemd", "systemd does not run this machine (there is no /run/systemd/system)")


def disk(folder, needed=NEEDED):
    """Whether there is room below `folder`, which need not exist yet."""
    existing = os.path.abspath(folder)
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    free = shutil.disk_usage(existing).free
    if free < needed:
        message = (
            f"{folder} has {free >> 20} MB free; {needed >> 20} MB are needed to install a version beside the last"
        )
        yield finding(ERROR, "disk", message)


def executables(folder, names):
    """Whether the main plugin and what follows it can be executed."""
    missing = [name for name in names if not os.access(os.path.join(folder, name), os.X_OK)]
    if missing:
        message = f"{', '.join(missing)} cannot be executed in {folder}: install the CNI plugins there"
        yield finding(ERROR, "executables", message)


def runtime_folders(run, sockets=RUNTIMES, containerd=CONTAINERD_CONFIG, crio=CRIO_CONFIG):
    """{runtime in use: (folder of configurations, folders of executables, name of its only network or '')}.

    As the runtime itself tells it, else as its files have it. `run(command)` gives (exit status, output, errors), or
    OSError. ValueError when a file is not TOML.
    """
    read = {"containerd": lambda _path: _containerd(run, containerd), "CRI-O": lambda path: _crio(path, crio)}
    return {name: read[name](path) for name, path in sockets.items() if os.path.exists(path)}


def _containerd(run, path):
    """Its versions merge imports differently, so it is asked first: until 1.7 a section replaces the former one."""
    dumped = _dumped_by_containerd(run, path)
    merged = {}
    for each in [dumped] if dumped else _with_imports(path):
        for name in _CONTAINERD_PLUGINS:
            merged.update(((each.get("plugins") or {}).get(name) or {}).get("cni") or {})
    folders = merged.get("bin_dirs") or [merged.get("bin_dir") or "/opt/cni/bin"]
    return merged.get("conf_dir") or "/etc/cni/net.d", folders, ""


def _dumped_by_containerd(run, path):
    import tomllib  # from Python 3.11 on; without it `runtime` is not asked

    try:
        status, dumped, _errors = run(["containerd", "--config", path, "config", "dump"])
        return tomllib.loads(dumped) if status == 0 else None
    except (OSError, ValueError):
        return None


def _with_imports(path):
    pending, read = [path], set()
    while pending:
        each = pending.pop(0)
        if each in read:
            continue
        read.add(each)
        content = _toml(each)
        yield content
        for pattern in content.get("imports") or ():
            pending += sorted(glob.glob(os.path.join(os.path.dirname(each), pattern)))


def _crio(path, patterns):
    """Source: crio.conf(5), crio.conf.d(5). `plugin_dir` is the former name of an entry of `plugin_dirs`."""
    merged = {}
    for each in _running_crio(path) or _crio_files(patterns):
        merged.update((each.get("crio") or {}).get("network") or {})
    folders = merged.get("plugin_dirs") or ["/opt/cni/bin"]
    if merged.get("plugin_dir"):
        folders = [*folders, merged["plugin_dir"]]
    return merged.get("network_dir") or "/etc/cni/net.d", folders, merged.get("cni_default_network") or ""


def _running_crio(path):
    """What CRI-O runs with, its command line's options included, as `crio status config` gets it; [] for no answer."""
    import tomllib

    connection = _LocalConnection("localhost", timeout=TIMEOUT)
    connection.path = path
    try:
        connection.request("GET", "/config")
        answer = connection.getresponse()
        return [tomllib.loads(answer.read().decode())] if answer.status == http.client.OK else []
    except (OSError, http.client.HTTPException, ValueError):
        return []
    finally:
        connection.close()


class _LocalConnection(http.client.HTTPConnection):
    """HTTP on the Unix socket at `path`."""

    path = None

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def _crio_files(patterns):
    for pattern in patterns:
        yield from (_toml(each) for each in sorted(glob.glob(pattern, recursive=True)) if os.path.isfile(each))


def _toml(path):
    import tomllib

    if not os.path.exists(path):
        return {}
    with open(path, "rb") as file:
        try:
            return tomllib.load(file)
        except ValueError as error:
            raise ValueError(f"{path} is not TOML: {error}") from error


def runtime(folders, net_dir, bin_dir, network):
    """Whether the runtimes in use look where the role is told to put things, and for the network of this name."""
    if not folders:
        yield finding(
            ERROR, "runtime", f"no container runtime listens: neither on {' nor on '.join(RUNTIMES.values())}"
        )
    for name, (configurations, binaries, only) in folders.items():
        if _differ(configurations, net_dir):
            message = f"{name} reads CNI configurations in {configurations}, not in {net_dir}: set cni_ipam_net_dir"
            yield finding(ERROR, "runtime", message)
        if all(_differ(each, bin_dir) for each in binaries):
            message = (
                f"{name} looks for CNI executables in {', '.join(binaries)}, not in {bin_dir}: set cni_ipam_bin_dir"
            )
            yield finding(ERROR, "runtime", message)
        if only not in ("", network):
            hint = "empty cni_default_network in its configuration, or set cni_ipam_network_name"
            yield finding(ERROR, "runtime", f"{name} takes no network but {only}, and {network} is not it: {hint}")


def _differ(one, other):
    return os.path.realpath(one) != os.path.realpath(other)


def in_force(folder, leaving=()):
    """(name, content) of the configuration that a runtime takes; None when there is none. ValueError names the file.

    It is the one that is in force when those with the names `leaving` are gone.
    Source: libcni takes the first file in alphabetical order.
    """
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else ()
    for name in names:
        if name.endswith(SUFFIXES) and name not in leaving:
            path = os.path.join(folder, name)
            try:
                with open(path, "rb") as file:
                    return name, json.load(file)
            except (OSError, ValueError) as error:
                raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    return None


def ipam_of(configuration):
    """(name of the network, type of its IPAM plugin, '' where it names none)."""
    plugins = configuration.get("plugins") or [configuration]
    return configuration.get("name") or "", ((plugins[0] or {}).get("ipam") or {}).get("type") or ""


def present_pods(network, folder=RESULTS):
    """Names of the pods that have an attachment in a network, from what the runtime has written down."""
    found = set()
    for path in glob.glob(os.path.join(glob.escape(folder), "*")):
        try:
            with open(path, "rb") as file:
                cached = json.load(file)
            arguments = dict(cached.get("cniArgs") or ())
            if cached.get("networkName") == network:
                found.add(f"{arguments['K8S_POD_NAMESPACE']}/{arguments['K8S_POD_NAME']}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # not the runtime's, or being written
    return sorted(found)


def network(found, pods, wanted):
    """What the configuration in force, as `in_force` has it, means for the one that is to come.

    `wanted`: main_plugin, conflist (file name), network (name), replace (whether files before it are set aside).
    """
    if wanted["main_plugin"] == "calico":
        yield from _below_calico(found)
        return
    if found is None:
        return
    name, configuration = found
    known, ipam = ipam_of(configuration)
    if ipam == OUR_IPAM or wanted["main_plugin"] == "none":
        if ipam != OUR_IPAM:
            yield finding(WARNING, "network", f"{name} is in force and names {ipam or 'no IPAM'}, not {OUR_IPAM}")
        if ipam == OUR_IPAM and wanted["main_plugin"] != "none" and name < wanted["conflist"]:
            yield from _hidden(name, known, ipam, wanted)
        return
    yield from _hidden(name, known, ipam, wanted) if name < wanted["conflist"] else ()
    if pods:
        taken_over = known == wanted["network"]
        fate = "keep their addresses, of which the agent knows" if taken_over else "must be replaced to get other ones"
        message = f"{len(pods)} pods run in network {known} of {ipam or 'no IPAM'} and {fate}: {_some(pods)}"
        yield finding(WARNING, "pods", message)


def _hidden(name, known, ipam, wanted):
    told = f"{name} (network {known}, IPAM {ipam or 'none'}) is read before {wanted['conflist']}"
    if wanted["replace"]:
        yield finding(WARNING, "network", f"{told}; it will be set aside")
    else:
        hint = "remove it, name a file before it in cni_ipam_conflist, or set cni_ipam_replace_network"
        yield finding(ERROR, "network", f"{told}, which would have no effect: {hint}")


def _below_calico(found):
    name, ipam = (None, "") if found is None else (found[0], ipam_of(found[1])[1])
    if ipam != CALICO_IPAM:
        seen = "there is no CNI configuration" if name is None else f"{name} is in force and names {ipam or 'no IPAM'}"
        yield finding(ERROR, "network", f"{seen}; with cni_ipam_main_plugin calico it must name {CALICO_IPAM}")


def api_server(url, now=time.time):
    """Whether the API server answers here, and whether its clock and this one agree to a few seconds.

    Any answer will do; whose it is, the agent finds out with the cluster's certificate.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url.rstrip('/')}/version", timeout=TIMEOUT) as answer:
            date = answer.headers["Date"]
    except urllib.error.HTTPError as error:
        date = error.headers["Date"]
    except (OSError, ValueError) as error:
        yield finding(
            ERROR, "api_server", f"the API server does not answer on {url}: {getattr(error, 'reason', error)}"
        )
        return
    yield from clock(date, now())


def clock(date, now):
    """What a `Date` header (RFC 9110) says about this machine's clock, which shows `now`."""
    parsed = email.utils.parsedate(date or "")
    if parsed is None:
        return
    ahead = now - calendar.timegm(parsed)
    # The header has no fractions, and the answer took its time.
    if abs(ahead) >= SKEW_NOTICED:
        told = f"the clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the API server's"
        refused = abs(ahead) > SKEW_REFUSED
        yield finding(ERROR if refused else WARNING, "clock", f"{told}: let NTP or chrony set it")


def _some(names):
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
