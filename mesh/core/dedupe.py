"""Exactly one effect: which request ids a partition has already answered.

RIFL's scheme (Lee et al., SOSP '15): each request carries its session's lowest unsettled counter. Records
below it can never be asked for again and are dropped; an id below it is refused. The watermark itself is
stored with the drop, since a delayed copy may reach an owner that never saw the later request.
"""

from __future__ import annotations

import enum
import struct
from itertools import takewhile
from typing import NamedTuple, Protocol

OUTCOME_PREFIX = b"o"
WATERMARK_PREFIX = b"w"
_ID = struct.Struct(">QQ")
_RECORD = struct.Struct(">8sB")

DROPS_PER_WRITE = 32
"""Dropped records are deleted from the store in groups: one HDEL for 32 costs as much as one for 1."""


class Outcome(NamedTuple):
    """The recorded reply: digest of the arguments, status, payload."""

    digest: bytes
    status: int
    payload: bytes

    def encode(self) -> bytes:
        """Bytes of the record in the store."""
        return _RECORD.pack(self.digest, self.status) + self.payload

    @classmethod
    def decode(cls, blob: bytes) -> Outcome:
        """Read a record.

        Raises:
            ValueError: it is none.
        """
        if len(blob) < _RECORD.size:
            raise ValueError(f"not an outcome record: {blob!r}")
        digest, status = _RECORD.unpack_from(blob)
        return cls(digest, status, blob[_RECORD.size :])


def outcome_field(session: int, counter: int) -> bytes:
    """Name of a record in its partition's hash."""
    return OUTCOME_PREFIX + _ID.pack(session, counter)


def watermark_field(session: int) -> bytes:
    """Name of a session's watermark in a partition's hash."""
    return WATERMARK_PREFIX + session.to_bytes(8, "big")


class Seen(enum.Enum):
    """What a partition knows of a request id."""

    NEW = 1
    RUNNING = 2
    RECORDED = 3
    FORGOTTEN = 4
    """Below the watermark: it was settled, or given up; it must not run."""
    CONFLICT = 5
    """Recorded or running, with other arguments."""


class Running(Protocol):
    """A call that was taken up and is not committed yet; its outcome is known all the same."""

    outcome: Outcome


_NEW: tuple[Seen, None] = (Seen.NEW, None)


class Session:
    """What a partition's tenure knows of one client session.

    Attributes:
        watermark: ids below it were settled or given up.
        records: outcomes of committed calls, by counter.
        running: calls whose commit is not acknowledged yet, by counter; copies attach to them.
        dropped: counters whose records are to be deleted with a later commit.
    """

    __slots__ = ("dropped", "number", "records", "running", "watermark")

    def __init__(self, number: int) -> None:
        self.number = number
        self.watermark = 0
        self.records: dict[int, Outcome] = {}
        self.running: dict[int, Running] = {}
        self.dropped: list[int] = []

    def check(self, counter: int, digest: bytes) -> tuple[Seen, Outcome | None]:
        """What is known of the id; with RECORDED comes its outcome."""
        outcome = self.records.get(counter)
        if outcome is not None:
            if outcome.digest != digest:
                return Seen.CONFLICT, None
            return Seen.RECORDED, outcome
        running = self.running.get(counter)
        if running is not None:
            return (Seen.RUNNING if running.outcome.digest == digest else Seen.CONFLICT), None
        if counter < self.watermark:
            return Seen.FORGOTTEN, None
        return _NEW

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

    def start(self, counter: int, running: Running) -> None:
        """The request was taken up; its copies attach to it from now on."""
        self.running[counter] = running

    def finish(self, counter: int, outcome: Outcome) -> None:
        """Its commit is acknowledged: copies get this outcome from now on."""
        self.running.pop(counter, None)
        if counter >= self.watermark:
            self.records[counter] = outcome
        else:
            self.dropped.append(counter)

    def abandon(self, counter: int) -> None:
        """It was taken up but nothing of it was or will be written."""
        self.running.pop(counter, None)

    def due_drops(self, at_least: int = DROPS_PER_WRITE) -> tuple[dict[bytes, bytes], list[bytes]]:
        """Fields to write (the watermark) and to delete (records below it) with the next commit.

        Empty until `at_least` records are due. The watermark goes with the drop in one write:
        a copy that arrives at a later owner must find the one or the other.
        """
        if len(self.dropped) < at_least:
            return {}, []
        deleted = [outcome_field(self.number, counter) for counter in self.dropped]
        self.dropped = []
        return {watermark_field(self.number): self.watermark.to_bytes(8, "big")}, deleted


class SessionLog:
    """The outcome records of one partition's tenure."""

    __slots__ = ("_sessions",)

    def __init__(self) -> None:
        self._sessions: dict[int, Session] = {}

    def session(self, number: int) -> Session:
        """What is known of that session; nothing, of one that was never heard of."""
        known = self._sessions.get(number)
        if known is None:
            known = self._sessions[number] = Session(number)
        return known

    def adopt(self, name: bytes, blob: bytes) -> None:
        """Take in a stored field; what memory knows already is newer and stays.

        Raises:
            ValueError: it is no record.
        """
        if name.startswith(WATERMARK_PREFIX):
            known = self.session(int.from_bytes(name[1:], "big"))
            known.watermark = max(known.watermark, int.from_bytes(blob, "big"))
            return
        if len(name) != 1 + _ID.size:
            raise ValueError(f"not the name of an outcome record: {name!r:.80}")
        number, counter = _ID.unpack_from(name, 1)
        known = self.session(number)
        if counter in known.records or counter in known.running:
            return
        if counter < known.watermark:
            known.dropped.append(counter)
        else:
            known.records[counter] = Outcome.decode(blob)

    def count(self) -> int:
        """Number of records held."""
        return sum(len(s.records) for s in self._sessions.values())
