# SPDX-License-Identifier: Apache-2.0
"""Runs modules in processes of their own, forked from one that has loaded the libraries already: 0.1 s instead of 1 s.

The collection's own code is loaded anew in each of them.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

PACKAGE = "ansible_collections.podnet.ipam.plugins.modules"


class ModuleServer:
    """For as long as the `with` block lasts."""

    def __enter__(self) -> ModuleServer:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_error) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def run(self, module: str, arguments: dict, environ: dict[str, str], folder: Path) -> dict:
        """The result of a module, as it prints it. Its files are left in `folder`."""
        file = folder / "arguments.json"
        file.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
        job = {"module": module, "environ": environ, "folder": str(folder)}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline(), "the module server has ended"
        printed = (folder / "stdout").read_text()
        assert printed, (folder / "stderr").read_text()
        return json.loads(printed)


def serve() -> None:
    import ansible.module_utils.basic  # noqa: F401
    import kubernetes.client.rest
    import kubernetes.config  # noqa: F401
    import netaddr  # noqa: F401
    import yaml  # noqa: F401

    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            run(**job)
        os.waitpid(child, 0)
        print(flush=True)


def run(module: str, environ: dict[str, str], folder: str) -> None:
    """In the child: run the module as a program, and end."""
    os.environ.clear()
    os.environ.update(environ)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = [module, f"{folder}/arguments.json"]
    try:
        runpy.run_module(f"{PACKAGE}.{module}", run_name="__main__", alter_sys=True)
    except SystemExit:
        pass
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    serve()
