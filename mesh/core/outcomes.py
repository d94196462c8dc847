"""What is known of a call that arrives: new, running, recorded, or not to be run any more.

The calls of a client session (mesh.core.dedupe) and those with a key that the caller gave
(mesh.core.callerkeys) are told apart here and nowhere else: a run only needs some Records.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, Protocol


class Outcome(NamedTuple):
    """The recorded reply: digest of what was called, status, payload."""

    digest: bytes
    status: int
    payload: bytes


class Seen(enum.Enum):
    """What a partition knows of a call."""

    NEW = 1
    RUNNING = 2
    RECORDED = 3
    FORGOTTEN = 4
    """Below the watermark: it was settled, or given up; it must not run."""
    CONFLICT = 5
    """Recorded or running, with other arguments."""


class Running(Protocol):
    """A call that was taken up and is not committed yet."""

    @property
    def digest(self) -> bytes:
        """Of what is called."""
        ...


class Records(Protocol):
    """Where one call's outcome is looked for and kept; `counter` is the call's number in its session."""

    def check(self, counter: int, digest: bytes) -> tuple[Seen, Outcome | None]:
        """What is known of the call; with RECORDED comes its outcome."""
        ...

    def write(self, counter: int, outcome: Outcome) -> tuple[dict[bytes, bytes], list[bytes]]:
        """The record as fields of the partition's hash, and names that may be deleted along with it."""
        ...

    def start(self, counter: int, running: Running) -> None:
        """The call was taken up; its copies attach to it from now on."""
        ...

    def attached(self, counter: int) -> Running:
        """The call under way that a copy of it attaches to."""
        ...

    def finish(self, counter: int, outcome: Outcome) -> None:
        """Its commit is acknowledged: copies get this outcome from now on."""
        ...

    def abandon(self, counter: int) -> None:
        """It was taken up but nothing of it was or will be written."""
        ...


NEW: tuple[Seen, None] = (Seen.NEW, None)
