# SPDX-License-Identifier: Apache-2.0
"""A control plane without nodes: etcd and kube-apiserver as two processes on loopback, ready after 2 s.

Everything lives in a temporary folder and ends with the control plane. Nothing is durable: etcd does not
sync to disk. There are no controllers: deleting a namespace leaves it in phase Terminating, and no
ServiceAccount appears by itself (so the admission plugin that asks for one is off).
"""

from __future__ import annotations

import secrets
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from . import binaries
from .commands import output_of, tail
from .errors import ClusterError
from .lifetime import BOUND, end

READY_SECONDS = 60.0

KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: podnet
clusters:
- name: podnet
  cluster: {{server: "{url}", certificate-authority: "{ca}"}}
users:
- name: admin
  user: {{token: "{token}"}}
contexts:
- name: podnet
  context: {{cluster: podnet, user: admin}}
"""


class ControlPlane:
    """etcd and kube-apiserver for as long as the `with` block lasts.

    `kubeconfig` (a path), `url`, `token` (a member of system:masters) and `ca` (the path of the certificate
    to trust) are valid from the constructor on; the server answers from `start()` on. Both processes are
    killed by the kernel when the thread that started them ends, so start it from a thread that lives on.
    """

    def __init__(
        self,
        apiserver_flags: Sequence[str] = (),
        service_cidrs: str = "10.96.0.0/16,fd00:10:96::/112",
    ):
        """`apiserver_flags` come last, so they override the ones given here."""
        self.folder = Path(tempfile.mkdtemp(prefix="podnet-apiserver-"))
        self.etcd_port, self.etcd_peer_port, self.port = free_ports(3)
        self.url = f"https://127.0.0.1:{self.port}"
        self.token = secrets.token_hex(16)
        # The self-signed certificate that kube-apiserver writes is followed by its issuer's in one file.
        self.ca = self.folder / "certs" / "apiserver.crt"
        self.kubeconfig = self.folder / "kubeconfig"
        self.service_cidrs = service_cidrs
        self.apiserver_flags = list(apiserver_flags)
        self._etcd: subprocess.Popen | None = None
        self._apiserver: subprocess.Popen | None = None

    def __enter__(self) -> ControlPlane:
        return self.start()

    def __exit__(self, *_error) -> None:
        self.stop()

    def start(self) -> ControlPlane:
        """Starts both processes and returns when the API server is ready."""
        try:
            self._write_files()
            self._etcd = self._spawn("etcd", self._etcd_flags())
            self.start_apiserver()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Ends both processes and removes their folder. May be called twice."""
        self.stop_apiserver()
        end(self._etcd)
        self._etcd = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_apiserver(self) -> None:
        """Starts the API server; after `stop_apiserver()` on the same port, with the same objects."""
        self._apiserver = self._spawn("kube-apiserver", self._kube_apiserver_flags())
        self._wait_until_ready()

    def stop_apiserver(self) -> None:
        """Kills the API server and leaves etcd running: what clients see when the API server is away."""
        end(self._apiserver)
        self._apiserver = None

    def _write_files(self) -> None:
        self.kubeconfig.write_text(KUBECONFIG.format(url=self.url, ca=self.ca, token=self.token))
        tokens = self.folder / "tokens.csv"
        tokens.write_text(f'{self.token},admin,admin,"system:masters"\n')
        tokens.chmod(0o600)
        key = self.folder / "service-accounts.key"
        output_of("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)

    def _etcd_flags(self) -> list[str]:
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{self.etcd_peer_port}"
        return [
            f"--data-dir={self.folder / 'etcd'}",
            "--name=default",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _kube_apiserver_flags(self) -> list[str]:
        return [
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            "--bind-address=127.0.0.1",
            # No node will ever reach it, and a loopback address may not be advertised to one.
            "--endpoint-reconciler-type=none",
            f"--secure-port={self.port}",
            f"--cert-dir={self.folder / 'certs'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            f"--service-cluster-ip-range={self.service_cidrs}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={self.folder / 'service-accounts.key'}",
            f"--service-account-signing-key-file={self.folder / 'service-accounts.key'}",
            "--disable-admission-plugins=ServiceAccount",
            *self.apiserver_flags,
        ]

    def _spawn(self, name: str, flags: list[str]) -> subprocess.Popen:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [*BOUND, binaries.find(name), *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not self._ready():
            for name, process in (("etcd", self._etcd), ("kube-apiserver", self._apiserver)):
                if process is not None and process.poll() is not None:
                    raise ClusterError(
                        f"{name} ended with code {process.returncode}; its last lines:\n"
                        f"{tail(self.folder / f'{name}.log')}"
                    )
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"kube-apiserver was not ready after {READY_SECONDS:.0f} s; its last lines:\n"
                    f"{tail(self.folder / 'kube-apiserver.log')}"
                )
            time.sleep(0.05)

    def _ready(self) -> bool:
        if not self.ca.exists():
            return False
        admin = {"Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(f"{self.url}/readyz", headers=admin)
        try:
            trust = ssl.create_default_context(cafile=self.ca)
            with urllib.request.urlopen(request, timeout=2, context=trust) as answer:
                return answer.status == 200
        except (OSError, ssl.SSLError, urllib.error.URLError):
            return False


def free_ports(count: int) -> list[int]:
    """Loopback TCP ports that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _each in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
