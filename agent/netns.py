# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Network namespaces as witnesses of whether an attachment still runs."""

from __future__ import annotations

import os


def may_exist(path: str) -> bool:
    """Whether a network namespace is still there, or cannot be looked at; False where its path is not known (empty).

    `/proc/<pid>/ns/net` of a process that the agent may not look into is no sign that the process is gone.
    """
    if not path:
        return False
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True
