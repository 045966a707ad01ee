# SPDX-License-Identifier: Apache-2.0
"""The objects of a real API server, as a test sees and makes them: not through the code that it tests."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path

import yaml

DEFINITIONS = Path(__file__).resolve().parents[2] / "roles/cni_ipam/files/crds"
GROUPS = {"v1": "crd.projectcalico.org/v1", "v3": "projectcalico.org/v3"}
READY_SECONDS = 15.0


class Objects:
    """Requests to the API server of a ControlPlane."""

    def __init__(self, plane):
        self._url = plane.url
        self._token = plane.token
        self._trust = ssl.create_default_context(cafile=plane.ca)

    def request(self, method: str, path: str, body: dict | None = None, kind: str = "application/json") -> dict:
        """The answer; an HTTPError says what the API server said."""
        request = urllib.request.Request(
            self._url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": kind},
        )
        try:
            with urllib.request.urlopen(request, context=self._trust, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            error.add_note(error.read().decode())
            error.close()
            raise

    def get(self, path: str) -> dict:
        return self.request("GET", path)

    def exists(self, path: str) -> bool:
        """Whether there is such an object or collection; a kind that has only just been defined answers 429."""
        try:
            self.get(path)
        except urllib.error.HTTPError as error:
            if error.code not in (404, 429):
                raise
            return False
        return True

    def create(self, path: str, body: dict) -> dict:
        return self.request("POST", f"{path}?fieldValidation=Strict", body)

    def patch(self, path: str, body: dict) -> dict:
        return self.request("PATCH", path, body, "application/merge-patch+json")

    def patch_status(self, path: str, status: dict) -> dict:
        return self.patch(f"{path}/status", {"status": status})

    def delete(self, path: str) -> None:
        self.request("DELETE", path, {"gracePeriodSeconds": 0})

    def names(self, path: str) -> list[str]:
        return [each["metadata"]["name"] for each in self.get(path)["items"]]

    def versions(self, paths: Iterable[str]) -> dict[str, str]:
        """Every object of these collections with its version: equal exactly when none was written."""
        objects = [each["metadata"] for path in paths if self.exists(path) for each in self.get(path)["items"]]
        return {each["uid"]: each["resourceVersion"] for each in objects}


def definitions(group: str) -> list[dict]:
    """The collection's resource definitions, in group v1 as they ship, or in v3 as Calico has them there."""
    found = [yaml.safe_load(file.read_text()) for file in sorted(DEFINITIONS.glob("*.yaml"))]
    return found if group == "v1" else [_as_v3(definition) for definition in found]


def install(objects: Objects, group: str) -> None:
    """Create the resource definitions and wait until they are served."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    wanted = definitions(group)
    for definition in wanted:
        objects.create(path, definition)
    deadline = time.monotonic() + READY_SECONDS
    for definition in wanted:
        while not objects.exists(f"/apis/{GROUPS[group]}/{definition['spec']['names']['plural']}"):
            assert time.monotonic() < deadline, f"{definition['metadata']['name']} is not served"
            time.sleep(0.05)


def _as_v3(definition: dict) -> dict:
    """The same kind in projectcalico.org/v3, where `deleted` is a boolean and the configuration has another name."""
    names, version = definition["spec"]["names"], definition["spec"]["versions"][0]
    if names["kind"] == "IPAMConfig":
        kind, plural = "IPAMConfiguration", "ipamconfigurations"
        names.update(kind=kind, listKind=f"{kind}List", plural=plural, singular=kind.lower())
    if names["kind"] == "BlockAffinity":
        version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["deleted"] = {"type": "boolean"}
    definition["spec"]["group"] = "projectcalico.org"
    version["name"] = "v3"
    definition["metadata"]["name"] = f"{names['plural']}.projectcalico.org"
    return definition
