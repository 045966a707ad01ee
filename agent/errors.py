# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Errors as the CNI specification numbers them; 100 and above are this plugin's own."""

from __future__ import annotations

INCOMPATIBLE_VERSION = 1
INVALID_ENVIRONMENT = 4
UNDECODABLE = 6
INVALID_CONFIGURATION = 7
TRY_AGAIN_LATER = 11
# Of the verb STATUS: no pod can get an address; and, moreover, those that run may not reach all that they should.
NOT_AVAILABLE, LIMITED_CONNECTIVITY = 50, 51
INTERNAL = 999
EXHAUSTED = 100
NOT_ASSIGNED = 101
ALREADY_ASSIGNED = 102

# A reason: no pool that there is now gives the pod an address.
NO_POOL = "NoPool"


class CniError(Exception):
    """A request that is answered with an error. `message` reaches the pod's event, `details` the runtime's log.

    `calico` is what calico-ipam says in the same case, where it has words of its own. `reason` tells programs, by a key
    of ours that runtimes skip, what the code leaves open.
    """

    def __init__(self, code: int, message: str, details: str = "", calico: str = "", reason: str = ""):
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        self.calico = calico
        self.reason = reason

    def for_calico(self) -> CniError:
        """The error as calico-ipam gives it: its words, without a code of their own, and ours as details."""
        return CniError(INTERNAL, self.calico, self.message, reason=self.reason) if self.calico else self
