# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""The token by which the API server knows this node, kept fresh in its file.

It is of a ServiceAccount that is this node's alone and whose rights include asking for the next token of this very
account. The file is what counts, and is read again at each look: the role puts the first token there, and another one
after the node was away for so long that its own expired.
"""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import UTC, datetime
from pathlib import Path

from .._kube.errors import ApiError, Unreachable
from .._kube.tokens import Token, request_body, request_path
from .api import Client
from .systemd import notify

# A week: a node may be off over a holiday.
TOKEN_LIFETIME_SECONDS = 604800.0
# Of a token's lifetime; the rest is for API servers that are away.
RENEW_AFTER = 0.8
LOOK_SECONDS = 60.0

log = logging.getLogger(__name__)


async def keep_token(client: Client, lifetime: float) -> None:
    """Use what stands in the client's token file, and renew it in time, until cancelled.

    `lifetime` in seconds is what is asked for. What fails is reported and tried again at the next look. Without a token
    file there is nothing to keep.
    """
    path = client.token_file
    while path is not None:
        try:
            token = Token.parse(path.read_text().strip())
            client.authenticate(token.text)
            if token.age >= RENEW_AFTER:
                await _renew(client, token, path, lifetime)
        except (OSError, ValueError) as error:
            log.error("the token in %s cannot be kept: %s", path, error)
        await asyncio.sleep(LOOK_SECONDS)


async def _renew(client: Client, token: Token, path: Path, lifetime: float) -> None:
    try:
        answer = await client.create(request_path(token.namespace, token.account), request_body(lifetime))
    except (ApiError, Unreachable) as error:
        end = datetime.fromtimestamp(token.expires, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        message = (
            f"the token in {path} {'expired' if token.age >= 1 else 'expires'} at {end} and is not renewed: {error}"
        )
        notify(f"STATUS={message}")
        log.error("%s", message)
        return
    new = Token.parse(answer["status"]["token"])
    _write(path, new.text)
    client.authenticate(new.text)
    log.info("the token of ServiceAccount %s/%s is renewed", new.namespace, new.account)


def _write(path: Path, text: str) -> None:
    """Put the text in the file's place, for its owner only: readers find the old one or the new one, whole."""
    new = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
