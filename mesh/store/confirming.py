"""What one connection asks for behind a call, so that it learns who has what the call wrote, and what the
replies to that say: is it acknowledged?

WAIT tells when it is worth looking, the ROLE behind it who has what (mesh.core.syncset). Nothing is sent or
received here.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mesh.core.lag import Lag
from mesh.core.records import StoreStatus
from mesh.core.syncset import InSyncSet, Role, is_acknowledged, links_to_wait_for
from mesh.specs import Durability
from mesh.store.primary import ROLE, Primary
from mesh.store.resp import pack

_UNKNOWN_SET = InSyncSet(0, frozenset())
_DISK_SHARE = 0.75
"""Of the time for a whole call, for the disks; later than that the connection would be given up."""


@dataclass(slots=True)
class Seen:
    """What this process's connections saw last. It decides how many links a WAIT waits for, never
    whether a write is acknowledged.
    """

    wait_timeout_ms: int
    role: Role | None = None
    sync_set: InSyncSet = _UNKNOWN_SET
    blob: bytes = b""
    preferred: str = ""
    """The node that was the primary when somebody looked; no word of another is waited for."""
    life: int = 0
    """Of the grant under which something was written last."""
    lag: Lag = field(default_factory=Lag)

    def found(self, primary: Primary) -> None:
        """A connection was opened."""
        self.role, self.sync_set, self.blob = primary.role, primary.sync_set or _UNKNOWN_SET, b""

    def heard(self, role: Role) -> None:
        """The primary said how far its replicas are."""
        self.role = role
        self.lag.heard(role, self.sync_set.members)

    def decoded(self, blob: bytes) -> InSyncSet:
        """The set in a reply; nearly always the same as before."""
        if blob != self.blob:
            self.sync_set, self.blob = InSyncSet.decode(blob), blob
        return self.sync_set


class Written(NamedTuple):
    """A call's reply, and whether every node that must have what it wrote has it."""

    status: StoreStatus
    reply: list[Any]
    set_version: int = 0
    acknowledged: bool = False
    members: int = 0
    """Of the in-sync set by which that is judged."""


class Asked(NamedTuple):
    """What follows a call.

    Attributes:
        links: how many have to confirm before WAIT returns; 0: none is waited for.
        fsynced: whether disks are.
        packed: the commands.
        due: the number of replies to them.
    """

    links: int
    fsynced: bool
    packed: bytes
    due: int


class Confirming:
    """One connection's.

    Args:
        seen: see there.
        durability: what an acknowledgement stands for here (mesh.core.lanes).
        call_timeout_s: for a whole call.
    """

    def __init__(self, seen: Seen, durability: Durability, call_timeout_s: float) -> None:
        self._seen = seen
        self._durability = durability
        # By default disks are synced once a second, those of the replicas, too.
        self._disks_ms = round(call_timeout_s * _DISK_SHARE * 1000)
        self._asked: dict[tuple[int, bool], Asked] = {}

    def __repr__(self) -> str:
        return f"Confirming({self._durability})"

    def ask(self, expected: InSyncSet) -> Asked:
        """What to send behind a call of which that set will probably be asked."""
        is_async = self._durability == "async"
        fsynced = not is_async and "fsynced" in (self._durability, expected.durability)
        links = 0 if is_async else links_to_wait_for(expected, self._seen.role)
        asked = self._asked.get((links, fsynced))
        if asked is None:
            asked = self._asked[links, fsynced] = self._packed(links, fsynced=fsynced)
        return asked

    def _packed(self, links: int, *, fsynced: bool) -> Asked:
        commands = [ROLE]
        if links:
            commands.append(self.wait(links))
        if fsynced:
            on_disks = links if self._durability == "fsynced" else 0
            commands.append(pack("WAITAOF", 1, on_disks, self._disks_ms))
        if links or fsynced:
            commands.append(ROLE)
        return Asked(links, fsynced, b"".join(commands), len(commands))

    def wait(self, links: int) -> bytes:
        """WAIT for so many."""
        return pack("WAIT", links, self._seen.wait_timeout_ms)

    def judge(
        self,
        reply: list[Any],
        asked: Asked,
        replies: list[Any],
        before: Role | None,
        after: Role | None,
    ) -> tuple[Written, bool]:
        """What the replies say, and whether waiting for one link more may say better.

        Args:
            reply: the call's, which carried something out.
            asked: what followed it.
            replies: to that.
            before, after: the first and the last of these; None: it is not the primary.
        """
        current = self._seen.decoded(reply[1])
        if self._durability == "async":
            if before is not None:
                self._seen.lag.wrote(before.offset, asyncio.get_running_loop().time())
                self._seen.heard(before)
            return Written(StoreStatus.OK, reply, current.version, before is not None), False
        on_disk = self.is_on_disks(asked, replies, after)
        if self._durability == "fsynced" and not on_disk:
            return Written(StoreStatus.OK, reply, current.version), False
        acknowledged = is_acknowledged(current, before, after, fsynced=on_disk)
        more = bool(
            not acknowledged
            and asked.links
            and after
            and asked.links <= count(replies[1]) < len(after.links)
        )
        members = len(current.members)
        return Written(StoreStatus.OK, reply, current.version, acknowledged, members), more

    def is_on_disks(self, asked: Asked, replies: list[Any], after: Role | None) -> bool:
        """Whether the disks have it that must: the primary's own, and for the class "fsynced" that of every
        replica that is attached, since WAITAOF counts links and does not name them.
        """
        disks = len(after.links) if after and self._durability == "fsynced" else 0
        match replies[-2] if asked.fsynced else None:
            case [int(own), int(replicas)]:
                return own >= 1 and replicas >= disks
            case _:
                return False


def count(reply: object) -> int:
    """What WAIT counted; nothing where it failed."""
    return reply if isinstance(reply, int) else 0
