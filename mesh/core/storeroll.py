"""The store's servers, as `mesh status` shows them: who is what, who is in sync, who is down.

Whoever leads looks at the nodes in every round of its storekeeping; here is kept what it last saw. Sentinels
are asked only where somebody wants to know, since nothing else is decided by them while all is well. What was
started with the mesh and was never seen by this leader is down, too: it may have died with the last one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mesh.core.storeview import StoreSeen

DOWN_S = 1.0
"""A server that has not answered for so long is shown as down: nodes are asked five times a second or more,
Sentinels as often as this.
"""

Row = dict[str, Any]


@dataclass(slots=True)
class _Known:
    role: str
    pid: int
    at: float
    lag_bytes: int | None = None


class StoreRoll:
    """Of one supervisor, while it looks after the store.

    Attributes:
        wants_sentinels: the next round is to ask them.
    """

    def __init__(self) -> None:
        self.wants_sentinels = False
        self._nodes = _Group()
        self._sentinels = _Group()

    def __repr__(self) -> str:
        return f"StoreRoll({len(self._nodes.known)} nodes, {len(self._sentinels.known)} Sentinels)"

    def note(self, seen: StoreSeen, now: float, *, sentinels: bool) -> None:
        """One round of looks.

        Args:
            seen: what it showed.
            now: when it was over.
            sentinels: they were asked, too.
        """
        behind = {
            name: primary.offset - confirmed
            for primary in seen.primaries
            for name, confirmed in primary.links
        }
        self._nodes.round(now)
        for node in seen.nodes:
            role = "primary" if node.is_primary else "replica"
            lag = behind.get(node.name) if node.is_linked else None
            self._nodes.known[node.name] = _Known(role, node.pid, now, lag)
        if sentinels:
            self.wants_sentinels = False
            self._sentinels.round(now)
            for sentinel in seen.sentinels:
                self._sentinels.known[sentinel.name] = _Known("sentinel", sentinel.pid, now)

    def rows(self, at_start: Sequence[Mapping[str, Any]], members: Iterable[str]) -> list[Row]:
        """A row for each server; asking for them has Sentinels asked, at the next round, too.

        Args:
            at_start: rows of those that were started with the mesh.
            members: names of those in the in-sync set.
        """
        self.wants_sentinels = self._nodes.now - self._sentinels.now >= DOWN_S
        in_sync = frozenset(members)
        rows = [*self._nodes.rows(in_sync), *self._sentinels.rows(frozenset())]
        seen = {*self._nodes.known, *self._sentinels.known}
        for row in at_start:
            group = self._sentinels if row["role"] == "sentinel" else self._nodes
            name = f"{row['host']}:{row['port']}"
            if name not in seen:
                role = "down" if group.has_looked else row["role"]
                rows.append(_row(role, row["pid"], name, row.get("lag_bytes"), in_sync))
        return sorted(rows, key=lambda row: (_ORDER.index(row["role"]), row["host"], row["port"]))


class _Group:
    """Servers that are asked together."""

    def __init__(self) -> None:
        self.known: dict[str, _Known] = {}
        self.now = -math.inf
        """When they were asked last."""
        self._began = math.inf

    def round(self, now: float) -> None:
        self._began, self.now = min(self._began, now), now

    @property
    def has_looked(self) -> bool:
        """For long enough: whoever has not answered is down."""
        return self.now - self._began > DOWN_S

    def rows(self, members: frozenset[str]) -> Iterator[Row]:
        for name, known in self.known.items():
            if not known.pid:
                continue  # one in memory has no process
            role = "down" if self.now - known.at > DOWN_S else known.role
            yield _row(role, known.pid, name, known.lag_bytes, members)


def _row(role: str, pid: int, name: str, lag_bytes: int | None, members: frozenset[str]) -> Row:
    host, _, port = name.rpartition(":")
    row: Row = {"role": role, "pid": pid, "host": host, "port": int(port)}
    if role == "replica":
        row |= {"lag_bytes": lag_bytes, "in_sync": name in members}
    return row


_ORDER = ("primary", "replica", "sentinel", "down")
