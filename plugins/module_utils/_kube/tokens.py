# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Tokens of ServiceAccounts: what stands in one, and how another is asked for.

A token is a JSON Web Token (RFC 7519). Its account and its times are read from it; whether it is genuine, only the API
server can say. Source: TokenRequest of authentication.k8s.io/v1.
"""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass

_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True)
class Token:
    """A token of the ServiceAccount `namespace`/`account`, good from `issued` to `expires` (seconds since 1970)."""

    text: str
    namespace: str
    account: str
    issued: float
    expires: float

    @classmethod
    def parse(cls, text):
        """ValueError when it is not a ServiceAccount's token, or one that never expires."""
        try:
            _header, payload, _signature = text.split(".")
            claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
            user, issued, expires = str(claims["sub"]), float(claims["iat"]), float(claims["exp"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"not a token of a ServiceAccount that expires at some time: {error!r}") from None
        if expires <= issued:
            raise ValueError("a token that expires before it is issued")
        if not user.startswith(_ACCOUNT):
            raise ValueError(f"a token of {user!r}, not of a ServiceAccount")
        namespace, _colon, account = user[len(_ACCOUNT) :].partition(":")
        return cls(text, namespace, account, issued, expires)

    @property
    def age(self):
        """How much of its lifetime is over, by this machine's clock: 0 when it was just issued, 1 when it expires."""
        return (time.time() - self.issued) / (self.expires - self.issued)


def user_name(namespace, account):
    """The API server's name for a ServiceAccount."""
    return f"{_ACCOUNT}{namespace}:{account}"


def request_path(namespace, account):
    """Where tokens of the account are asked for, by a POST of `request_body`."""
    return f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"


def request_body(lifetime):
    """Asks for a token that is good for `lifetime` seconds. The API server may grant less; it refuses less than 600."""
    spec = {"audiences": [], "expirationSeconds": int(lifetime)}
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
