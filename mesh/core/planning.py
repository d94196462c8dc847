"""Everything that is due, put into one store call."""

from __future__ import annotations

from mesh.core.affairs import Affairs
from mesh.core.learned import encode_plans
from mesh.core.members import Failover, Member
from mesh.core.moving import NO_MOVES, due_moves, even_shares, first_table
from mesh.core.records import Moves, Takeover
from mesh.core.signals import CallStore, Effect
from mesh.core.table import Table, TableVersion
from mesh.core.takeovers import Operation


class Planning:
    """One leader's.

    Args:
        affairs: of the leader.
    """

    def __init__(self, affairs: Affairs) -> None:
        self._affairs = affairs

    def __repr__(self) -> str:
        return f"Planning({self._affairs.takeovers!r})"

    def plan(self, now: float) -> list[Effect]:
        """The next call, if something is due and none is under way."""
        a = self._affairs
        if a.takeovers.current is not None:
            return []
        alive = a.members.at_hand()
        if not alive or self._is_too_early(alive):
            return []
        joining = [m for m in alive if not m.enrolled]
        if a.table is None:
            version = TableVersion(a.life, a.token, 1)
            table, moves = first_table(version, a.partitions, alive)
            return [self._call(table, alive, [], moves, {}, now)]
        gone = a.members.gone()
        moves = NO_MOVES
        if gone or a.handovers.released or a.handovers.missing:
            moves = due_moves(a.table, a.life, alive, gone, a.handovers)
        asks = {} if moves else self._even_out(alive, now)
        if not (moves or gone or joining or asks):
            return []
        version = TableVersion(a.life, a.token, a.table.version.number + 1)
        rows = [m.row for m in a.members if m.gone_at is None and self._is_listed(m)]
        table = a.table.changed(version, rows, moves)
        return [self._call(table, joining, gone, moves, asks, now)]

    def _is_too_early(self, alive: list[Member]) -> bool:
        """At first everything is placed in one call, over all that should be there, once the leases of an
        earlier up are out.
        """
        a = self._affairs
        if a.waits_for_all:
            missing = set(a.config.handlers) - {m.row.id for m in alive}
            a.waits_for_all = bool(missing or a.members.on_record())
        return a.waits_for_all

    def _is_listed(self, member: Member) -> bool:
        """Who is on record with nothing, and has not come, has no address."""
        table = self._affairs.table
        return member.contacted or (table is not None and table.row(member.row.nonce) is not None)

    def _even_out(self, alive: list[Member], now: float) -> dict[bytes, list[tuple[int, int]]]:
        """Plan moves that make the shares follow the weights; only while nothing else is going on."""
        a = self._affairs
        assert a.table is not None
        if a.handovers.intents or a.waits or len(alive) < len(a.members):
            return {}
        return a.handovers.plan(even_shares(a.table, alive), a.table, alive, now)

    def _call(
        self,
        table: Table,
        joining: list[Member],
        gone: list[Member],
        moves: Moves,
        asks: dict[bytes, list[tuple[int, int]]],
        now: float,
    ) -> Effect:
        a, before = self._affairs, self._affairs.table
        revoked = [m.row.nonce for m in gone if m.enrolled]
        for nonce in revoked:
            if before is not None and not a.members.is_proven(nonce):
                a.waits.begin(nonce, before.partitions_of(nonce))
                a.members.revoke((nonce,))
        call = Takeover(
            a.takeovers.next_name(),
            a.life,
            a.token,
            tuple((m.row.nonce, m.row.id) for m in joining),
            tuple(revoked),
            moves,
            table.encode(),
            encode_plans(a.handovers.intents, a.waits.encode(), a.members.revoked),
        )
        failovers = [
            Failover(
                m,
                len(before.partitions_of(m.row.nonce)) if before is not None else 0,
                m.first_sign if m.first_sign is not None else now,
                m.gone_at if m.gone_at is not None else now,
                now,
                is_news=m.contacted or not a.is_first,
            )
            for m in gone
        ]
        moved = (*moves.receivers, *filter(None, moves.givers))
        changed = dict.fromkeys((*moved, *(m.row.nonce for m in joining)))
        a.takeovers.current = Operation(call, table, changed, failovers, asks)
        return CallStore(call)
