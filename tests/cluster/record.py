# SPDX-License-Identifier: Apache-2.0
"""The note that the cluster's creation was finished, and with which node image.

It is removed before a creation and before a deletion: after a killed run it is not there.
"""

from __future__ import annotations

import json
from pathlib import Path

from .paths import cache


def _path() -> Path:
    return cache() / "cluster.json"


def finish(image: str) -> None:
    """Notes that a cluster with this node image is complete."""
    _path().write_text(json.dumps({"image": image}))


def forget() -> None:
    """Removes the note."""
    _path().unlink(missing_ok=True)


def finished_image() -> str | None:
    """The node image of the cluster that was completed last; None if that is not known."""
    try:
        return json.loads(_path().read_text())["image"]
    except (FileNotFoundError, ValueError, KeyError):
        return None
