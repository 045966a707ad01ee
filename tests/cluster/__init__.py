# SPDX-License-Identifier: Apache-2.0
"""The project's test clusters: real kind with nodes, and a bare control plane of two processes.

Import it as `cluster` with the folder `tests` on `sys.path` (pytest: `pythonpath = ["tests"]`), or run it as
`python tests/cluster`. Standard library only, Python 3.11 or newer.
"""
