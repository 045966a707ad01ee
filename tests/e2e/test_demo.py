# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from e2e import demo


def test_the_main_job_from_nothing_to_a_pod_in_its_range():
    demo.main()
