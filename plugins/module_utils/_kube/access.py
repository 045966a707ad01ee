# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""What the API server would let this user do. Asking changes nothing, so that check mode may ask, too."""

from __future__ import annotations

from .client import Reader


class Access(Reader):
    """Asks the API server what it would allow."""

    def allows(self, verb, group, resource, namespace=None):
        """Whether the user may do `verb` with all objects of a resource; `group` is '' for the core group.

        Source: SelfSubjectAccessReview of authorization.k8s.io/v1. Subresources are written as `resource/subresource`.
        """
        name, _slash, part = resource.partition("/")
        attributes = {"verb": verb, "group": group, "resource": name}
        if part:
            attributes["subresource"] = part
        if namespace:
            attributes["namespace"] = namespace
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        return bool(self._request("POST", path, None, review)["status"].get("allowed"))
