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
    checks.took(at, node, run_id, life)                        # a batch, or a takeover, of that life
    checks.forgotten(at, node, operation, status)              # what it carried out last, when repeated
    checks.set_rests_on(at, node, version, age_s, sure_s)      # on what Sentinels said so long ago
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
    checks.heeded(at, who, token)                              # a handler process takes a leader's word
    checks.obeyed(at, who, life, version)                      # and goes by that grant
    checks.adopted(at, who, partition, epoch, nonce)           # a handler process takes a partition up
    checks.answered(at, who, partition, epoch)                 # and answers a query for it, from memory
    checks.given(at, who, nonce, partitions)                   # a leader means to give them to a dead one
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

from collections.abc import Hashable, Sequence

from mesh.core.epochs import NOT_HELD, format_epoch
from mesh.testing.history import End, History
from mesh.testing.sim.call_checks import READING, Violation
from mesh.testing.sim.store_checks import StoreChecks, short

__all__ = ["Checks", "Violation"]


class Checks(StoreChecks):
    """Takes in what a world tells, and notes what must not be.

    Args:
        partitions: of the mesh.
    """

    def __init__(self, partitions: int) -> None:
        super().__init__(partitions)
        self._tables: dict[tuple[int, int, int], Hashable] = {}
        self._adopted: dict[tuple[str, int], int] = {}
        self._tells: dict[bytes, set[tuple[int, int]]] = {}
        self._answering: dict[int, tuple[int, str]] = {}
        """By partition the newest epoch under which it was taken up, and by whom."""

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
        strangers = [p for p, o in enumerate(owners) if self._holders.get((p, epochs[p]), o) != o]
        if strangers:
            self.violated(
                at,
                "no table has a hole",
                f"{who} has table {_version(version)}, by which partitions {strangers[:8]} belong to others "
                f"than they were given to",
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

    def heeded(self, at: float, who: str, token: int) -> None:
        """A handler process took a word under that token for a leader's."""
        self.grows(at, who, "token that is heeded", token)

    def obeyed(self, at: float, who: str, life: int, version: int) -> None:
        """A handler process goes by that grant from now on."""
        self.grows(at, who, "grant", (life, version))

    def given(self, at: float, who: str, nonce: bytes, partitions: Sequence[int]) -> None:
        """A leader means to enrol a process, or to give it partitions, whose death was proven to that very
        leader.
        """
        self.violated(
            at,
            "a dead process stays dead",
            f"{who} knows that {short(nonce)} is dead, and gives it {list(partitions)[:8]}",
        )

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
        if epoch > self._answering.get(partition, (NOT_HELD, ""))[0]:
            self._answering[partition] = epoch, who

    def answered(self, at: float, who: str, partition: int, epoch: int) -> None:
        """A handler process answered a query from memory: so nobody else can have taken the partition up
        meanwhile, and changed what this one shows.
        """
        newest, other = self._answering.get(partition, (NOT_HELD, ""))
        if epoch < newest:
            self.violated(
                at,
                "one answers",
                f"{who} answered a query for partition {partition} under {format_epoch(epoch)}, and {other} "
                f"had taken it up under {format_epoch(newest)}",
            )

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


def _version(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))
