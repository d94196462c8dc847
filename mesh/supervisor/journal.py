"""What has happened, for whoever asks: the last events, and a feed of those to come.

Every supervisor has the others' events, too, so that they outlive whoever recorded them. An event is known by
the process that recorded it and its number there; one that is heard twice is kept once.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from mesh.core.messages import Answer, Happened, Message
from mesh.net.clock import Clock
from mesh.net.connection import Connection
from mesh.wording import in_words, level_of

log = logging.getLogger("mesh.supervisor")

_KEPT_EVENTS = 10_000
_TOLD_EVENTS = 1_000
"""How many of them another supervisor is told that has just come."""


class Journal:
    """Events, oldest first.

    Args:
        origin: this process.
        clock: whose wall time they bear.
        spread: tells the other supervisors.
    """

    def __init__(self, origin: bytes, clock: Clock, spread: Callable[[Message], None]) -> None:
        self.events: deque[dict[str, Any]] = deque()
        self.followers: dict[Connection, tuple[int, float]] = {}
        """Who gets each event as it happens: under which number they asked, and when."""
        self._origin = origin
        self._clock = clock
        self._spread = spread
        self._numbers = itertools.count()
        self._names: deque[tuple[bytes, int]] = deque()
        """Of the events, in the same order."""
        self._known: set[tuple[bytes, int]] = set()

    def __repr__(self) -> str:
        return f"Journal({len(self.events)} events, {len(self.followers)} followers)"

    def follow(self, conn: Connection, number: int) -> None:
        """Tell that connection whatever happens from here on."""
        self.followers[conn] = number, self._clock.wall()

    def record(self, kind: str, fields: dict[str, Any], ago_s: float = 0.0) -> None:
        """Write an event down, of so many seconds ago, and tell it."""
        event = {"kind": kind, "at": round(self._clock.wall() - ago_s, 6), **fields}
        log.log(level_of(event), "%s", in_words(event))
        name = self._origin, next(self._numbers)
        self._keep(len(self.events), name, event)
        blob = json.dumps(event).encode()
        self._tell(blob)
        self._spread(Happened(*name, blob, is_past=False))

    def hear(self, message: Happened) -> None:
        """Another supervisor has recorded something."""
        name = message.origin, message.number
        if name in self._known:
            return
        event = json.loads(message.event)
        index = len(self.events)
        if message.is_past:
            while index and self.events[index - 1]["at"] > event["at"]:
                index -= 1
        self._keep(index, name, event)
        self._tell(message.event, since=event["at"] if message.is_past else None)

    def past(self) -> Iterator[Happened]:
        """For a supervisor that has just come: what happened last."""
        first = max(0, len(self.events) - _TOLD_EVENTS)
        for name, event in itertools.islice(
            zip(self._names, self.events, strict=True), first, None
        ):
            yield Happened(*name, json.dumps(event).encode(), is_past=True)

    def _keep(self, index: int, name: tuple[bytes, int], event: dict[str, Any]) -> None:
        self._known.add(name)
        self.events.insert(index, event)
        self._names.insert(index, name)
        if len(self.events) > _KEPT_EVENTS:
            self.events.popleft()
            self._known.discard(self._names.popleft())

    def _tell(self, blob: bytes, since: float | None = None) -> None:
        for conn, (number, followed_at) in self.followers.items():
            if since is None or since >= followed_at:
                conn.send(Answer(number, "", blob).frame())
