"""Batches on their way to the store, and what its verdicts mean for those who wait for them."""

from __future__ import annotations

from mesh.core.calls import Calls
from mesh.core.epochs import NOT_HELD
from mesh.core.execution import acknowledge
from mesh.core.lanes import LANES
from mesh.core.outbox import Batch
from mesh.core.ownership import Ownership
from mesh.core.records import CommitReply, Entry, GrantRef, StoreStatus, Verdict
from mesh.core.tenure import Effect
from mesh.core.wire import Status
from mesh.core.workings import Workings
from mesh.specs import Durability

_OVER = (StoreStatus.REVOKED, StoreStatus.GAP)
_OK, _FAILED = int(Status.OK), int(Status.ENTITY_ERROR)  # an enum's member takes 80 ns to look up


class Commits:
    """Those of one handler.

    Args:
        workings: of the handler.
        calls: queries among them wait for the lease that a commit renews.
        ownership: hears of partitions that the store refuses.
    """

    def __init__(self, workings: Workings, calls: Calls, ownership: Ownership) -> None:
        self._calls = calls
        self._ownership = ownership
        self._tenures = workings.tenures
        self._answers = workings.answers
        self._outbox = workings.outbox
        self._home = workings.home
        self._lease = workings.home.lease
        self._unleased = workings.unleased
        self._gate = workings.gate
        self._history = workings.history
        self._renewal = 0
        self.set_version = 0
        """The highest of the in-sync set under which a write of this process was acknowledged."""

    def __repr__(self) -> str:
        return f"Commits({self._outbox!r}, {self._gate!r}, renewal {self._renewal})"

    def renewal_is_due(self, now: float) -> bool:
        """The lease has to be renewed, and no batch has done it in passing."""
        return self._lease.is_due(now) and self._ownership.is_granted

    def send(self, batch: Batch, now: float) -> int:
        """A batch is about to leave, perhaps again: the renewal number that goes along with this very send.

        Strictly increasing within this process; the store keeps it as given (schedule R1).

        Args:
            now: read before it leaves; the lease counts from then.
        """
        if batch.grant not in (None, self._ownership.grant) and not batch.is_kept:
            self._cut(batch)
        batch.grant = self._ownership.grant
        if LANES[batch.lane] == "async":
            # Acknowledged by the primary alone, which may not be one any more: it renews nothing, and must
            # not pass for a renewal that is under way.
            self._renewal += 1
            batch.renewal = self._renewal
        else:
            batch.renewal = self.renew(now)
        return batch.renewal

    def _cut(self, batch: Batch) -> None:
        """The grant is another one since this was last sent. What was dropped meanwhile is to be written by
        nobody any more: its values are those of an earlier tenure (schedule M1). Its place stays, so that
        the store's verdicts are still of the same partitions.
        """
        life = batch.grant.life if batch.grant else 0
        for at, entry in enumerate(batch.entries):
            partition = entry.partition
            ended = entry.epoch not in (NOT_HELD, self._tenures.epochs[partition])
            if ended or life < self._ownership.anew_in.get(partition, 0):
                batch.entries[at] = Entry(entry.partition, NOT_HELD, {})
                self._give_up(batch, at)

    def _give_up(self, batch: Batch, at: int) -> None:
        """One partition's share will not be written, or was before anybody heard of it."""
        changes, batch.changes[at] = batch.changes[at], []
        self._answers.give_up(changes, Status.NOT_READY if batch.clean else Status.MAYBE)

    def renew(self, now: float) -> int:
        """The number of a renewal that is about to leave for its own sake."""
        self._renewal += 1
        self._lease.sent(self._renewal, now)
        return self._renewal

    def on_renewed(
        self, renewal: int, grant: GrantRef, reply: CommitReply | None, now: float
    ) -> None:
        """What the store says to a renewal that was sent for its own sake.

        Args:
            grant: under which it was sent.
            reply: None: the store could not be asked.
        """
        if reply is None:
            self._lease.failed(renewal)
        elif reply.status in _OVER:
            self._ownership.end()
        elif reply.acknowledged:
            self._acknowledged(renewal, reply)
            if reply.members >= self._history.replicas and grant.life == self._ownership.grant.life:
                self._history.forget()
            if self._unleased.count:
                self._calls.retry_unleased(now)
        else:
            self._lease.failed(renewal)

    def _acknowledged(self, renewal: int, reply: CommitReply) -> None:
        self._lease.acknowledged(renewal)
        if reply.set_version > self.set_version:
            self.set_version = reply.set_version

    def on_failed(self, batch: Batch, *, unsent: bool) -> None:
        """Nobody knows whether the store has a batch; the very same batch is to be sent again.

        Args:
            unsent: this time nothing of it was sent.
        """
        self._lease.failed(batch.renewal)
        batch.clean = batch.clean and unsent

    def on_refused(self, batch: Batch, reason: str, now: float, *, transient: bool) -> None:
        """The store refused a batch as it refuses any; the very same batch is to be sent again.

        Args:
            batch: of which it wrote nothing.
            reason: why, and what to do about it.
            transient: it may pass without anyone's doing.
        """
        self._lease.failed(batch.renewal)
        self._refuse(reason, now, transient=transient)

    def _refuse(self, reason: str, now: float, *, transient: bool) -> None:
        self._gate.refused(reason, now, transient=transient)
        if self._gate.reason:
            self._home.refuses = self._is_shut

    def _is_shut(self, partition: int, durability: Durability) -> bool:
        return not self._outbox.sends_at_once(partition, durability)

    def on_commit(self, batch: Batch, reply: CommitReply, now: float) -> bool:
        """A batch came back. True: it is finished. False: send the very same batch again."""
        if batch.is_kept:
            return self._on_kept(batch, reply, now)
        if reply.status in _OVER:
            self._outbox.done(batch)
            for at in range(len(batch.changes)):
                self._give_up(batch, at)
            self._end(reply.status)
            return True
        if reply.status is not StoreStatus.OK:
            # The life is closed, or the grant older than was shown: the store may have gone back in time, and
            # what is here be the only copy. All of it is kept for what the leader says (schedule F3 b), which
            # reads the renewals all the time and so finds out before anybody could tell it.
            self._lease.failed(batch.renewal)
            return False
        history = self._history
        counts = reply.acknowledged and LANES[batch.lane] != "async"
        is_kept = counts and (reply.members < history.replicas or history.size)
        if is_kept and not self._is_safe(batch, reply, now):
            batch.clean = False
            return False
        self._taken()
        if not reply.acknowledged:
            # Written, and short of a replica. What its repetition hears of a partition that has moved
            # on meanwhile is no longer the whole truth.
            batch.clean = False
            self._lease.failed(batch.renewal)
            return False
        if counts:
            self._acknowledged(batch.renewal, reply)
        self._outbox.done(batch)
        self._settle(batch, reply)
        self._ownership.settle(now)
        if self._unleased.count:
            self._calls.retry_unleased(now)
        return True

    def _is_safe(self, batch: Batch, reply: CommitReply, now: float) -> bool:
        """Whether an acknowledged batch will be there whatever is promoted: everybody has it who should, or
        it is kept here. If not it is sent again until it is.
        """
        history = self._history
        if batch.grant is None or batch.grant.life != self._ownership.grant.life:
            # The last word of a primary that has been left, perhaps for one that lacks it.
            self._lease.failed(batch.renewal)
            return False
        if reply.members >= history.replicas:
            history.forget()
            return True
        if history.keep(batch):
            return True
        self._acknowledged(batch.renewal, reply)
        self._refuse(history.reason, now, transient=True)
        return False

    def _taken(self) -> None:
        """The store refuses nothing, as far as is known."""
        if not self._history.is_full:
            self._gate.wrote()
            self._home.refuses = None

    def _end(self, status: StoreStatus) -> None:
        if status is StoreStatus.GAP:
            self._ownership.lack()
        else:
            self._ownership.end()

    def next_first(self, lane: int) -> Batch | None:
        """What has to be sent before anything new, on that lane, which is free."""
        return self._history.next(lane, self._outbox.last_seq(lane))

    def _on_kept(self, batch: Batch, reply: CommitReply, now: float) -> bool:
        """Something came back that is sent again since the primary is another one."""
        history = self._history
        if not history.is_under_way(batch):  # for a life that is over
            self._lease.failed(batch.renewal)
            return True
        if reply.status is StoreStatus.GAP and history.heard(batch, int(reply.detail)):
            self._lease.failed(batch.renewal)
            self._taken()
            return True
        if reply.status in _OVER:
            self._end(reply.status)
            return True
        if not reply.acknowledged:
            self._lease.failed(batch.renewal)
            return False
        self._taken()
        self._acknowledged(batch.renewal, reply)
        history.written(batch)
        self._settle(batch, reply)
        self._ownership.settle(now)
        if self._unleased.count:
            self._calls.retry_unleased(now)
        return True

    def _settle(self, batch: Batch, reply: CommitReply) -> None:
        """Whoever waits for an acknowledged batch hears what became of his change."""
        answers = self._answers
        done = failed = 0
        for entry, changes, verdict in zip(
            batch.entries, batch.changes, reply.verdicts, strict=True
        ):
            if verdict is Verdict.APPLIED:
                answers.pending -= len(changes)
                for effect in changes:
                    if not isinstance(effect, Effect):
                        effect.acknowledged()
                        continue
                    status = acknowledge(effect)
                    if status == _OK:
                        done += 1
                    elif status == _FAILED:
                        failed += 1
                continue
            if entry.epoch != NOT_HELD and self._tenures.epochs[entry.partition] == entry.epoch:
                self._ownership.lose(entry.partition)
            answers.give_up(changes, Status.NOT_READY if batch.clean else Status.MAYBE)
        answers.done += done
        answers.entity_errors += failed
