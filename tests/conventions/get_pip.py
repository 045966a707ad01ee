# SPDX-License-Identifier: Apache-2.0
"""Stands where ansible-test looks for a downloaded get-pip.py: the interpreter's own pip installs the one asked for."""

from __future__ import annotations

import subprocess
import sys

NOT_OURS = ("--no-setuptools", "--no-wheel")

if __name__ == "__main__":
    wanted = [argument for argument in sys.argv[1:] if argument not in NOT_OURS]
    subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *wanted], check=True)
