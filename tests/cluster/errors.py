# SPDX-License-Identifier: Apache-2.0
"""The one error that the tool reports without a traceback."""

from __future__ import annotations


class ClusterError(Exception):
    """Something outside the tool is not as it has to be; the message says what and what would be right."""
