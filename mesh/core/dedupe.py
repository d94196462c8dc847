"""Exactly one effect: which request ids a partition has already answered.

RIFL's scheme (Lee et al., SOSP '15): each request carries its session's lowest unsettled counter. Records
below it can never be asked for again and are dropped; an id below it is refused. The watermark itself is
stored with the drop, since a delayed copy may reach an owner that never saw the later request.

A client that is gone asks for nothing more. One that said so is forgotten at once, any other once its session
was silent for the whole time that records are kept (mesh.core.retention says why no late copy can then
run). Ids that the caller gave are in mesh.core.callerkeys.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import takewhile

from mesh.core.callerkeys import CALLER_PREFIX, CallerKeys
from mesh.core.outcomes import NEW, Outcome, Running, Seen
from mesh.core.retention import Retention

OUTCOME_PREFIX = b"o"
WATERMARK_PREFIX = b"w"
_ID = struct.Struct(">QQ")
_RECORD = struct.Struct(">I8sB")
_WATERMARK = struct.Struct(">QI")

DROPS_PER_WRITE = 32
"""Dropped records are deleted from the store in groups: one HDEL for 32 costs as much as one for 1."""
MOST_FORGOTTEN = 512
"""Records that are deleted in one go: a longer call would hold up the store."""


def outcome_field(session: int, counter: int, tag: bytes = b"") -> bytes:
    """Name of a record in its partition's hash; `tag` is that of its class (mesh.core.lanes)."""
    return tag + OUTCOME_PREFIX + _ID.pack(session, counter)


def watermark_field(session: int, tag: bytes = b"") -> bytes:
    """Name of a session's watermark in a partition's hash."""
    return tag + WATERMARK_PREFIX + session.to_bytes(8, "big")


class Session:
    """What a partition's tenure knows of one client session.

    Attributes:
        watermark: ids below it were settled or given up.
        records: outcomes of committed calls, by counter.
        running: calls whose commit is not acknowledged yet, by counter; copies attach to them.
        dropped: counters whose records are to be deleted with a later commit.
        heard: when something of it was last written, Unix seconds.
        marked: its watermark is in the store.
    """

    __slots__ = (
        "_prefix",
        "_retention",
        "_tag",
        "dropped",
        "heard",
        "marked",
        "number",
        "records",
        "running",
        "watermark",
    )

    def __init__(self, number: int, retention: Retention, tag: bytes = b"") -> None:
        self._retention = retention
        self._tag = tag
        self._prefix = tag + OUTCOME_PREFIX
        self.number = number
        self.watermark = 0
        self.records: dict[int, Outcome] = {}
        self.running: dict[int, Running] = {}
        self.dropped: list[int] = []
        self.heard = 0
        self.marked = False

    def check(self, counter: int, digest: bytes) -> tuple[Seen, Outcome | None]:
        """See Records."""
        outcome = self.records.get(counter)
        if outcome is not None:
            if outcome.digest != digest:
                return Seen.CONFLICT, None
            return Seen.RECORDED, outcome
        running = self.running.get(counter)
        if running is not None:
            return (Seen.RUNNING if running.digest == digest else Seen.CONFLICT), None
        if counter < self.watermark:
            return Seen.FORGOTTEN, None
        return NEW

    def settle_below(self, lowest: int) -> None:
        """The session says that nothing below `lowest` will be asked for again."""
        if lowest <= self.watermark:
            return
        self.watermark = lowest
        records = self.records
        # Counters ascend as records are made, nearly: one that stands behind a later one waits with it.
        for counter in list(takewhile(lowest.__gt__, records)):
            del records[counter]
            self.dropped.append(counter)

    def write(self, counter: int, outcome: Outcome) -> tuple[dict[bytes, bytes], list[bytes]]:
        """See Records."""
        self.heard = now = self._retention.now
        fields: dict[bytes, bytes] = {}
        deleted: list[bytes] = []
        if len(self.dropped) >= DROPS_PER_WRITE:
            fields, deleted = self.due_drops()
        digest, status, payload = outcome
        fields[self._prefix + _ID.pack(self.number, counter)] = (
            _RECORD.pack(now, digest, status) + payload
        )
        return fields, deleted

    def start(self, counter: int, running: Running) -> None:
        """See Records."""
        self.running[counter] = running

    def attached(self, counter: int) -> Running:
        """See Records."""
        return self.running[counter]

    def finish(self, counter: int, outcome: Outcome) -> None:
        """See Records."""
        self.running.pop(counter, None)
        if counter >= self.watermark:
            self.records[counter] = outcome
        else:
            self.dropped.append(counter)

    def abandon(self, counter: int) -> None:
        """See Records."""
        self.running.pop(counter, None)

    def due_drops(self, at_least: int = DROPS_PER_WRITE) -> tuple[dict[bytes, bytes], list[bytes]]:
        """Fields to write (the watermark) and to delete (records below it) with the next commit.

        Empty until `at_least` records are due, and never very many. The watermark goes with the drop in
        one write: a copy that arrives at a later owner must find the one or the other.
        """
        if len(self.dropped) < at_least:
            return {}, []
        deleted = [self._name(counter) for counter in self.dropped[:MOST_FORGOTTEN]]
        del self.dropped[:MOST_FORGOTTEN]
        self.marked = True
        mark = _WATERMARK.pack(self.watermark, self._retention.now)
        return {watermark_field(self.number, self._tag): mark}, deleted

    def _name(self, counter: int) -> bytes:
        return outcome_field(self.number, counter, self._tag)

    @property
    def is_empty(self) -> bool:
        """Nothing of it is under way or in the store."""
        return not (self.records or self.running or self.dropped or self.marked)

    @property
    def is_silent(self) -> bool:
        """Nothing of it is under way, and the time that its records are kept is over."""
        return not self.running and self._retention.is_over(self.heard)

    def forget(self, most: int) -> list[bytes]:
        """Give up to `most` records up, the watermark last of all; their names, to be deleted."""
        names = [self._name(counter) for counter in self.dropped[:most]]
        del self.dropped[:most]
        for counter in list(self.records)[: most - len(names)]:
            del self.records[counter]
            names.append(self._name(counter))
        if self.marked and len(names) < most:
            self.marked = False
            names.append(watermark_field(self.number, self._tag))
        return names


class SessionLog:
    """The outcome records of one class in one partition's tenure.

    Args:
        retention: how long they are kept.
        tag: what all their names begin with.

    Attributes:
        callers: those under callers' keys.
    """

    __slots__ = ("_retention", "_sessions", "callers", "tag")

    def __init__(self, retention: Retention | None = None, tag: bytes = b"") -> None:
        self.tag = tag
        self._retention = retention or Retention()
        self._sessions: dict[int, Session] = {}
        self.callers = CallerKeys(self._retention)

    def session(self, number: int) -> Session:
        """What is known of that session; nothing, of one that was never heard of."""
        known = self._sessions.get(number)
        if known is None:
            known = self._sessions[number] = Session(number, self._retention, self.tag)
        return known

    def numbers(self) -> Iterable[int]:
        """Of the sessions that something is known of."""
        return self._sessions.keys()

    def adopt(self, name: bytes, blob: bytes) -> None:
        """Take in a stored field; what memory knows already is newer and stays.

        Raises:
            ValueError: it is no record.
        """
        tagged, name = name, name[len(self.tag) :]
        if name.startswith(CALLER_PREFIX):
            self.callers.adopt(tagged, blob, len(self.tag))
            return
        try:
            if name.startswith(WATERMARK_PREFIX):
                self._adopt_watermark(int.from_bytes(name[1:], "big"), *_WATERMARK.unpack(blob))
            else:
                number, counter = _ID.unpack(name[1:])
                self._adopt_record(number, counter, blob)
        except struct.error as error:
            raise ValueError(
                f"not an outcome record: {name!r:.80} with {len(blob)} bytes, {error}"
            ) from None

    def _adopt_watermark(self, number: int, watermark: int, written: int) -> None:
        known = self.session(number)
        known.marked = True
        known.heard = max(known.heard, min(written, self._retention.now))
        known.watermark = max(known.watermark, watermark)

    def _adopt_record(self, number: int, counter: int, blob: bytes) -> None:
        written, digest, status = _RECORD.unpack_from(blob)
        known = self.session(number)
        known.heard = max(known.heard, min(written, self._retention.now))
        if counter in known.records or counter in known.running:
            return
        if counter < known.watermark:
            known.dropped.append(counter)
        else:
            known.records[counter] = Outcome(digest, status, blob[_RECORD.size :])

    def end(self, number: int) -> list[bytes]:
        """The client is gone and left nothing under way: names to be deleted, as many as go at once."""
        session = self._sessions.get(number)
        if session is None or session.running:
            return []
        session.heard = 0  # what does not go now goes with the silent ones
        return self._forget(session, MOST_FORGOTTEN)

    def expire(self, number: int) -> list[bytes]:
        """Names to be deleted of that session, if it fell silent; one of which nothing is left is dropped."""
        session = self._sessions.get(number)
        if session is None or not (session.is_empty or session.is_silent):
            return []
        return self._forget(session, MOST_FORGOTTEN)

    def _forget(self, session: Session, most: int) -> list[bytes]:
        names = session.forget(most)
        if session.is_empty:
            del self._sessions[session.number]
        return names

    def count(self) -> int:
        """Number of records held."""
        return sum(len(s.records) for s in self._sessions.values())
