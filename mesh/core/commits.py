"""Batches on their way to the store, and what its verdicts mean for those who wait for them."""

from __future__ import annotations

from mesh.core.calls import Calls
from mesh.core.execution import acknowledge
from mesh.core.lanes import LANES
from mesh.core.outbox import Batch
from mesh.core.ownership import Ownership
from mesh.core.records import CommitReply, StoreStatus, Verdict
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
        self._renewal = 0

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
        batch.renewal = self.renew(now)
        return batch.renewal

    def renew(self, now: float) -> int:
        """The number of a renewal that is about to leave for its own sake."""
        self._renewal += 1
        self._lease.sent(self._renewal, now)
        return self._renewal

    def on_renewed(self, renewal: int, reply: CommitReply | None, now: float) -> None:
        """What the store says to a renewal that was sent for its own sake; None: it could not be asked."""
        if reply is not None and reply.status in _OVER:
            self._ownership.end()
        elif reply is not None and reply.acknowledged:
            self._lease.acknowledged(renewal)
            if self._unleased.count:
                self._calls.retry_unleased(now)
        else:
            self._lease.failed(renewal)

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
        self._gate.refused(reason, now, transient=transient)
        if self._gate.reason:
            self._home.refuses = self._is_shut

    def _is_shut(self, partition: int, durability: Durability) -> bool:
        return not self._outbox.sends_at_once(partition, durability)

    def on_commit(self, batch: Batch, reply: CommitReply, now: float) -> bool:
        """A batch came back. True: it is finished. False: send the very same batch again."""
        if reply.status in _OVER:
            self._outbox.done(batch)
            for changes in batch.changes:
                self._answers.give_up(changes, Status.NOT_READY if batch.clean else Status.MAYBE)
            self._ownership.end()
            return True
        if reply.status is not StoreStatus.OK:
            self._lease.failed(batch.renewal)
            return False
        self._gate.wrote()
        self._home.refuses = None
        if not reply.acknowledged:
            # Written, and short of a replica. What its repetition hears of a partition that has moved
            # on meanwhile is no longer the whole truth.
            batch.clean = False
            self._lease.failed(batch.renewal)
            return False
        if LANES[batch.lane] == "async":
            self._lease.failed(batch.renewal)  # on the primary alone, which may not be one any more
        else:
            self._lease.acknowledged(batch.renewal)
        self._outbox.done(batch)
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
            if self._tenures.epochs[entry.partition] == entry.epoch:
                self._ownership.lose(entry.partition)
            answers.give_up(changes, Status.NOT_READY if batch.clean else Status.MAYBE)
        answers.done += done
        answers.entity_errors += failed
