"""Queries that memory could answer, and that wait for the lease (mesh.core.lease).

A lease runs out where nobody can renew it: the store fails over, a replica is slow, this handler is cut off.
Most of that is over within a second or two, so a query waits, as a write does, until the lease is there
again, its partition goes elsewhere, or its caller stops waiting. What it had read is thrown away; it is
run again.
"""

from __future__ import annotations

from mesh.core.tenure import Pending, Tenure


class Unleased:
    """All of one handler, by tenure, in order of arrival.

    Attributes:
        count: how many there are.
    """

    __slots__ = ("_by_tenure", "count")

    def __init__(self) -> None:
        self._by_tenure: dict[Tenure, list[Pending]] = {}
        self.count = 0

    def __repr__(self) -> str:
        return f"Unleased({self.count} of {len(self._by_tenure)} tenures)"

    def add(self, pending: Pending) -> None:
        """Hold it."""
        self._by_tenure.setdefault(pending.tenure, []).append(pending)
        self.count += 1

    def take(self) -> list[Pending]:
        """Those that may go on; a partition that is being given up is the next owner's to answer for."""
        taken: list[Pending] = []
        for tenure in [t for t in self._by_tenure if t.release_token is None]:
            taken += self._by_tenure.pop(tenure)
        self.count -= len(taken)
        return taken

    def forget(self, tenure: Tenure) -> list[Pending]:
        """The tenure is over: calls that another one has to answer."""
        gone = self._by_tenure.pop(tenure, [])
        self.count -= len(gone)
        return gone

    def overdue(self, now: float) -> list[Pending]:
        """Those whose callers have stopped waiting."""
        over: list[Pending] = []
        for tenure, waiting in list(self._by_tenure.items()):
            left = [pending for pending in waiting if pending.deadline > now]
            if len(left) == len(waiting):
                continue
            over += [pending for pending in waiting if pending.deadline <= now]
            if left:
                self._by_tenure[tenure] = left
            else:
                del self._by_tenure[tenure]
        self.count -= len(over)
        return over
