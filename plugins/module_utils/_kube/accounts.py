# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""ServiceAccounts' tokens, from the controller's side: which of them are still good, and new ones for the others."""

from __future__ import annotations

from .client import Writer
from .tokens import Token, request_body, request_path, user_name

# Of a token's lifetime. Whoever renews its token itself does so before; who has not by then has been unable to.
REPLACE_AFTER = 0.9


class Accounts(Writer):
    """Asks the API server for tokens, and about tokens."""

    def is_good(self, namespace, account, text):
        """Whether a token is accepted as this account's, and is so for a while. '' is no token."""
        try:
            age = Token.parse(text).age
        except ValueError:
            return False
        return age < REPLACE_AFTER and self._user(text) == user_name(namespace, account)

    def new_token(self, namespace, account, lifetime):
        """Another token of the account, good for `lifetime` seconds. NotFound when there is no such account."""
        return self._request("POST", request_path(namespace, account), None, request_body(lifetime))["status"]["token"]

    def _user(self, text):
        """Whose token it is; None when it is nobody's, or of an account that was deleted."""
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": text}}
        status = self._request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", None, review)["status"]
        return status["user"]["username"] if status.get("authenticated") else None
