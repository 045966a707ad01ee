# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from hypothesis import settings

# How fast an example runs says something about the machine, not about what is tested.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
