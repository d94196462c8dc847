"""What happens in this process, told to whoever subscribes: calls, commits, partitions. For metrics, traces.

    def count(event: observe.CallFailed) -> None: ...
    unsubscribe = observe.subscribe(count, observe.CallFailed)

Events are of this process only: in a client's process its own calls, in a handler's what it carries out and
commits. A handler's subscribers come from the application: its module subscribes when it is imported. Nothing
is kept, sampled or sent anywhere; that is for the subscriber, who is called in the middle of things, in
whichever thread they happen in, and has to be done in microseconds.

Without a subscriber an event costs one look at `observers.wanted`, and is not even made.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

from mesh.errors import MeshError

log = logging.getLogger("mesh.observe")

CallId = tuple[int, int]
"""(session, number): the same at the client and at each handler that the call came to."""


class CallStarted(NamedTuple):
    """A client began a call.

    Attributes:
        call: its id.
        method: "Entity.method".
        partition: of its key.
    """

    call: CallId
    method: str
    partition: int


class CallCompleted(NamedTuple):
    """A client's call brought a reply.

    Attributes:
        call, method, partition: see CallStarted.
        attempts: how often it was sent; more than 1 after a redirect or a takeover.
        duration_s: seconds from its beginning.
    """

    call: CallId
    method: str
    partition: int
    attempts: int
    duration_s: float


class CallFailed(NamedTuple):
    """A client's call ended without a reply.

    Attributes:
        call, method, partition: see CallStarted.
        attempts: how often it was sent; 0: never.
        duration_s: seconds from its beginning.
        outcome: "cancelled", or the error's class in words: "entity_error", "deadline_exceeded", ...
        error: what its caller gets; None where the caller cancelled it.
    """

    call: CallId
    method: str
    partition: int
    attempts: int
    duration_s: float
    outcome: str
    error: MeshError | None


class HandlingStarted(NamedTuple):
    """A request reached a handler.

    Attributes:
        handler: id of the handler.
        call, method, partition: see CallStarted; `method` is empty where it cannot be read.
        attempt: 0 for the first time that it was sent.
    """

    handler: str
    call: CallId
    method: str
    partition: int
    attempt: int


class HandlingCompleted(NamedTuple):
    """A handler answered a request with the method's result; a command's is committed by then.

    Attributes:
        handler, call, method, partition, attempt: see HandlingStarted.
        duration_s: seconds from its arrival, reading and committing included.
    """

    handler: str
    call: CallId
    method: str
    partition: int
    attempt: int
    duration_s: float


class HandlingFailed(NamedTuple):
    """A handler answered a request otherwise.

    Attributes:
        handler, call, method, partition, attempt: see HandlingStarted.
        duration_s: seconds from its arrival.
        outcome: "entity_error" where the method raised, else why it did not run, such as "redirect",
            "not_ready", "overloaded", "bad_request".
    """

    handler: str
    call: CallId
    method: str
    partition: int
    attempt: int
    duration_s: float
    outcome: str


class CommitAcknowledged(NamedTuple):
    """A batch of a handler is on every in-sync node of the store.

    Attributes:
        handler: id of the handler.
        changes: in it: one for each call, and one for each record that was dropped by itself.
        partitions: that it wrote to.
        duration_s: seconds from its first sending, repetitions included.
    """

    handler: str
    changes: int
    partitions: int
    duration_s: float


class PartitionAdopted(NamedTuple):
    """A handler was granted a partition."""

    handler: str
    partition: int
    epoch: int


class PartitionReleased(NamedTuple):
    """A handler gave a partition up as planned, everything settled."""

    handler: str
    partition: int
    epoch: int


class PartitionLost(NamedTuple):
    """A partition was taken from a handler: it was thought dead, or its grant has ended."""

    handler: str
    partition: int
    epoch: int


Event = (
    CallStarted
    | CallCompleted
    | CallFailed
    | HandlingStarted
    | HandlingCompleted
    | HandlingFailed
    | CommitAcknowledged
    | PartitionAdopted
    | PartitionReleased
    | PartitionLost
)
"""All of them. Later versions add events, and fields at an event's end."""

EVENTS: tuple[type[Event], ...] = Event.__args__

E = TypeVar("E", bound=Event)


class _Subscription:
    __slots__ = ("callback", "has_failed", "types")

    def __init__(self, callback: Callable[[Any], None], types: tuple[type[Any], ...]) -> None:
        self.callback = callback
        self.types = dict.fromkeys(types)
        self.has_failed = False


class Observers:
    """Who subscribes to what in this process; `observers` is the one there is."""

    __slots__ = ("_by_type", "_changing", "_subscriptions", "wanted")

    def __init__(self) -> None:
        self.wanted: frozenset[type[Any]] = frozenset()
        """Types that somebody subscribes to. Look here before an event is made."""
        self._changing = threading.Lock()
        self._subscriptions: list[_Subscription] = []
        self._by_type: dict[type[Any], tuple[_Subscription, ...]] = {}

    def __repr__(self) -> str:
        return f"<Observers, {len(self._subscriptions)} subscriptions>"

    def add(self, subscription: _Subscription) -> None:
        """It hears of what happens from here on."""
        with self._changing:
            self._subscriptions.append(subscription)
            self._rebuild()

    def remove(self, subscription: _Subscription) -> None:
        """It hears of nothing any more; one that is not there is none to remove."""
        with self._changing:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)
                self._rebuild()

    def _rebuild(self) -> None:
        # Replaced as a whole: other threads read it without the lock.
        by_type: dict[type[Any], tuple[_Subscription, ...]] = {}
        for subscription in self._subscriptions:
            for one in subscription.types:
                by_type[one] = (*by_type.get(one, ()), subscription)
        self._by_type = by_type
        self.wanted = frozenset(by_type)

    def tell(self, event: Event) -> None:
        """Call everyone who subscribes to an event of this type."""
        for subscription in self._by_type.get(type(event), ()):
            try:
                subscription.callback(event)
            except Exception:
                if not subscription.has_failed:
                    subscription.has_failed = True
                    log.exception(
                        "subscriber %r failed of a %s; this is logged once, and it goes on being called",
                        subscription.callback,
                        type(event).__name__,
                    )


observers = Observers()


def subscribe(callback: Callable[[E], None], *types: type[E]) -> Callable[[], None]:
    """Have a function called with each event of these types, from any thread, at once.

    It is called in the thread, mostly that of an event loop, in which the event happens: it must neither
    block nor call the mesh. What it raises is logged once and does no harm; it goes on being called.

    Args:
        callback: gets the event.
        types: such as CallFailed; none means all of them.

    Returns:
        A function that ends the subscription; calling it again does nothing.

    Raises:
        TypeError: one of the types is no event's.
    """
    unknown = [one for one in types if one not in EVENTS]
    if unknown:
        known = ", ".join(event.__name__ for event in EVENTS)
        raise TypeError(f"{unknown[0]!r} is no type of event; there are {known}")
    subscription = _Subscription(callback, types or EVENTS)
    observers.add(subscription)
    return partial(observers.remove, subscription)
