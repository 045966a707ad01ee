# SPDX-License-Identifier: Apache-2.0
"""The options for the connection are those of kubernetes.core, so that its users and their variables need no others."""

from __future__ import annotations

from ansible_collections.kubernetes.core.plugins.module_utils.args_common import AUTH_ARG_SPEC
from ansible_collections.podnet.ipam.plugins.module_utils._argspec import connection_options


def shape(options):
    """Of each option its name, its type, its aliases, whether it is secret, and the options that it has itself."""
    return {
        name: (
            spec.get("type", "str"),
            sorted(spec.get("aliases", ())),
            bool(spec.get("no_log")),
            shape(spec.get("options", {})),
        )
        for name, spec in options.items()
    }


def test_the_options_for_the_connection_are_those_of_kubernetes_core():
    assert shape(connection_options()) == shape(AUTH_ARG_SPEC)
