"""All that one leader has in hand, in one life: what its parts work on together."""

from __future__ import annotations

from mesh.core.handovers import Handovers
from mesh.core.members import Member, SupervisionConfig
from mesh.core.membership import Membership
from mesh.core.readings import Readings
from mesh.core.replacements import Replacements
from mesh.core.signals import Effect
from mesh.core.table import Table
from mesh.core.takeovers import Takeovers
from mesh.core.telling import Telling
from mesh.core.waits import Waits


class Affairs:
    """Of one leader.

    Args:
        config: what should run.
        partitions: of the mesh.
        life: number of the life that this leader leads in.
        token: this leader's.
        table: who owns what, as it is on record.
        is_first: an `up` begins with it; see mesh.core.learned.

    Attributes:
        waits_for_all: nothing is placed before every handler that should run is there.
    """

    def __init__(
        self,
        config: SupervisionConfig,
        partitions: int,
        life: int,
        token: int,
        table: Table | None,
        *,
        is_first: bool,
    ) -> None:
        self.config = config
        self.partitions = partitions
        self.life = life
        self.token = token
        self.table = table
        self.is_first = is_first
        self.waits_for_all = is_first or table is None
        self.members = Membership()
        self.waits = Waits(config.lease)
        self.telling = Telling(token, life, self.waits)
        self.takeovers = Takeovers(life, token, self._has_adopted)
        self.handovers = Handovers()
        self.replacements = Replacements(config)
        self.readings = Readings(config.lease)

    def __repr__(self) -> str:
        return f"Affairs({self.members!r}, {self.waits!r}, {self.takeovers!r})"

    def tell(self, member: Member) -> list[Effect]:
        """Say to a process what its grant holds; nothing to one that is gone, or not in contact."""
        if self.table is None or member.gone_at is not None or not member.contacted:
            return []
        return [self.telling.grant(member, self.table)]

    def tell_owners(self, partitions: list[int]) -> list[Effect]:
        """They wait for nobody any more: their owners may serve them."""
        if not partitions or self.table is None:
            return []
        tells: list[Effect] = []
        for nonce in sorted({self.table.owner(p).handler.nonce for p in partitions}):
            if member := self.members.get(nonce):
                member.adopted = min(member.adopted, member.version - 1)
                tells += self.tell(member)
        return tells

    def give_up(self, member: Member, cause: str, now: float) -> None:
        """Its partitions are to move, and another process is to be started in its place."""
        member.gone_at, member.cause = now, cause
        if member.first_sign is None:
            member.first_sign = now
        if member.contacted or not self.is_first:
            self.replacements.schedule(member.row.id, now, died=True)

    def _has_adopted(self, nonce: bytes, version: int) -> bool:
        """Whether there is nothing to wait for: it has taken up all of it, or it is gone."""
        member = self.members.get(nonce)
        if member is None or member.gone_at is not None:
            return True
        assert self.table is not None
        return member.adopted >= version and not self.waits.among(self.table.partitions_of(nonce))
