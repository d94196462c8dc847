"""What a supervisor's brain hears and orders: events in, effects out. Plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mesh.core.messages import Beat, Grant, Register, Release
from mesh.core.records import Takeover, TakeoverReply
from mesh.core.table import Table

# ------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Registered:
    """A handler process offers itself, or is back after a broken connection."""

    register: Register


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """The connection to a handler process broke: a hint, no proof."""

    nonce: bytes


@dataclass(frozen=True, slots=True)
class ProcessExited:
    """A warden has the proof that it executes nothing any more, since `at`; its sockets may still be open."""

    nonce: bytes
    handler: str
    at: float


@dataclass(frozen=True, slots=True)
class GrantAdopted:
    """A handler took up its grant of that version."""

    nonce: bytes
    version: int


@dataclass(frozen=True, slots=True)
class PartitionsReleased:
    """A handler settled and gave up partitions: pairs of (partition, epoch)."""

    nonce: bytes
    token: int
    partitions: Sequence[tuple[int, int]]
    not_held: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class PartitionsDropped:
    """A handler lost partitions without being asked for them: pairs of (partition, epoch)."""

    nonce: bytes
    partitions: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class StoreReplied:
    """The store call came back; None: unreachable, it may have been carried out."""

    operation: bytes
    reply: TakeoverReply | None


@dataclass(frozen=True, slots=True)
class Published:
    """The shell has sent what the last step asked it to send."""

    operation: bytes


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The handler process of that id could not be started."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Beaten:
    """A handler's counts."""

    beat: Beat


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passes; sent about every 50 ms."""


Event = (
    Registered
    | ConnectionLost
    | ProcessExited
    | GrantAdopted
    | PartitionsReleased
    | PartitionsDropped
    | StoreReplied
    | Published
    | StartFailed
    | Beaten
    | Tick
)

# ------------------------------------------------------------------ effects


@dataclass(frozen=True, slots=True)
class CallStore:
    """Make this call; answer with StoreReplied."""

    call: Takeover


@dataclass(frozen=True, slots=True)
class TellGrant:
    """Send a process the state of its grant."""

    nonce: bytes
    grant: Grant


@dataclass(frozen=True, slots=True)
class AskRelease:
    """Ask a process for partitions."""

    nonce: bytes
    release: Release


@dataclass(frozen=True, slots=True)
class PublishTable:
    """Send the table to every handler and client."""

    table: Table


@dataclass(frozen=True, slots=True)
class TellTable:
    """Send the table to one handler."""

    nonce: bytes
    table: Table


@dataclass(frozen=True, slots=True)
class AwaitPublished:
    """Answer with Published once everything before this effect is sent."""

    operation: bytes


@dataclass(frozen=True, slots=True)
class StartHandler:
    """Start a handler process under that id."""

    id: str


@dataclass(frozen=True, slots=True)
class Record:
    """An event for operators; the shell stamps it with the wall clock."""

    kind: str
    fields: dict[str, Any]
    ago_s: float = 0.0


Effect = (
    CallStore
    | TellGrant
    | AskRelease
    | PublishTable
    | TellTable
    | AwaitPublished
    | StartHandler
    | Record
)
