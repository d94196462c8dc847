"""What must hold in every run of a simulated mesh, and what is said of it where it does not.

A world tells what it sees, in plain values, when it happens; nothing here knows the world, or asks it
anything. A number that fell, a second writer, a hole is noted at once, with the time; what can only be judged
at the end (histories, counts, owners) is told at the end. `Checks.violations` is empty after a good run.

What a world tells:

    checks = Checks(partitions=16)

    # whoever is the store, of each node and each call that this node itself carried out as a primary
    checks.life_opened(at, node, run_id, life, token)
    checks.granted(at, node, partition, epoch, nonce)          # of each move of a takeover
    checks.committed(at, node, life, nonce, lane, seq, [(partition, epoch), ...])  # applied, no duplicate
    checks.set_recorded(at, node, life, set_version)
    checks.led(at, node, run_id, life, token)                  # a bid in the life that is open
    checks.revoked(at, node, nonce)
    checks.wrote(what, offset)                                 # how far its stream was with that carried out

    # whoever goes on as if something were on every member of the in-sync set
    checks.relied_on(at, who, what, {member: offset})          # how much of the stream each of them has

    # whoever hears of them: any process, by any name that is its own for one run of it
    checks.token_seen(at, who, token)
    checks.loss_reported(at, who, said)                        # acknowledged calls may be gone
    checks.life_seen(at, who, life)
    checks.table_seen(at, who, (life, token, number), owners, epochs)  # owners: nonces, or None for a hole
    checks.grows(at, who, what, number)                        # anything else that may only grow
    checks.told(nonce, epochs)                                 # a leader tells a process what it holds
    checks.obeyed(at, who, token, life, version)               # a handler process takes a leader's word
    checks.adopted(at, who, partition, epoch, nonce)           # a handler process takes a partition up
    checks.redirected(at, who, partition, asked, named)        # a client that had named one epoch: to another

    # at the end
    checks.calls_ended(at, history, bound_s)
    checks.nothing_lost_or_doubled(at, history, final)         # {(entity, key): its value in the store}
    checks.client_counts(at, client, history, stats)
    checks.handler_counts(at, supervisor, handler, done, ...)  # with each beat, too
    checks.counts_add_up(at, clients, undisturbed=...)
    checks.owners_answer(at, faults_stopped_at, bound_s, {partition: when it answered, or None})
    checks.linearizable(at, history, Account, KV)
    checks.were_told(at, history)                              # that there is something behind all this

Rules that two stores may break without any harm are not among these: a primary that was cut off goes on
taking commits of its own life, which nobody is ever told of. So most numbers are compared within one node,
and across nodes only what is one for all: an epoch has one writer, a life one primary, a table version one
content.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from mesh.core.epochs import NOT_HELD, format_epoch
from mesh.testing.history import End, History
from mesh.testing.sim.call_checks import READING, CallChecks, Violation

__all__ = ["Checks", "Violation"]


class Checks(CallChecks):
    """Takes in what a world tells, and notes what must not be.

    Args:
        partitions: of the mesh.

    Attributes:
        on_commit, on_grant, on_revoke, on_life, on_set: called with what `committed`, `granted`, `revoked`,
            `life_opened` and `set_recorded` were told (without the time), in the very step of the store in
            which it happened; for scenarios, and for traces.
        losses: what was said of acknowledged calls that may be gone.
    """

    def __init__(self, partitions: int) -> None:
        super().__init__(partitions)
        self.on_commit: list[Callable[[str, bytes, list[tuple[int, int]]], object]] = []
        self.on_grant: list[Callable[[str, int, int, bytes], object]] = []
        self.on_revoke: list[Callable[[str, bytes], object]] = []
        self.on_life: list[Callable[[str, int, int], object]] = []
        self.on_set: list[Callable[[str, int, int], object]] = []
        self.losses: list[str] = []
        self._writers: dict[tuple[int, int], bytes] = {}
        """(partition, epoch) → the one whose commit was taken."""
        self._holders: dict[tuple[int, int], bytes] = {}
        """(partition, epoch) → to whom it was granted."""
        self._written: dict[tuple[str, int], int] = {}
        self._moved: dict[tuple[str, int], int] = {}
        self._seqs: dict[tuple[str, int, bytes, int], int] = {}
        self._primaries: dict[int, str] = {}
        self._opened: dict[str, tuple[int, int]] = {}
        self._grown: dict[tuple[str, str], Any] = {}
        self._tables: dict[tuple[int, int, int], Hashable] = {}
        self._adopted: dict[tuple[str, int], int] = {}
        self._tells: dict[bytes, set[tuple[int, int]]] = {}
        self._offsets: dict[tuple[Hashable, ...], int] = {}

    # -------------------------------------------------------------------------------------------- the store

    def life_opened(self, at: float, node: str, run_id: str, life: int, token: int) -> None:
        """A node took an open_life.

        Args:
            at: virtual time, in seconds.
            node: its name.
            run_id: the node's own.
            life: the new life's number.
            token: of the leader.
        """
        first = self._primaries.setdefault(life, run_id)
        if first != run_id:
            self.violated(
                at,
                "a life has one primary",
                f"life {life} was opened on run {first[:8]}, and now on {node} (run {run_id[:8]})",
            )
        before = self._opened.get(run_id)
        if before is not None and (life <= before[0] or token <= before[1]):
            self.violated(
                at,
                "lives and tokens only grow",
                f"{node} opened life {life} for token {token} after life {before[0]} for token {before[1]}",
            )
        self._opened[run_id] = life, token
        for hear in list(self.on_life):
            hear(node, life, token)

    def led(self, at: float, node: str, run_id: str, life: int, token: int) -> None:
        """A node took a bid for the lead in a life that it had."""
        before = self._opened.get(run_id)
        if before is not None and (life != before[0] or token <= before[1]):
            self.violated(
                at,
                "lives and tokens only grow",
                f"{node} took a bid of token {token} in life {life} after token {before[1]} in {before[0]}",
            )
        self._opened[run_id] = life, token

    def revoked(self, at: float, node: str, nonce: bytes) -> None:
        """A node took a call that ends a process's grant."""
        del at
        for hear in list(self.on_revoke):
            hear(node, nonce)

    def loss_reported(self, at: float, who: str, said: str) -> None:
        """A leader says that acknowledged calls may be gone."""
        self.losses.append(f"{at:.6f} s  {who}: {said}")

    def granted(self, at: float, node: str, partition: int, epoch: int, nonce: bytes) -> None:
        """A node gave a partition to a process, under that epoch."""
        first = self._holders.setdefault((partition, epoch), nonce)
        if first != nonce:
            self.violated(
                at,
                "an epoch is given once",
                f"epoch {format_epoch(epoch)} of partition {partition} was given to {_short(first)}, and on "
                f"{node} to {_short(nonce)}",
            )
        before = self._moved.get((node, partition), 0)
        if epoch <= before:
            self.violated(
                at,
                "epochs only grow",
                f"{node} gave partition {partition} to {_short(nonce)} under {format_epoch(epoch)}, "
                f"after {format_epoch(before)}",
            )
        self._moved[node, partition] = epoch
        for hear in list(self.on_grant):
            hear(node, partition, epoch, nonce)

    def committed(
        self,
        at: float,
        node: str,
        life: int,
        nonce: bytes,
        lane: int,
        seq: int,
        tenures: list[tuple[int, int]],
    ) -> None:
        """A node applied a batch: not a duplicate, and of its partitions those that it wrote.

        Args:
            at: virtual time, in seconds.
            node: its name.
            life: that the batch named.
            nonce: of the process that wrote.
            lane: of its connections, the one by number.
            seq: of the batch.
            tenures: of each partition that was written its number and the epoch that was named.
        """
        key = (node, life, nonce, lane)
        last = self._seqs.get(key)
        if last is not None and seq != last + 1:
            self.violated(
                at,
                "batches are applied in sequence",
                f"{node} applied batch {seq} of {_short(nonce)}, lane {lane}, life {life}, after {last}",
            )
        self._seqs[key] = seq
        for tenure in tenures:
            first = self._writers.setdefault(tenure, nonce)
            partition, epoch = tenure
            if first != nonce:
                self.violated(
                    at,
                    "one writer",
                    f"{node} took a commit of {_short(nonce)} for partition {partition} under "
                    f"{format_epoch(epoch)}, under which {_short(first)} had written",
                )
            holder = self._holders.get(tenure, nonce)
            if holder != nonce:
                self.violated(
                    at,
                    "one writer",
                    f"{node} took a commit of {_short(nonce)} for partition {partition} under "
                    f"{format_epoch(epoch)}, which was given to {_short(holder)}",
                )
            newest = max(
                self._written.get((node, partition), 0), self._moved.get((node, partition), 0)
            )
            if epoch < newest:
                self.violated(
                    at,
                    "one writer",
                    f"{node} took a commit of {_short(nonce)} for partition {partition} under "
                    f"{format_epoch(epoch)}, after {format_epoch(newest)} was given or written",
                )
            else:
                self._written[node, partition] = epoch
        for hear in list(self.on_commit):
            hear(node, nonce, tenures)

    def set_recorded(self, at: float, node: str, life: int, version: int) -> None:
        """A node recorded an in-sync set."""
        self.grows(at, node, "set version", (life, version))
        for hear in list(self.on_set):
            hear(node, life, version)

    def wrote(self, what: tuple[Hashable, ...], offset: int) -> None:
        """The primary carried that out.

        Args:
            what: any name of it.
            offset: of its replication stream, that and all before it included.
        """
        self._offsets.setdefault(what, offset)

    def relied_on(
        self, at: float, who: str, what: tuple[Hashable, ...], members: Mapping[str, int]
    ) -> None:
        """Somebody tells others of what was carried out: so every member of the in-sync set has to have it.

        Args:
            at: virtual time, in seconds.
            who: tells it.
            what: as `wrote` was told.
            members: of each replica in the set the offset up to which it has the stream.
        """
        offset = self._offsets.get(what)
        behind = [name for name, has in members.items() if offset is None or has < offset]
        if behind:
            words = " ".join(p.hex()[:8] if isinstance(p, bytes) else str(p) for p in what)
            state = "the store has not" if offset is None else f"{', '.join(behind)} have not yet"
            self.violated(
                at, "acknowledged means replicated", f"{who} goes on with {words}, which {state}"
            )

    # ------------------------------------------------------------------------------------- whoever hears it

    def token_seen(self, at: float, who: str, token: int) -> None:
        """A process took a leader's token for the highest; lower ones it is to refuse, not to take."""
        self.grows(at, who, "token", token)

    def life_seen(self, at: float, who: str, life: int) -> None:
        """A process took that life for the store's."""
        self.grows(at, who, "life", life)

    def table_seen(
        self,
        at: float,
        who: str,
        version: tuple[int, int, int],
        owners: Sequence[bytes | None],
        epochs: Sequence[int],
    ) -> None:
        """A process took up a table.

        Args:
            at: virtual time, in seconds.
            who: the process.
            version: (life, token, number).
            owners: of each partition its owner's nonce, None where there is none.
            epochs: of each partition; 0 where there is none.
        """
        self.grows(at, who, "table version", version)
        holes = [p for p, (o, e) in enumerate(zip(owners, epochs, strict=False)) if not (o and e)]
        if holes or not len(owners) == len(epochs) == self.partitions:
            self.violated(
                at,
                "no table has a hole",
                f"{who} has table {_version(version)} with {len(owners)} owners and {len(epochs)} epochs of "
                f"{self.partitions} partitions, without an owner: {holes[:8]}",
            )
        content = (tuple(owners), tuple(epochs))
        if self._tables.setdefault(version, content) != content:
            self.violated(
                at,
                "a table version has one content",
                f"{who} has table {_version(version)} with other owners than were seen under it before",
            )

    def told(self, nonce: bytes, epochs: Sequence[int]) -> None:
        """A leader is about to tell a process what its grant holds; of each partition, as far as it may act
        upon it.
        """
        known = self._tells.setdefault(nonce, set())
        known.update((p, epoch) for p, epoch in enumerate(epochs) if epoch != NOT_HELD)

    def obeyed(self, at: float, who: str, token: int, life: int, version: int) -> None:
        """A handler process goes by a leader's word from now on.

        Args:
            at: virtual time, in seconds.
            who: the process.
            token: under which that was said.
            life, version: of the grant that it has now.
        """
        self.grows(at, who, "token that is obeyed", token)
        self.grows(at, who, "grant", (life, version))

    def adopted(self, at: float, who: str, partition: int, epoch: int, nonce: bytes) -> None:
        """A handler process took a partition up; under each epoch at most once, and because a leader told it
        so.
        """
        if (partition, epoch) not in self._tells.get(nonce, ()):
            self.violated(
                at,
                "a grant is what a leader has told",
                f"{who} took up partition {partition} under {format_epoch(epoch)}; nobody had told it so",
            )
        before = self._adopted.get((who, partition), 0)
        if epoch <= before:
            self.violated(
                at,
                "what was given up is not taken up again",
                f"{who} took up partition {partition} under {format_epoch(epoch)}, after "
                f"{format_epoch(before)}",
            )
        self._adopted[who, partition] = epoch

    def redirected(self, at: float, who: str, partition: int, asked: int, named: int) -> None:
        """A client was sent elsewhere.

        Args:
            at: virtual time, in seconds.
            who: the client.
            asked: the epoch that its request had named.
            named: that of the owner to whom it is sent.
        """
        if named < asked:
            self.violated(
                at,
                "no redirect to a stale owner",
                f"{who} asked for partition {partition} under {format_epoch(asked)}, and was sent to its "
                f"owner under {format_epoch(named)}",
            )

    def grows(self, at: float, who: str, what: str, number: Any) -> None:
        """A number (or tuple) of somebody's that never goes back; it may stay."""
        before = self._grown.get((who, what))
        if before is not None and number < before:
            self.violated(at, f"a {what} never goes back", f"{who} went from {before} to {number}")
        else:
            self._grown[who, what] = number

    def nothing_is_said_to_be_lost(self, at: float) -> None:
        """Nobody has reported a loss; for runs in which nothing can be."""
        for line in self.losses[:1]:
            self.violated(at, "no loss without cause", line)

    def were_told(self, at: float, history: History) -> None:
        """Where something was acknowledged, a store has told of commits: or nothing was checked at all."""
        changed = [o for o in history if o.end is End.RETURNED and o.method not in READING]
        if changed and not self._seqs:
            self.violated(
                at, "the checks are told of commits", f"of none, and there was {changed[0]}"
            )


def _short(nonce: bytes) -> str:
    return nonce.hex()[:8]


def _version(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))
