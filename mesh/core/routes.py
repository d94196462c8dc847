"""What a client knows of who owns what: the newest table, and redirects that are newer still.

A table tells of all partitions at once and comes when a leader has made one; a redirect tells of one
partition and comes from a handler that was asked in vain, often before the table does. Epochs order them: of
two claims to a partition the one with the higher epoch is the later. So a redirect counts where its epoch is
above the known one, and until a table has caught up with it.
"""

from __future__ import annotations

from mesh.core.table import HandlerRow, Owner, Table
from mesh.core.wire import Redirect


class Routes:
    """Those of one client session."""

    __slots__ = ("_redirects", "table")

    def __init__(self) -> None:
        self.table: Table | None = None
        """The newest; None before the first."""
        self._redirects: dict[int, Owner] = {}

    def __repr__(self) -> str:
        return f"Routes({self.table!r}, {len(self._redirects)} redirects)"

    def owner(self, partition: int) -> Owner | None:
        """Who owns the partition, as far as this client knows."""
        route = self.of(partition)
        return None if route is None else Owner(*route)

    def of(self, partition: int) -> tuple[HandlerRow, int] | None:
        """The same as a plain tuple: making an Owner takes 0.4 µs, and each call comes by here."""
        redirect = self._redirects.get(partition) if self._redirects else None
        if redirect is not None:
            return redirect
        table = self.table
        if table is None:
            return None
        return table.handlers[table.owners[partition]], table.epochs[partition]

    def renew(self, table: Table) -> list[bytes]:
        """Take up a newer table; the processes of which nothing tells any more."""
        rows = [*(self.table.handlers if self.table else ())]
        rows += [owner.handler for owner in self._redirects.values()]
        self.table = table
        self._redirects = {
            p: owner for p, owner in self._redirects.items() if owner.epoch > table.epochs[p]
        }
        return [
            nonce for nonce in dict.fromkeys(row.nonce for row in rows) if not self._names(nonce)
        ]

    def learn(self, redirect: Redirect) -> list[bytes]:
        """Take up a newer redirect; the processes of which nothing tells any more."""
        row = HandlerRow(redirect.id, redirect.nonce, redirect.host, redirect.port)
        replaced = self._redirects.get(redirect.partition)
        self._redirects[redirect.partition] = Owner(row, redirect.epoch)
        if replaced is None or self._names(replaced.handler.nonce):
            return []
        return [replaced.handler.nonce]

    def _names(self, nonce: bytes) -> bool:
        if self.table is not None and self.table.row(nonce) is not None:
            return True
        return any(owner.handler.nonce == nonce for owner in self._redirects.values())
