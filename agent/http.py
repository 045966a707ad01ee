# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""aiohttp, loaded without the system's certificate authorities.

It reads all of them twice when it is imported, for connections without a TLS context of their own. The agent makes
none of those, and a pod would wait a tenth of a second longer for it, which would then hold 5 MB more.
"""

from __future__ import annotations

import os

_AUTHORITIES = "SSL_CERT_FILE"

_before = os.environ.get(_AUTHORITIES)
os.environ[_AUTHORITIES] = os.devnull
try:
    import aiohttp
finally:
    del os.environ[_AUTHORITIES]
    if _before is not None:
        os.environ[_AUTHORITIES] = _before

__all__ = ["aiohttp"]
