"""Calls on their way through a shell, told to the subscribers of mesh.observe.

The cores know nothing of it: a client's call is watched at the function that hears its end, a handler's at
the connection that its answer leaves by. Either is put in place only while somebody subscribes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from mesh.core.call import Call, Result
from mesh.core.outbox import Batch
from mesh.core.tenure import Conn
from mesh.core.wire import Request, Status, unpack_reply
from mesh.errors import MeshError
from mesh.observe import (
    CallCompleted,
    CallFailed,
    CallStarted,
    CommitAcknowledged,
    HandlingCompleted,
    HandlingFailed,
    HandlingStarted,
    PartitionAdopted,
    PartitionLost,
    PartitionReleased,
    observers,
)

Now = Callable[[], float]

_HANDLING = frozenset({HandlingStarted, HandlingCompleted, HandlingFailed})
_PREFIX_BYTES = 8
_FIXLIST, _FIXTEXT, _NIL, _TEXT8 = 0x90, 0xA0, 0xC0, 0xD9
"""First bytes of msgpack's short lists and texts, and where each ends."""


class WatchedCall:
    """Hears a client's call end, tells of it, and passes the end on.

    Args:
        session: of the client.
        partition: of the call's key.
        payload: of the call.
        done: whom the end concerns.
        now: the client's clock.
    """

    __slots__ = (
        "_began",
        "_call",
        "_done",
        "_early",
        "_method",
        "_now",
        "_over",
        "_partition",
        "_session",
    )

    def __init__(
        self,
        session: int,
        partition: int,
        payload: bytes,
        done: Callable[[Result], None],
        now: Now,
    ) -> None:
        self._session = session
        self._partition = partition
        self._method = method_of(payload)
        self._done = done
        self._now = now
        self._began = now()
        self._call: Call | None = None
        self._early: Result | None = None
        self._over = False

    def begun(self, call: Call) -> None:
        """It has its number; it may have ended already."""
        self._call = call
        observers.tell(CallStarted((self._session, call.counter), self._method, self._partition))
        if self._early is not None:
            self._tell(call, self._early.error)

    def __call__(self, result: Result) -> None:
        if self._call is None:
            self._early = result
        elif not self._over:
            self._tell(self._call, result.error)
        self._done(result)

    def cancelled(self) -> None:
        """Its caller does not wait any more."""
        if self._call is not None and not self._over:
            self._tell(self._call, None, cancelled=True)

    def _tell(self, call: Call, error: MeshError | None, *, cancelled: bool = False) -> None:
        self._over = True
        id_, took = (self._session, call.counter), self._now() - self._began
        about = (id_, self._method, self._partition, call.attempt, took)
        if cancelled:
            observers.tell(CallFailed(*about, "cancelled", None))
        elif error is None:
            observers.tell(CallCompleted(*about))
        else:
            observers.tell(CallFailed(*about, _in_words(type(error).__name__), error))


class WatchedRequest:
    """The connection that a request came by, as the handler's core sees it: hears the answer leave."""

    __slots__ = ("_about", "_arrived", "_conn", "_now")

    def __init__(self, conn: Conn, request: Request, handler: str, now: Now) -> None:
        self._conn = conn
        self._now = now
        self._arrived = now()
        call = (request.session, request.counter)
        method = method_of(request.payload)
        self._about = (handler, call, method, request.partition, request.attempt)

    def flush(self) -> None:
        """See Conn."""
        self._conn.flush()

    def send(self, frame: bytes) -> None:
        """See Conn."""
        self._conn.send(frame)
        status = Status(unpack_reply(frame[_PREFIX_BYTES:]).status)
        if status is Status.TAKEN_UP:
            return  # the answer is still to come
        took = self._now() - self._arrived
        if status is Status.OK:
            observers.tell(HandlingCompleted(*self._about, took))
        else:
            observers.tell(HandlingFailed(*self._about, took, status.name.lower()))

    def arrived(self) -> WatchedRequest:
        """Tell of its arrival."""
        observers.tell(HandlingStarted(*self._about))
        return self


def watch_request(conn: Conn, request: Request, handler: str, now: Now) -> Conn:
    """What the core is to answer by: `conn` itself, where nobody wants to hear of requests."""
    if observers.wanted.isdisjoint(_HANDLING):
        return conn
    return WatchedRequest(conn, request, handler, now).arrived()


class WatchedCommits:
    """When each lane's batch was first sent, for a handler whose commits somebody wants to hear of."""

    __slots__ = ("_handler", "_now", "_sent")

    def __init__(self, handler: str, now: Now) -> None:
        self._handler = handler
        self._now = now
        self._sent: dict[int, tuple[int, float]] = {}

    def sent(self, batch: Batch) -> None:
        """A batch left, perhaps not for the first time."""
        if self._sent.get(batch.lane, (0, 0.0))[0] != batch.seq:
            self._sent[batch.lane] = (batch.seq, self._now())

    def acknowledged(self, batch: Batch) -> None:
        """It is on every in-sync node. One that was sent before anyone subscribed is not told."""
        seq, began = self._sent.pop(batch.lane, (0, 0.0))
        if seq == batch.seq:
            changes = sum(map(len, batch.changes))
            took = self._now() - began
            observers.tell(CommitAcknowledged(self._handler, changes, len(batch.entries), took))


def tell_tenure(handler: str, what: str, partition: int, epoch: int) -> None:
    """A partition came to a handler, or left it."""
    if not observers.wanted:
        return
    if what == "adopted":
        observers.tell(PartitionAdopted(handler, partition, epoch))
    elif what == "released":
        observers.tell(PartitionReleased(handler, partition, epoch))
    else:
        observers.tell(PartitionLost(handler, partition, epoch))


def method_of(payload: bytes) -> str:
    """The name that a request's payload, a list, begins with; empty where it begins with none."""
    if len(payload) < 3 or not _FIXLIST <= payload[0] < _FIXTEXT:
        return ""
    if _FIXTEXT <= payload[1] < _NIL:
        begin, size = 2, payload[1] - _FIXTEXT
    elif payload[1] == _TEXT8:
        begin, size = 3, payload[2]
    else:
        return ""
    name = payload[begin : begin + size]
    try:
        return name.decode() if len(name) == size else ""
    except UnicodeDecodeError:
        return ""


@lru_cache(maxsize=64)
def _in_words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
