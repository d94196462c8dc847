"""Exactly one effect: which request ids a partition has already answered.

RIFL's scheme (Lee et al., SOSP '15): each request carries its session's lowest unsettled counter. Records
below it can never be asked for again and are dropped; an id below it is refused. The watermark itself is
stored with the drop, since a delayed copy may reach an owner that never saw the later request.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, field
from typing import NamedTuple

OUTCOME_PREFIX = b"o"
WATERMARK_PREFIX = b"w"
_ID = struct.Struct(">QQ")
_RECORD = struct.Struct(">8sB")

DROPS_PER_WRITE = 32
"""Dropped records are deleted from the store in groups: one HDEL for 32 costs as much as one for 1."""


class RequestId(NamedTuple):
    """Names one call of one client for good."""

    session: int
    counter: int


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


@dataclass(slots=True)
class _Session:
    watermark: int = 0
    records: dict[int, Outcome] = field(default_factory=dict)
    running: dict[int, bytes] = field(default_factory=dict)
    dropped: list[int] = field(default_factory=list)


class SessionLog:
    """The outcome records of one partition's tenure."""

    __slots__ = ("_sessions",)

    def __init__(self) -> None:
        self._sessions: dict[int, _Session] = {}

    def check(self, session: int, counter: int, digest: bytes) -> tuple[Seen, Outcome | None]:
        """What is known of the id; with RECORDED comes its outcome."""
        known = self._sessions.get(session)
        if known is None:
            return Seen.NEW, None
        outcome = known.records.get(counter)
        if outcome is not None:
            if outcome.digest != digest:
                return Seen.CONFLICT, None
            return Seen.RECORDED, outcome
        running = known.running.get(counter)
        if running is not None:
            return (Seen.RUNNING if running == digest else Seen.CONFLICT), None
        if counter < known.watermark:
            return Seen.FORGOTTEN, None
        return Seen.NEW, None

    def settle_below(self, session: int, lowest: int) -> None:
        """The session says that nothing below `lowest` will be asked for again."""
        known = self._sessions.get(session)
        if known is None:
            known = self._sessions[session] = _Session()
        if lowest <= known.watermark:
            return
        known.watermark = lowest
        # Counters ascend as records are made, nearly: those at the front are the ones to drop.
        for counter in [c for c in known.records if c < lowest]:
            del known.records[counter]
            known.dropped.append(counter)

    def start(self, session: int, counter: int, digest: bytes) -> None:
        """The request was taken up; its copies attach to it from now on."""
        self._sessions.setdefault(session, _Session()).running[counter] = digest

    def finish(self, session: int, counter: int, outcome: Outcome) -> None:
        """Its commit is acknowledged: copies get this outcome from now on."""
        known = self._sessions.setdefault(session, _Session())
        known.running.pop(counter, None)
        if counter >= known.watermark:
            known.records[counter] = outcome
        else:
            known.dropped.append(counter)

    def abandon(self, session: int, counter: int) -> None:
        """It was taken up but nothing of it was or will be written."""
        known = self._sessions.get(session)
        if known is not None:
            known.running.pop(counter, None)

    def adopt(self, name: bytes, blob: bytes) -> None:
        """Take in a stored field; what memory knows already is newer and stays.

        Raises:
            ValueError: it is no record.
        """
        if name.startswith(WATERMARK_PREFIX):
            known = self._sessions.setdefault(int.from_bytes(name[1:], "big"), _Session())
            stored = int.from_bytes(blob, "big")
            known.watermark = max(known.watermark, stored)
            return
        if len(name) != 1 + _ID.size:
            raise ValueError(f"not the name of an outcome record: {name!r:.80}")
        session, counter = _ID.unpack_from(name, 1)
        known = self._sessions.setdefault(session, _Session())
        if counter in known.records or counter in known.running:
            return
        if counter < known.watermark:
            known.dropped.append(counter)
        else:
            known.records[counter] = Outcome.decode(blob)

    def due_drops(
        self, session: int, at_least: int = DROPS_PER_WRITE
    ) -> tuple[dict[bytes, bytes], list[bytes]]:
        """Fields to write (the watermark) and to delete (records below it) with the next commit.

        Empty until `at_least` records are due. The watermark goes with the drop in one write:
        a copy that arrives at a later owner must find the one or the other.
        """
        known = self._sessions.get(session)
        if known is None or len(known.dropped) < at_least or not known.dropped:
            return {}, []
        deleted = [outcome_field(session, counter) for counter in known.dropped]
        known.dropped = []
        return {watermark_field(session): known.watermark.to_bytes(8, "big")}, deleted

    def count(self) -> int:
        """Number of records held."""
        return sum(len(s.records) for s in self._sessions.values())
