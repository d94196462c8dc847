"""What the leader says, and what the store refuses: partitions come, are given up, are lost.

A partition is held from the leader's grant (never from a table, never from a client's word) until it is
released or lost. A released epoch is never taken up again by this process, whoever says so (schedule M2); nor
is one that was lost, or the store would refuse it again.

A grant of a later life says what goes on: a partition that it names under the very epoch that is held keeps
its memory, its queue and its batches in flight. Every other one is dropped: somebody may have written to it
under an epoch in between (schedule M1).
"""

from __future__ import annotations

from collections.abc import Callable

from mesh.core.apart import Apart
from mesh.core.calls import Calls
from mesh.core.epochs import NOT_HELD, unpack_epochs
from mesh.core.messages import (
    Adopted,
    Dropped,
    Grant,
    Message,
    Missing,
    Release,
    Released,
    in_parts,
)
from mesh.core.records import GrantRef
from mesh.core.tenure import Pending, state_field
from mesh.core.wire import Status
from mesh.core.workings import Workings


class Ownership:
    """One handler's, from its first grant to the end of it.

    Args:
        workings: of the handler.
        calls: end with their partition, or go on when it comes.
        apart: runs, which end with it.

    Attributes:
        grant: as the leader last told it.
        on_tenure: told of each partition that is "adopted", "released" or "lost", with its epoch.
        anew_in: partitions that go on under an epoch whose memory is over, and since which life.
    """

    def __init__(self, workings: Workings, calls: Calls, apart: Apart) -> None:
        self.grant = GrantRef(workings.nonce, 0, 0)
        self.on_tenure: Callable[[str, int, int], None] = lambda *_: None
        self._nonce = workings.nonce
        self._calls = calls
        self._apart = apart
        self._tenures = workings.tenures
        self._answers = workings.answers
        self._outbox = workings.outbox
        self._runs = workings.runs
        self._cache = workings.cache
        self._reading = workings.reading
        self._lease = workings.home.lease
        self._history = workings.history
        self._async_prefixes = tuple(
            state_field(spec.name, b"")
            for spec in workings.registry.specs
            if spec.durability == "async"
        )
        self.anew_in: dict[int, int] = {}
        self._token = 0
        self._settling: set[int] = set()
        self._dropped: dict[int, int] = {}
        """Epochs lost without a release, that the leader's grant still names."""
        self._untold: dict[int, int] = {}
        self._messages: list[Message] = []

    def __repr__(self) -> str:
        return f"Ownership(grant {self.grant.life}.{self.grant.version}, {self._tenures!r})"

    @property
    def is_granted(self) -> bool:
        """There is a grant, and it is not over."""
        return self.grant.life > 0 and not self._tenures.revoked

    # ----------------------------------------------------------- the leader's words

    def hears(self, token: int) -> bool:
        """Whether words under that token are a leader's still: none was heard that is higher."""
        if token < self._token:
            return False
        self._token = token
        return True

    def on_leading(self, token: int, now: float) -> bool:
        """A supervisor says that it leads; whether that is so, as far as is known here.

        What the leader before has asked for, and what is not settled yet, is kept: it would be released to
        somebody who is not listened to, and the new leader not know that nobody serves it.
        """
        if token > self._token:
            for partition in self._settling:
                tenure = self._tenures.in_memory.get(partition)
                if tenure is not None:
                    tenure.release_token = None
                    for field in list(tenure.waiting):
                        self._calls.run_waiting(tenure, field, now)
            self._settling.clear()
            self._calls.retry_held(now)
        return self.hears(token)

    def on_grant(self, message: Grant, now: float) -> None:
        """The leader tells what this process's grant holds. Older words and lower tokens are ignored."""
        tenures = self._tenures
        if tenures.revoked or message.nonce != self._nonce or not self.hears(message.token):
            return
        if not message.active:
            self.end()
            return
        if (message.life, message.version) < (self.grant.life, self.grant.version):
            return
        is_next_life = 0 < self.grant.life < message.life
        self.grant = GrantRef(self._nonce, message.life, message.version)
        if is_next_life:
            self._history.begin(self._outbox.acknowledged())
        epochs = unpack_epochs(message.epochs)
        adopted: list[int] = []
        for partition in tenures.compare(epochs):
            if partition in tenures:
                self.drop(partition)
            self._dropped.pop(partition, None)
            self._untold.pop(partition, None)
            epoch = epochs[partition]
            if epoch > tenures.released.get(partition, NOT_HELD):
                tenures.adopt(partition, epoch)
                adopted.append(partition)
                self.on_tenure("adopted", partition, epoch)
        if is_next_life and self._async_prefixes:
            adopted += self._begin_anew(message.life)
        self._reading.adopted(adopted)
        self._messages.append(Adopted(self._nonce, message.life, message.version))
        self._calls.retry_held(now)

    def _begin_anew(self, life: int) -> list[int]:
        """Another primary: it may lack acknowledged writes of class "async", and memory must not differ from
        what the next change is written into. So partitions that have such keys go on without their memory.
        """
        tenures = self._tenures
        partitions = [
            tenure.partition
            for tenure in tenures.in_memory.values()
            if "async" in tenure.logs() or tenure.holds_any(self._async_prefixes)
        ]
        for partition in partitions:
            epoch = tenures.epochs[partition]
            self.drop(partition)
            tenures.adopt(partition, epoch)
            self.anew_in[partition] = life
            self.on_tenure("adopted", partition, epoch)
        return partitions

    def on_release(self, message: Release) -> None:
        """The leader asks for partitions back: admit nothing more, settle, then give them up."""
        if not self.hears(message.token):
            return
        not_held: list[tuple[int, int]] = []
        again: list[tuple[int, int]] = []
        for partition, epoch in message.partitions:
            tenure = self._tenures.take(partition)
            if tenure is not None and tenure.epoch == epoch:
                tenure.release_token = message.token
                self._settling.add(partition)
            elif self._tenures.released.get(partition) == epoch:
                again.append((partition, epoch))
            else:
                not_held.append((partition, epoch))
        if again or not_held:
            self._messages.append(Released(self._nonce, message.token, again, not_held))

    def settle(self, now: float) -> None:
        """Partitions that have nothing left to commit are released."""
        if not self._settling or self._history.is_behind:
            return
        by_token: dict[int, list[tuple[int, int]]] = {}
        for partition in list(self._settling):
            tenure = self._tenures.in_memory.get(partition)
            if tenure is None or tenure.release_token is None:
                self._settling.discard(partition)
            elif self._outbox.is_settled(partition) and not self._runs.of(tenure):
                self._settling.discard(partition)
                self._tenures.released[partition] = tenure.epoch
                by_token.setdefault(tenure.release_token, []).append((partition, tenure.epoch))
                waiting = self._forget(partition)
                self.on_tenure("released", partition, tenure.epoch)
                self._calls.send_waiting_elsewhere(partition, waiting, now)
        for token, partitions in by_token.items():
            for part in in_parts(partitions):
                self._messages.append(Released(self._nonce, token, part, []))

    # ----------------------------------------------------------------- to be told

    def take_messages(self) -> list[Message]:
        """What the leader is to be told."""
        messages, self._messages = self._messages, []
        if self._untold:
            messages += self._told_dropped(self._untold)
            self._untold.clear()
        return messages

    def to_repeat(self) -> list[Message]:
        """What the leader is to be told again with each beat: it may not have heard it."""
        return self._told_dropped(self._dropped)

    def _told_dropped(self, epochs: dict[int, int]) -> list[Message]:
        return [Dropped(self._nonce, part) for part in in_parts(list(epochs.items()))]

    # ------------------------------------------------------------- without a release

    def lose(self, partition: int) -> None:
        """The store refused the tenure: either its end is about to be told, or nobody knows of it."""
        self._dropped[partition] = self._untold[partition] = self._tenures.epochs[partition]
        self.drop(partition)

    def drop(self, partition: int) -> None:
        """The tenure is over without a release: what was never sent was not executed, and what still runs
        will not have been.
        """
        tenure = self._tenures.in_memory.get(partition)
        if tenure is not None:
            self._apart.end_all(tenure)
        self.on_tenure("lost", partition, self._tenures.epochs[partition])
        self._answers.give_up(self._outbox.drop(partition), Status.NOT_READY)
        for pending in self._forget(partition):
            reason = "the partition moved on"
            self._answers.refuse(pending.conn, pending.request, Status.NOT_READY, reason)

    def _forget(self, partition: int) -> list[Pending]:
        """It is held no more; the calls that waited for something of it."""
        tenure = self._tenures.end(partition)
        if tenure is None:
            return []
        self._cache.forget(tenure)
        return self._calls.forget(tenure)

    def lack(self) -> None:
        """The store lacks what it had acknowledged here, and nobody has that any more."""
        missing = Missing(self._nonce, self.grant.life, len(self._tenures))
        self._messages.append(missing)
        self.end()

    def end(self) -> None:
        """The grant is over, and with it all that is held."""
        self._tenures.revoked = True
        self._lease.end()
        self._history.end()
        self._dropped.clear()
        self._untold.clear()
        for partition in self._tenures.held():
            self.drop(partition)
        self._calls.refuse_held()
