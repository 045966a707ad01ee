# SPDX-License-Identifier: Apache-2.0
"""Modules of the collection that need no cluster, run as Ansible runs them: a process of their own, JSON in and out."""

from __future__ import annotations

import json
import subprocess
import sys


def run_module(name, **options):
    """The result of a module with these options, with diff."""
    arguments = {"ANSIBLE_MODULE_ARGS": {"_ansible_diff": True, **options}}
    command = [sys.executable, "-m", f"ansible_collections.podnet.ipam.plugins.modules.{name}"]
    done = subprocess.run(command, input=json.dumps(arguments), capture_output=True, text=True, check=False)
    return json.loads(done.stdout)
