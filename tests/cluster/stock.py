# SPDX-License-Identifier: Apache-2.0
"""What a node image from elsewhere, such as kind's stock one, lacks of what the role and the tests need."""

from __future__ import annotations

from collections.abc import Sequence

from . import gobuild
from .commands import run_logged
from .engine import Engine
from .progress import Step

# From the sources that the image has, which is Debian: there, `venv` is of no use without ensurepip's package.
INSTALL_PYTHON = """\
python3 -c 'import ensurepip' && exit
apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv
"""


def complete(chosen: Engine, nodes: Sequence[str]) -> None:
    """Installs Python and the CNI plugins that are not there. ClusterError with the command's log when it fails."""
    plugins = [gobuild.build(name) for name in gobuild.CNI_PLUGINS]
    for node in nodes:
        with Step(f"installing Python and CNI plugins on {node}", 30) as step:
            command = [chosen.name, "exec", node, "sh", "-c", INSTALL_PYTHON]
            run_logged(command, f"stock-{node}", step, env=chosen.environment())
            for plugin in plugins:
                chosen.output("cp", plugin, f"{node}:/opt/cni/bin/{plugin.name}")
