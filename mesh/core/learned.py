"""What a leader finds on record when it begins, in the life that is open or in one that it has just opened.

It learns before it judges. What the last leader planned and what it was waiting for are stored beside the
table, by the very call that they belong to; nobody has to remember them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from mesh.core.members import Intent, Member
from mesh.core.records import Recorded
from mesh.core.signals import ProcessExited
from mesh.core.table import HandlerRow, Table

_FORMAT = 2


@dataclass(frozen=True, slots=True)
class Learned:
    """On record, and what of it is known to be over.

    Attributes:
        table: who owns what; None before the first one.
        grants: handler id by nonce, of each active grant.
        versions: of these grants, in this life.
        plans: planned moves and unfinished waits, as `encode_plans` wrote them.
        first: an `up` begins with it: whoever brings the mesh up starts its handlers, and nothing is placed
            before all of them are there. A later leader starts what is missing.
        exited: deaths that were proven before it began; they need no wait.
    """

    table: Table | None = None
    grants: Mapping[bytes, str] = field(default_factory=dict)
    versions: Mapping[bytes, int] = field(default_factory=dict)
    plans: bytes = b""
    first: bool = False
    exited: Sequence[ProcessExited] = ()

    @classmethod
    def of(
        cls,
        recorded: Recorded,
        versions: Mapping[bytes, int],
        *,
        first: bool = False,
        exited: Sequence[ProcessExited] = (),
    ) -> Learned:
        """From what the store says, read after this leader's bid or opening was acknowledged.

        Args:
            recorded: table, plans, and grants.
            versions: of the active grants, as the reply to the bid or the opening has them.
            first: see Learned.
            exited: see Learned.

        Raises:
            ProtocolError: what is recorded as the table is none.
        """
        table = Table.decode(recorded.table) if recorded.table else None
        return cls(table, recorded.grants, versions, recorded.intents, first, exited)


@dataclass(frozen=True, slots=True)
class Plans:
    """What a leader leaves for the next one.

    Attributes:
        intents: planned moves, by partition.
        waits: nonces of processes, and the partitions that wait for them, packed.
        revoked: processes that lost their grant without a proof of their death: were one of them taken for a
            new one, its enrolment would be refused.
    """

    intents: Mapping[int, Intent] = field(default_factory=dict)
    waits: Sequence[tuple[bytes, bytes]] = ()
    revoked: Sequence[bytes] = ()


def encode_plans(
    intents: Mapping[int, Intent], waits: Iterable[Sequence[bytes]], revoked: Iterable[bytes]
) -> bytes:
    """Bytes for the store."""
    moves = [[p, i.source, i.epoch, i.target] for p, i in intents.items()]
    return msgpack.packb([_FORMAT, moves, list(waits), list(revoked)])


def decode_plans(blob: bytes) -> Plans:
    """What an earlier leader has left; nothing of an earlier release's: that waited for nobody, and what it
    had planned is planned anew.
    """
    found: list[Any] = msgpack.unpackb(blob) if blob else []
    if not found or found[0] != _FORMAT:
        return Plans()
    _, moves, waits, revoked = found
    intents = {p: Intent(source, epoch, target) for p, source, epoch, target in moves}
    return Plans(intents, [(nonce, packed) for nonce, packed in waits], revoked)


def recorded_members(table: Table, learned: Learned, now: float) -> list[Member]:
    """Who takes part as far as is on record, until it shows itself or its lease is out.

    Whoever the table names without an active grant is gone already: its partitions are nobody's.
    """
    versions = learned.versions
    active = (
        _absent(
            table.row(nonce) or HandlerRow(id_, nonce, "", 0),
            now,
            enrolled=True,
            version=versions.get(nonce, 0),
        )
        for nonce, id_ in learned.grants.items()
    )
    ended = (
        _absent(row, now, gone_at=now, cause="unreachable")
        for row in table.handlers
        if row.nonce not in learned.grants
    )
    return [*active, *ended]


def _absent(row: HandlerRow, now: float, **known: Any) -> Member:
    return Member(row, 0, "", 1.0, now, connected=False, contacted=False, **known)
