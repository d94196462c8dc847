"""Which processes there are: at hand, on record, given up, or proven dead, once and for all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mesh.core.members import Member
from mesh.core.messages import Register
from mesh.core.signals import ProcessExited
from mesh.core.table import HandlerRow

MOST_REVOKED = 256
"""Processes that lost their grant unproven, of which a later leader is told; the last ones."""


class Membership:
    """Everybody, as one leader knows them.

    Attributes:
        exits: deaths that were proven, by nonce. Whoever is dead stays dead.
        revoked: who has lost its grant without a proof of its death, and may live.
        unheard: who died before it had registered.
    """

    def __init__(self) -> None:
        self.exits: dict[bytes, ProcessExited] = {}
        self.revoked: dict[bytes, None] = {}
        self.unheard: set[bytes] = set()
        self._members: dict[bytes, Member] = {}

    def __repr__(self) -> str:
        return f"Membership({len(self._members)} members, {len(self.revoked)} revoked)"

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, nonce: bytes) -> Member:
        return self._members[nonce]

    def get(self, nonce: bytes) -> Member | None:
        """That process, if it is a member."""
        return self._members.get(nonce)

    def add(self, member: Member) -> None:
        """It takes part from now on."""
        self._members[member.row.nonce] = member

    def revoke(self, nonces: Iterable[bytes]) -> None:
        """They lose their grants, and may live."""
        self.revoked.update(dict.fromkeys(nonces))
        while len(self.revoked) > MOST_REVOKED:
            del self.revoked[next(iter(self.revoked))]

    def remove(self, nonce: bytes) -> None:
        """It has no grant: any more, or yet."""
        del self._members[nonce]

    def prove(self, event: ProcessExited) -> bool:
        """It is dead; whether that is news, of one that was not given up before."""
        self.exits[event.nonce] = event
        if event.nonce not in self.revoked:
            return True
        del self.revoked[event.nonce]
        return False

    def had_not_been_heard(self, nonce: bytes) -> bool:
        """Its death was proven before it registered; true once."""
        was_unheard = nonce in self.unheard
        self.unheard.discard(nonce)
        return was_unheard

    def is_proven(self, nonce: bytes) -> bool:
        """It is known to execute nothing any more."""
        return nonce in self.exits

    # --------------------------------------------------------------- groups

    def at_hand(self) -> list[Member]:
        """Who may be given something: alive, and in contact with this leader."""
        return [m for m in self._members.values() if m.gone_at is None and m.contacted]

    def on_record(self) -> list[Member]:
        """Who has a grant, and has not shown itself to this leader yet."""
        return [m for m in self._members.values() if m.gone_at is None and not m.contacted]

    def gone(self) -> list[Member]:
        """Whose partitions have to move."""
        return [m for m in self._members.values() if m.gone_at is not None]

    def ids(self) -> set[str]:
        """Handlers of which a process lives, for all that is known."""
        return {m.row.id for m in self._members.values() if m.gone_at is None}


def joiner(r: Register, now: float) -> Member:
    """A process that was never heard of before."""
    row = HandlerRow(r.id, r.nonce, r.host, r.port, r.region, r.zone)
    return Member(row, r.pid, r.warden, r.weight, now)


def contact(member: Member, r: Register) -> None:
    """It has shown itself, be it after a broken connection or for the first time to this leader."""
    if not member.contacted:
        member.row = HandlerRow(r.id, r.nonce, r.host, r.port, r.region, r.zone)
        member.pid, member.warden, member.weight = r.pid, r.warden, r.weight
        member.contacted = True
    member.connected = True
    # Given up, and nothing was done upon it: it is there. Whoever judged it says it again if it holds.
    member.gone_at, member.cause = None, ""
