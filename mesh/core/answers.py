"""How calls end, and how many: what their callers hear of those that were not carried out.

Every call that is admitted is counted once when it comes into memory (`pending`) and once by its end, so that
the counts of a handler and of its callers can be held against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgpack

from mesh.core.outbox import Change
from mesh.core.tenure import Conn, Effect, Pending
from mesh.core.wire import Request, Status, pack_reply
from mesh.core.writing import TRY_AGAIN_S

_MISPLACED = msgpack.packb("the partition is on its way to or from this handler")


class Counts(NamedTuple):
    """A handler's calls: in memory now; carried out, and failed or refused, since the start."""

    pending: int
    done: int
    errors: int


class Answers:
    """Those of one handler.

    Attributes:
        pending: calls in memory, and changes that no call waits for.
        done: calls that were carried out.
        entity_errors: those that ended in an error of the entity's.
        not_executed: refused, and nothing of them was done.
        unknown: of which that cannot be said.
    """

    __slots__ = ("done", "entity_errors", "not_executed", "pending", "unknown")

    def __init__(self) -> None:
        self.pending = 0
        self.done = 0
        self.entity_errors = 0
        self.not_executed = 0
        self.unknown = 0

    def __repr__(self) -> str:
        return f"Answers({self.pending} pending, {self.done} done)"

    def refuse(self, conn: Conn, request: Request, status: Status, reason: str) -> None:
        """Say why a call is not carried out."""
        self.not_executed += status is not Status.UNKNOWN
        self.unknown += status is Status.UNKNOWN
        conn.send(pack_reply(request.counter, status, msgpack.packb(reason)))

    def refuse_writing(self, pending: Pending, reason: str) -> None:
        """The store refuses to write: whoever calls may try again soon."""
        self.not_executed += 1
        why = msgpack.packb([f"not executed, nothing can be written: {reason}", TRY_AGAIN_S])
        pending.conn.send(pack_reply(pending.request.counter, Status.OVERLOADED, why))

    def refuse_all(self, pending: Sequence[Pending], status: Status, reason: str) -> None:
        """Calls that had waited in memory."""
        self.pending -= len(pending)
        for one in pending:
            self.refuse(one.conn, one.request, status, reason)

    def reply(self, pending: Pending, payload: bytes) -> None:
        """A call is carried out that changed nothing."""
        self.done += 1
        pending.conn.send(pack_reply(pending.request.counter, Status.OK, payload))

    def give_up(self, changes: Sequence[Change], status: Status) -> None:
        """Changes that will not be committed, NOT_READY, or perhaps were, MAYBE."""
        self.pending -= len(changes)
        for effect in changes:
            if not isinstance(effect, Effect):
                continue
            self.not_executed += status is Status.NOT_READY
            self.unknown += status is not Status.NOT_READY
            effect.records.abandon(effect.counter)
            for conn, counter in effect.waiters:
                conn.send(pack_reply(counter, status, _MISPLACED))
