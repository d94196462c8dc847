"""What has happened, for whoever asks: the last events, and a feed of those to come."""

from __future__ import annotations

import json
import logging
from collections import deque
from typing import Any

from mesh.core.messages import Answer
from mesh.net.clock import Clock
from mesh.net.connection import Connection
from mesh.wording import in_words, level_of

log = logging.getLogger("mesh.supervisor")

_KEPT_EVENTS = 10_000


class Journal:
    """Events, oldest first.

    Args:
        clock: whose wall time they bear.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.events: deque[dict[str, Any]] = deque(maxlen=_KEPT_EVENTS)
        self.followers: dict[Connection, int] = {}
        """Who gets each event as it happens, and under which number they asked."""

    def __repr__(self) -> str:
        return f"Journal({len(self.events)} events, {len(self.followers)} followers)"

    def record(self, kind: str, fields: dict[str, Any], ago_s: float = 0.0) -> None:
        """Write an event down, of so many seconds ago, and tell it."""
        event = {"kind": kind, "at": round(self._clock.wall() - ago_s, 6), **fields}
        self.events.append(event)
        log.log(level_of(event), "%s", in_words(event))
        blob = json.dumps(event).encode()
        for conn, number in self.followers.items():
            conn.send(Answer(number, "", blob).frame())
