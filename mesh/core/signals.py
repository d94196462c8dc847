"""What a supervisor's brain hears and orders: events in, effects out. Plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """A warden has the proof that it executes nothing any more, since `at`; its sockets may still be open.

    `cause` is "hang" where it was killed for that.
    """

    nonce: bytes
    handler: str
    at: float
    cause: str = "exit"


@dataclass(frozen=True, slots=True)
class Unproven:
    """A process is to be taken over without a proof of its death; `cause` is "hang", "unreachable" or "gray".

    Said again while it holds: nothing is done upon it while the store is away, and a process that registers
    before anything was done is taken at its word.
    """

    nonce: bytes
    cause: str


@dataclass(frozen=True, slots=True)
class Weigh:
    """A process is to hold a share by that weight from now on; `why` is "gray", "starved" or "well"."""

    nonce: bytes
    weight: float
    why: str = ""


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
class RenewalsRead:
    """The renewal numbers that were asked for; None: the life is not open where they were asked for."""

    numbers: Mapping[bytes, int] | None


@dataclass(frozen=True, slots=True)
class StoreAway:
    """The renewal numbers could not be had: the store does not answer."""


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
    | Unproven
    | Weigh
    | GrantAdopted
    | PartitionsReleased
    | PartitionsDropped
    | StoreReplied
    | RenewalsRead
    | StoreAway
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
class ReadRenewals:
    """Read the renewal numbers of these grants; answer with RenewalsRead, or StoreAway."""

    nonces: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Deposed:
    """Another leader has the store's ear: this one does nothing any more."""


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
    | ReadRenewals
    | Deposed
    | TellGrant
    | AskRelease
    | PublishTable
    | TellTable
    | AwaitPublished
    | StartHandler
    | Record
)
