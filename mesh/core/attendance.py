"""Who comes, who goes, and who says what of himself: events of processes, taken into a leader's affairs."""

from __future__ import annotations

from mesh.core.affairs import Affairs
from mesh.core.epochs import unpack_epochs
from mesh.core.members import Weighed
from mesh.core.membership import contact, joiner
from mesh.core.messages import Beat, Register
from mesh.core.signals import (
    Effect,
    PartitionsDropped,
    ProcessExited,
    Record,
    TellTable,
    Unproven,
    Weigh,
)


class Attendance:
    """One leader's.

    Args:
        affairs: of the leader.
    """

    def __init__(self, affairs: Affairs) -> None:
        self._affairs = affairs

    def __repr__(self) -> str:
        return f"Attendance({self._affairs.members!r})"

    def on_registered(self, r: Register, now: float) -> list[Effect]:
        """A process offers itself, or is back: it is told all that it may have missed."""
        a, members = self._affairs, self._affairs.members
        if members.is_proven(r.nonce):
            # The last words of a dead process, out of its socket's buffer. Its grant would be enrolled
            # anew, or be given partitions, and nobody would ever report its death again.
            if members.had_not_been_heard(r.nonce):
                a.replacements.schedule(r.id, now, died=True)
            return []
        member = members.get(r.nonce)
        if member is None:
            if r.nonce in members.revoked or (r.grant_version and a.table is not None):
                # It had a grant, which is on record no more: it drops what it has, and comes back anew.
                return [a.telling.over(r.nonce)]
            members.add(joiner(r, now))
            return [Record("handler_started", {"handler": r.id, "pid": r.pid})]
        operation = a.takeovers.current
        if operation is not None and operation.revokes(r.nonce):
            return []  # it is told so once that is acknowledged
        contact(member, r)
        if not member.enrolled or a.table is None:
            return []
        member.first_sign = None
        asks = self._compare(r, member.version)
        return [*a.tell(member), TellTable(r.nonce, a.table), *asks]

    def _compare(self, r: Register, version: int) -> list[Effect]:
        """Hold what it says that it has against what it should have; what is to be asked of it again."""
        a = self._affairs
        assert a.table is not None
        held = unpack_epochs(r.held) if len(r.held) == 4 * a.partitions else a.table.epochs
        asked: list[tuple[int, int]] = []
        # What is not on record yet is asked for once it is.
        operation = a.takeovers.current
        recording = operation.asks.get(r.nonce, ()) if operation else ()
        knows_its_grant = (r.life, r.grant_version) == (a.life, version)
        for partition in a.table.partitions_of(r.nonce):
            epoch = a.table.epochs[partition]
            intent = a.handovers.intents.get(partition)
            if partition in a.waits and held[partition] == epoch:
                # An earlier leader has told it so: that wait was over.
                a.waits.end_of(partition)
            if intent is not None and intent.source == r.nonce:
                if (partition, epoch) not in recording:
                    asked.append((partition, epoch))
            elif knows_its_grant and held[partition] != epoch and partition not in a.waits:
                # It says that it lacks what it was granted: that permits a new epoch for the same
                # owner, never a move.
                a.handovers.missing.add(partition)
        return a.telling.asks(r.nonce, asked)

    def on_lost(self, nonce: bytes, now: float) -> None:
        """Its connection broke: a hint, no proof."""
        if member := self._affairs.members.get(nonce):
            member.connected = False
            member.first_sign = now if member.first_sign is None else member.first_sign

    def on_exited(self, event: ProcessExited, now: float) -> list[Effect]:
        """It is proven dead: nobody has to wait for its lease."""
        a, nonce, members = self._affairs, event.nonce, self._affairs.members
        if members.is_proven(nonce):
            return []
        is_news = members.prove(event)
        effects = a.tell_owners(a.waits.end(nonce))
        member = members.get(nonce)
        if member is None:
            if is_news and not a.replacements.died_unheard(event.handler, event.at, now):
                members.unheard.add(nonce)
            return effects
        member.connected = False
        at, first_sign = event.at, member.first_sign
        member.first_sign = at if first_sign is None else min(at, first_sign)
        if now - member.registered_at > a.config.settled_s:
            a.replacements.had_settled(member.row.id)
        if member.gone_at is None:
            a.give_up(member, event.cause, now)
        operation = a.takeovers.current
        if not member.enrolled and not (operation and operation.enrolls(nonce)):
            members.remove(nonce)
        return effects

    def on_unproven(self, event: Unproven, now: float) -> None:
        """It is to be taken over without a proof, unless the store is away: then nobody can renew, and nobody
        could take over.
        """
        a = self._affairs
        member = a.members.get(event.nonce)
        if member is None or member.gone_at is not None or not member.enrolled:
            return
        if not a.readings.store_away:
            a.give_up(member, event.cause, now)

    def on_weighed(self, event: Weigh, now: float) -> None:
        """It is ill, or well again: its share follows by planned moves."""
        if member := self._affairs.members.get(event.nonce):
            is_less = event.weight < member.weight
            since = member.weighed.since if member.weighed else now
            member.weighed = Weighed(event.weight, since, event.why) if is_less else None

    def on_dropped(self, event: PartitionsDropped) -> None:
        """It lost partitions that nobody asked it for."""
        a = self._affairs
        member = a.members.get(event.nonce)
        if a.table is None or member is None or member.gone_at is not None:
            return
        for partition, epoch in event.partitions:
            if not 0 <= partition < a.partitions:
                continue
            owner = a.table.owner(partition)
            if (owner.handler.nonce, owner.epoch) == (event.nonce, epoch):
                # Else it lost what was taken from it; or what it has since got anew.
                a.handovers.lost(partition)

    def on_beat(self, beat: Beat) -> list[Effect]:
        """It lives; what it seems to have missed it is told again."""
        a = self._affairs
        member = a.members.get(beat.nonce)
        if member is None:
            # Buried, and yet it beats; or never heard of, though it has had a grant. That grant is revoked,
            # and without any traffic it would never learn that (schedule R3).
            is_over = beat.grant_version > 0 or beat.nonce in a.members.revoked
            return [a.telling.over(beat.nonce)] if a.table is not None and is_over else []
        member.beat = beat
        return a.tell(member) if member.enrolled and beat.grant_version < member.version else []

    def give_up_silent(self, began: float, now: float) -> None:
        """Who is on record and has not come, with its whole lease out, is given up (schedule F9).

        No number was seen before this leader began, so nobody is out before a whole lease has passed since;
        and while the store was away, when nobody could renew, nothing was seen either. One that renews gets
        some more time: it is neither dead nor cut off from the store.

        Args:
            began: when this leader did.
            now: the time.
        """
        a = self._affairs
        if a.readings.store_away:
            return
        for member in a.members.on_record():
            out_at = a.waits.out_at(member.row.nonce)
            if out_at is not None and (out_at <= now or began + a.config.contact_s <= now):
                a.give_up(member, "unreachable", now)
