# Copyright: the podnet.ipam contributors
# SPDX-License-Identifier: Apache-2.0
"""Addresses between the choice of a block and the assignment, so that nobody else counts on them meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

from .blocks import BlockKeeper


@dataclass(frozen=True)
class Promise:
    """An address of a block that is kept for the caller: the one at `ordinal`, or any. Taken back by `withdraw`."""

    keeper: BlockKeeper
    ordinal: int | None = None
    borrowed: bool = False

    @classmethod
    def of(cls, keeper: BlockKeeper, ordinal: int | None = None, borrowed: bool = False) -> Promise:
        keeper.promised += 1
        return cls(keeper, ordinal, borrowed)

    def withdraw(self) -> None:
        self.keeper.promised -= 1
