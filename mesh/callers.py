"""The clients that are connected to a handler.

A call says how old it is and how long it has left as its client counted when it sent it. On a connection
that was silent for long nobody knows when that was: the client may have been stopped in between, and what it
wrote before may arrive only now. A repetition would look younger than what is remembered of its outcome
(mesh.core.retention), and be carried out twice. So a connection that was silent for too long is closed before
anything more is taken from it; the client connects anew, and says again how old its calls are. One that is
merely idle is closed well before that, so that its next call need not wait.
"""

from __future__ import annotations

from mesh.core.retention import Retention
from mesh.net.connection import Connection


class Callers:
    """Of one handler process. Times are Unix seconds: a clock that stands still in a sleep would not do.

    Args:
        retention: says how long is too long.
    """

    def __init__(self, retention: Retention) -> None:
        self._retention = retention
        self._heard: dict[Connection, float] = {}
        self._due = 0.0

    def __repr__(self) -> str:
        return f"Callers({len(self._heard)})"

    def came(self, conn: Connection, wall: float) -> None:
        """A client has connected."""
        self._heard[conn] = wall

    def gone(self, conn: Connection) -> None:
        """A connection is closed, a client's or another's."""
        self._heard.pop(conn, None)

    def hear(self, conn: Connection, wall: float) -> bool:
        """Whether what a client's connection has brought may be taken; if not, it is closed."""
        if wall - self._heard[conn] > self._retention.silence_s:
            conn.close("silent for too long; what came after it may be old")
            return False
        self._heard[conn] = wall
        return True

    def end_silent(self, wall: float) -> None:
        """Close those that are idle. Called at every tick, and looks now and then."""
        if wall < self._due:
            return
        longest = self._retention.silence_s / 2
        self._due = wall + longest / 16
        for conn in [c for c, heard in self._heard.items() if wall - heard > longest]:
            conn.close("silent for long; connect anew")

    def machines(self) -> int:
        """On how many machines they are."""
        return len({conn.machine for conn in self._heard})

    def tell(self, frame: bytes) -> None:
        """Send it to every client."""
        for conn in list(self._heard):
            conn.send(frame)
