"""What is asked of the store and what it answers, as plain values.

The pure cores make and read these; `mesh.store.api` says what a store has to do with them.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mesh.core.syncset import InSyncSet


class StoreStatus(enum.Enum):
    """The whole call's verdict; anything but OK means that this call wrote nothing."""

    OK = "ok"
    CLOSED = "closed"
    """The life that the caller named is not this primary's: keep everything, wait for the leader."""
    OLDER = "older"
    """The store's grant is of an older version than the caller's: the store went back in time."""
    REVOKED = "revoked"
    """The caller's grant is revoked, or there is none: drop everything, register under a new nonce."""
    GAP = "gap"
    """The batch is not the next in sequence on its lane."""
    DEPOSED = "deposed"
    """Another leader's token is recorded."""
    OLD = "old"
    """What the change was decided from was asked too long ago: ask again, decide again."""
    CONFLICT = "conflict"
    """What the caller asserted does not hold; `detail` says what."""


class Verdict(enum.IntEnum):
    """One partition's share of a commit or load."""

    APPLIED = 0
    NOT_HELD = 1
    """The grant does not hold the partition at the epoch that the batch names."""
    FAILED = 2
    """The store refused the write itself (a key of another type under this name)."""


@dataclass(frozen=True, slots=True)
class GrantRef:
    """Who asks: the process's nonce, the life it believes in, the version of its grant there."""

    nonce: bytes
    life: int
    version: int


@dataclass(slots=True)
class Entry:
    """One partition's share of a batch: absolute values, so that applying it twice changes nothing."""

    partition: int
    epoch: int
    fields: dict[bytes, bytes]
    deleted: list[bytes] = field(default_factory=list)


class CommitReply(NamedTuple):
    """`acknowledged`: every node that must have the batch has it. A short count leaves it False.

    `detail`: the server's first error where a verdict is FAILED; the last seq where the status is GAP.
    `members`: of the in-sync set that it is judged by.
    """

    status: StoreStatus
    verdicts: tuple[Verdict, ...] = ()
    duplicate: bool = False
    acknowledged: bool = False
    set_version: int = 0
    detail: str = ""
    members: int = 0


@dataclass(frozen=True, slots=True)
class Want:
    """Fields of one partition's hash to read."""

    partition: int
    epoch: int
    fields: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """In place of a partition's values: it is held, and its key is no hash; `reason` as the server says."""

    reason: str


@dataclass(frozen=True, slots=True)
class LoadReply:
    """Values in the order of the wants; None for a want whose partition is not held."""

    status: StoreStatus
    values: tuple[tuple[bytes | None, ...] | Unreadable | None, ...] = ()


@dataclass(frozen=True, slots=True)
class ScanReply:
    """One page of a partition's hash; `cursor` 0 says that it was the last."""

    status: StoreStatus
    cursor: int = 0
    pairs: tuple[tuple[bytes, bytes], ...] = ()
    unreadable: Unreadable | None = None


@dataclass(frozen=True, slots=True)
class SweepReply:
    """All pairs of each partition in the order asked; None for one that has to be scanned."""

    status: StoreStatus
    pages: tuple[tuple[tuple[bytes, bytes], ...] | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Life:
    """The recorded life: who the primary is, and what an acknowledgement needs.

    Attributes:
        run_id: the primary's own; another server, or the same one restarted, has another.
        number: grows with each life, and is of this opening alone (mesh.core.life_numbers).
        token: of the leader that the store listens to.
        partitions: number of the mesh's partitions, fixed for good.
        opened_from: version of the in-sync set that this life was opened from.
        history: id of the primary's replication history; data that belongs to another may lack something.
    """

    run_id: str
    number: int
    token: int
    partitions: int
    opened_from: int
    sync_set: InSyncSet
    history: str = ""


class Move(NamedTuple):
    """A partition's way from one grant to another; from_nonce None stands for "held by nobody"."""

    partition: int
    from_nonce: bytes | None
    from_epoch: int
    to_nonce: bytes
    epoch: int


@dataclass(frozen=True, slots=True)
class Moves:
    """Moves as columns, by ascending partition: a death may move thousands, and a row of each would be made
    to be taken apart again.

    Attributes:
        givers: the `from_nonce` of each, and so on.
    """

    partitions: Sequence[int] = ()
    givers: Sequence[bytes | None] = ()
    from_epochs: Sequence[int] = ()
    receivers: Sequence[bytes] = ()
    epochs: Sequence[int] = ()

    @classmethod
    def of(cls, moves: Iterable[Move]) -> Moves:
        """From rows, in any order."""
        return cls(*zip(*sorted(moves, key=lambda move: move.partition), strict=True))

    def __len__(self) -> int:
        return len(self.partitions)

    def __iter__(self) -> Iterator[Move]:
        columns = self.partitions, self.givers, self.from_epochs, self.receivers, self.epochs
        return map(Move, *columns)


@dataclass(frozen=True, slots=True)
class Takeover:
    """The one call by which a leader changes who owns what.

    Attributes:
        operation: names the call; its repetition answers OK and changes nothing.
        enroll: (nonce, handler id) of processes that get an empty grant first.
        revoke: nonces whose grants end, for ever.
        moves: each asserts its `from` side: the grant holds the partition at that epoch.
        table: the new table's bytes, stored as given.
        intents: planned moves that a later leader has to know of, stored as given.
    """

    operation: bytes
    life: int
    token: int
    enroll: tuple[tuple[bytes, str], ...]
    revoke: tuple[bytes, ...]
    moves: Moves
    table: bytes
    intents: bytes = b""


@dataclass(frozen=True, slots=True)
class TakeoverReply:
    """`renewals`: the revoked grants' last renewal numbers. `versions`: of each grant named; after an opening
    and after a bid, of each active one.
    """

    status: StoreStatus
    acknowledged: bool = False
    renewals: dict[bytes, int] = field(default_factory=dict)
    versions: dict[bytes, int] = field(default_factory=dict)
    detail: str = ""


@dataclass(frozen=True, slots=True)
class OpenLife:
    """A leader's call that begins a life, on a primary that this leader has chosen.

    Each active grant goes on in it: rewritten to the new life, its version one higher, with the epochs and
    seqs that it had. A revoked one stays revoked.

    Attributes:
        operation: names the call; its repetition answers OK and changes nothing.
        previous: number of the life that the caller saw recorded (0: none); the store refuses when it has
            another one.
        run_id: of the server that this was decided for; any other refuses, for what is said here of who has
            everything is not said of it. "": whoever is reached.
        asked_at_us, max_age_us: as SetChange has them, where what the opening rests on can be out of date.
    """

    operation: bytes
    previous: int
    number: int
    token: int
    partitions: int
    sync_set: InSyncSet
    asked_at_us: int | None = None
    max_age_us: int = 0
    run_id: str = ""


@dataclass(frozen=True, slots=True)
class SetChange:
    """The next in-sync set, and how old its evidence may be.

    Attributes:
        sync_set: its version is one above that on record; at least one member is left.
        asked_at_us: the primary's clock, read *before* what the change rests on was asked. Whoever takes a
            member out, or a node's confirmation for unnecessary, has to name it: a leader that is paused in
            between would else write what a majority no longer sees.
        max_age_us: when the call arrives later than that, it is refused (OLD).
    """

    sync_set: InSyncSet
    asked_at_us: int | None = None
    max_age_us: int = 0


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """A leader's call that records another in-sync set; acknowledged by that one.

    Attributes:
        operation: names the call; its repetition answers OK and changes nothing.
    """

    operation: bytes
    life: int
    token: int
    change: SetChange


@dataclass(frozen=True, slots=True)
class Bid:
    """A would-be leader's call: from now on the store listens to `new_token` alone.

    Attributes:
        operation: names the call; its repetition answers OK and changes nothing.
        token: the one that the caller saw on record; of two who saw the same, one is refused.
        change: where a member is gone together with the leader, a bid could not be acknowledged without it.
    """

    operation: bytes
    life: int
    token: int
    new_token: int
    change: SetChange | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a new leader finds. `life` None: this store has never held the mesh."""

    life: Life | None
    run_id: str
    table: bytes = b""
    intents: bytes = b""
    grants: dict[bytes, str] = field(default_factory=dict)
