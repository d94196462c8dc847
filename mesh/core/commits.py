"""Batches on their way to the store, and what its verdicts mean for those who wait for them."""

from __future__ import annotations

from mesh.core.execution import acknowledge
from mesh.core.outbox import Batch
from mesh.core.ownership import Ownership
from mesh.core.records import CommitReply, StoreStatus, Verdict
from mesh.core.tenure import Effect
from mesh.core.wire import Status
from mesh.core.workings import Workings

_OK, _FAILED = int(Status.OK), int(Status.ENTITY_ERROR)  # an enum's member takes 80 ns to look up


class Commits:
    """Those of one handler.

    Args:
        workings: of the handler.
        ownership: hears of partitions that the store refuses.
    """

    def __init__(self, workings: Workings, ownership: Ownership) -> None:
        self._ownership = ownership
        self._tenures = workings.tenures
        self._answers = workings.answers
        self._outbox = workings.outbox
        self._home = workings.home
        self._gate = workings.gate
        self._renewal = 0

    def __repr__(self) -> str:
        return f"Commits({self._outbox!r}, {self._gate!r}, renewal {self._renewal})"

    def next_batch(self, lane: int) -> tuple[Batch, int] | None:
        """What to send on a free lane, with the renewal number that goes along."""
        batch = self._outbox.next_batch(lane)
        return None if batch is None else (batch, self.next_renewal())

    def next_renewal(self) -> int:
        """Strictly increasing within this process; the store keeps it as given (schedule R1)."""
        self._renewal += 1
        return self._renewal

    def on_refused(self, reason: str, now: float, *, transient: bool) -> None:
        """The store refused a batch as it refuses any; the very same batch is to be sent again.

        Args:
            reason: why, and what to do about it.
            transient: it may pass without anyone's doing.
        """
        self._gate.refused(reason, now, transient=transient)
        if self._gate.reason:
            self._home.refuses = self._is_shut

    def _is_shut(self, partition: int) -> bool:
        return not self._outbox.sends_at_once(partition)

    def on_commit(self, batch: Batch, reply: CommitReply, now: float) -> bool:
        """A batch came back. True: it is finished. False: send the very same batch again."""
        if reply.status in (StoreStatus.REVOKED, StoreStatus.GAP):
            self._outbox.done(batch)
            for changes in batch.changes:
                self._answers.give_up(changes, Status.NOT_READY if batch.clean else Status.MAYBE)
            self._ownership.end()
            return True
        if reply.status is not StoreStatus.OK:
            return False
        self._gate.wrote()
        self._home.refuses = None
        if not reply.acknowledged:
            # Written, and short of a replica. What its repetition hears of a partition that has moved
            # on meanwhile is no longer the whole truth.
            batch.clean = False
            return False
        self._outbox.done(batch)
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
        self._ownership.settle(now)
        return True
