"""What clients tell a handler of others: it passes some of it on to the leader, and makes nothing of it.

Clients have a connection to every handler and need none to a supervisor, so this is the way that is there. A
thousand of them may complain of the same one at once; a few of these say as much as all.
"""

from __future__ import annotations

from collections.abc import Callable

from mesh.core.messages import ClientSays, Complaints, Message
from mesh.net.connection import Connection

_MOST = 32
"""Passed on in a second."""
_MOST_ABOUT = 64
"""Handlers in one of them."""


class Hearsay:
    """Of one handler.

    Args:
        tell: says something to the leader.
        machines: on how many of them clients are.
        now: the time, in seconds.
    """

    def __init__(
        self,
        tell: Callable[[Message], None],
        machines: Callable[[], int],
        now: Callable[[], float],
    ) -> None:
        self._tell = tell
        self._count = machines
        self._now = now
        self._until = 0.0
        self._told = 0
        self._machines = 0

    def __repr__(self) -> str:
        return f"Hearsay({self._told} passed on in this second)"

    def pass_on(self, conn: Connection, complaints: Complaints) -> None:
        """A client complains."""
        now = self._now()
        if now >= self._until:
            self._until, self._told = now + 1.0, 0
            self._machines = self._count()
        if self._told < _MOST:
            self._told += 1
            about = complaints.about[:_MOST_ABOUT]
            self._tell(ClientSays(conn.machine, self._machines, about))
