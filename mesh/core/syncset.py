"""When is a write replicated? When *every member* of the in-sync set has it.

WAIT counts links, not members: a second link that announces a member's port counts, and so does a
replica that is no member at all (counterexamples F2; redisson#6518 and valkey#743 are the same in the
wild). So an acknowledgement is judged by two ROLE replies around the WAIT: each member of the set that the
commit itself returned, and every other link that could be promoted, shows in the second an offset at or
past the primary's in the first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import msgpack

Durability = Literal["replicated", "fsynced", "process"]


@dataclass(frozen=True, slots=True)
class InSyncSet:
    """Who must have a write before it counts; recorded in the store, versioned.

    Attributes:
        version: grows by one with each change.
        members: "host:port" of each member, as the primary's ROLE lists it.
        no_candidates: links that Sentinel will never promote (priority 0); they need not confirm.
        durability: what an acknowledgement stands for. "replicated": every member has it.
            "fsynced": a store without replicas has it on disk (WAITAOF). "process": the store's
            process has it in memory, on the user's explicit word.
    """

    version: int
    members: frozenset[str]
    no_candidates: frozenset[str] = frozenset()
    durability: Durability = "replicated"

    def asks_less_than(self, earlier: InSyncSet) -> bool:
        """Whether a write needs fewer nodes than under `earlier`: a member is missing, or a node newly
        marked as no candidate. What that rests on has to be recent when it is recorded.
        """
        return bool(earlier.members - self.members or self.no_candidates - earlier.no_candidates)

    def encode(self) -> bytes:
        """The record's bytes in the store."""
        blob: bytes = msgpack.packb(
            [self.version, sorted(self.members), sorted(self.no_candidates), self.durability]
        )
        return blob

    @classmethod
    def decode(cls, blob: bytes) -> InSyncSet:
        """Read a record's bytes."""
        version, members, no_candidates, durability = msgpack.unpackb(blob)
        return cls(version, frozenset(members), frozenset(no_candidates), durability)


class Role(NamedTuple):
    """A primary's ROLE reply: its replication offset, and each link's name with what it confirmed."""

    offset: int
    links: tuple[tuple[str, int], ...]

    @classmethod
    def from_reply(cls, reply: list[object]) -> Role | None:
        """Parse ROLE; None when the node is not a primary."""
        if not reply or reply[0] != b"master":
            return None
        _, offset, links = reply[:3]
        assert isinstance(offset, int) and isinstance(links, list)
        return cls(offset, tuple([(_name(host, port), int(seen)) for host, port, seen in links]))


@lru_cache(maxsize=256)
def _name(host: bytes, port: bytes) -> str:
    return f"{host.decode()}:{port.decode()}"


def must_confirm(current: InSyncSet, links: Iterable[str]) -> frozenset[str]:
    """Names that have to confirm a write: the members, and each attached link that may be promoted."""
    return current.members | (frozenset(links) - current.no_candidates)


def links_to_wait_for(current: InSyncSet, last: Role | None) -> int:
    """The n of WAIT.

    Counts links, since WAIT does: waiting for fewer than are attached returns at the first
    confirmation, and the ROLE behind it then finds the others short every time (schedule R4).
    """
    if last is None:
        return len(current.members)
    names = [name for name, _ in last.links]
    required = must_confirm(current, names)
    return max(len(required), sum([name in required for name in names]))


def is_acknowledged(
    current: InSyncSet, before: Role | None, after: Role | None, *, fsynced: bool = False
) -> bool:
    """Whether all that was written before the first ROLE is on every node that must have it.

    `fsynced` is WAITAOF's word that the primary's own disk has it; only the durability "fsynced"
    asks for it. A name listed twice counts by its lowest offset: one of the two links may be a half-open
    leftover, and which one cannot be told.
    """
    if before is None or after is None:
        return False
    members = current.members
    if not members and current.durability == "replicated":
        return False
    if not fsynced and current.durability == "fsynced":
        return False
    needed = before.offset
    attached = set()
    for name, offset in after.links:
        if offset < needed and (name in members or name not in current.no_candidates):
            return False
        attached.add(name)
    return members <= attached
