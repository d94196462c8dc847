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

    # whoever hears of them: any process, by any name that is its own for one run of it
    checks.token_seen(at, who, token)
    checks.life_seen(at, who, life)
    checks.table_seen(at, who, (life, token, number), owners, epochs)  # owners: nonces, or None for a hole
    checks.grows(at, who, what, number)                        # anything else that may only grow

    # at the end
    checks.calls_ended(at, history, bound_s)
    checks.nothing_lost_or_doubled(at, history, final)         # {(entity, key): its value in the store}
    checks.client_counts(at, client, history, stats)
    checks.handler_counts(at, handler, done, entity_errors, not_executed, unknown)  # with each beat, too
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

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mesh.client.stats import ClientStats
from mesh.core.epochs import format_epoch
from mesh.testing.history import ASKING, End, History, Operation, readable
from mesh.testing.linearizability import check

_ENDS = {
    End.RETURNED: "ok",
    End.RAISED: "entity_errors",
    End.EXECUTED: "entity_errors",
    End.NOT_EXECUTED: "not_executed",
    End.UNKNOWN: "unknown",
    End.CANCELLED: "cancelled",
    End.RUNNING: "running",
}


_READING = frozenset({"get", "items", "read", "~exists", ASKING})


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken.

    Attributes:
        at: virtual time, in seconds.
        what: the promise, in a few words that are the same whenever it is this one.
        evidence: what was seen, in one line; of a history that cannot be explained, in several.
    """

    at: float
    what: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.at:.6f} s  {self.what}: {self.evidence}"


class Checks:
    """Takes in what a world tells, and notes what must not be.

    Args:
        partitions: of the mesh.

    Attributes:
        violations: in the order in which they were found.
        gave_up: keys whose history was too much to judge; neither good nor bad.
        on_commit, on_grant: called with what `committed` and `granted` were told (without the time), in the
            very step of the store in which it happened; for scenarios, and for traces.
    """

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.violations: list[Violation] = []
        self.gave_up: list[str] = []
        self.on_commit: list[Callable[[str, bytes, list[tuple[int, int]]], object]] = []
        self.on_grant: list[Callable[[str, int, int, bytes], object]] = []
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
        self._beats: dict[str, tuple[int, ...]] = {}

    def __repr__(self) -> str:
        return f"<Checks, {len(self.violations)} violations>"

    def violated(self, at: float, what: str, evidence: str) -> None:
        """Note that a promise was broken; for checks that a world makes itself, too."""
        self.violations.append(Violation(at, what, evidence))

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

    def grows(self, at: float, who: str, what: str, number: Any) -> None:
        """A number (or tuple) of somebody's that never goes back; it may stay."""
        before = self._grown.get((who, what))
        if before is not None and number < before:
            self.violated(at, f"a {what} never goes back", f"{who} went from {before} to {number}")
        else:
            self._grown[who, what] = number

    # ---------------------------------------------------------------------------------------------- the end

    def calls_ended(self, at: float, history: History, bound_s: float) -> None:
        """Every call has ended, no later than its deadline and a bound; of a client that still lives.

        Args:
            at: virtual time of the end, in seconds.
            history: of all clients; leave out clients that were killed.
            bound_s: seconds past the deadline.
        """
        for operation in history:
            if min(operation.ended, at) > operation.deadline + bound_s:
                state = (
                    "had not ended"
                    if operation.end is End.RUNNING
                    else f"ended at {operation.ended:.3f} s"
                )
                self.violated(
                    at,
                    "every call ends",
                    f"{operation} {state}; it began at {operation.begun:.3f} s and had "
                    f"{operation.timeout:g} s",
                )

    def nothing_lost_or_doubled(
        self, at: float, history: History, final: Mapping[tuple[str, bytes], Any]
    ) -> None:
        """What was acknowledged is in the store once, what was not executed is not in it.

        Of keys that were only appended to, with items that are all different, and of keys that were only
        incremented: there it can be seen without any search. `linearizable` judges all others, given that a
        query was made at the end.

        Args:
            at: virtual time of the end, in seconds.
            history: of all clients.
            final: what the store holds at last, by (entity, key); a key that is not there is None.
        """
        by_key: defaultdict[tuple[str, bytes], list[Operation]] = defaultdict(list)
        for operation in history:
            by_key[operation.entity, operation.key].append(operation)
        for place, value in final.items():
            commands = [o for o in by_key[place] if o.method not in _READING]
            methods = {o.method for o in commands}
            if methods == {"append"} and all(len(o.args) == 1 for o in commands):
                self._appended(at, place, commands, value)
            elif methods == {"incr"}:
                self._counted(at, place, commands, value)

    def _appended(
        self, at: float, place: tuple[str, bytes], commands: list[Operation], value: Any
    ) -> None:
        found = Counter(map(repr, value or ()))
        for operation in commands:
            times = found.pop(repr(operation.args[0]), 0)
            executed = operation.executed
            if executed and operation.end is End.RETURNED and times == 0:
                self._broken(at, "nothing acknowledged is lost", operation, place, value)
            elif executed is False and times:
                self._broken(at, '"not executed" never executed', operation, place, value)
            elif times > 1:
                self._broken(at, "exactly one effect", operation, place, value)
        if found:
            self.violated(
                at,
                "exactly one effect",
                f"{_place(place)} holds {sorted(found)}, which nobody has appended",
            )

    def _counted(
        self, at: float, place: tuple[str, bytes], commands: list[Operation], value: Any
    ) -> None:
        by = [_amount(o) for o in commands]
        least = most = 0
        for amount, operation in zip(by, commands, strict=True):
            if operation.end is End.RETURNED:
                least, most = least + amount, most + amount
            elif operation.executed is None:
                least, most = least + min(amount, 0), most + max(amount, 0)
        if not least <= (value or 0) <= most:
            lost = (value or 0) < least
            self.violated(
                at,
                "nothing acknowledged is lost" if lost else "exactly one effect",
                f"{_place(place)} stands at {value!r}; acknowledged and unknown increments leave "
                f"{least} to {most}",
            )

    def _broken(
        self, at: float, what: str, operation: Operation, place: tuple[str, bytes], value: Any
    ) -> None:
        self.violated(at, what, f"{operation}; at last {_place(place)} holds {value!r:.200}")

    def linearizable(
        self, at: float, history: History, *entities: type, max_steps: int = 100_000
    ) -> None:
        """Every key's history could have come of calls made one at a time.

        Args:
            at: virtual time of the end, in seconds.
            history: of all clients.
            entities: classes of whose keys it is.
            max_steps: after which a key is given up.
        """
        judged = check(history, *entities, max_steps=max_steps)
        for found in judged.counterexamples:
            self.violated(at, "linearizable per key", str(found))
        self.gave_up += map(str, judged.gave_up)

    def were_told(self, at: float, history: History) -> None:
        """Where something was acknowledged, a store has told of commits: or nothing was checked at all."""
        changed = [o for o in history if o.end is End.RETURNED and o.method not in _READING]
        if changed and not self._seqs:
            self.violated(
                at, "the checks are told of commits", f"of none, and there was {changed[0]}"
            )

    # ---------------------------------------------------------------------------------------------- counts

    def client_counts(self, at: float, client: str, history: History, stats: ClientStats) -> None:
        """A client's own counts are what its callers have seen.

        Args:
            at: virtual time, in seconds.
            client: its name in the history.
            history: of all clients; calls that the client itself refused are to be left out of it.
            stats: of the client.
        """
        counted = Counter(_ENDS[o.end] for o in history if o.client == client)
        told = {name: getattr(stats, name) for name in dict.fromkeys(_ENDS.values())}
        wrong = [
            f"{name} {told[name]}, not {counted[name]}"
            for name in told
            if told[name] != counted[name]
        ]
        if sum(told.values()) != stats.started:
            wrong.append(f"started {stats.started}, and all together {sum(told.values())}")
        if wrong:
            self.violated(at, "outcomes add up", f"client {client} counts {', '.join(wrong)}")

    def handler_counts(
        self,
        at: float,
        handler: str,
        done: int,
        entity_errors: int,
        not_executed: int,
        unknown: int,
    ) -> None:
        """A handler process's counts, as its beats have them; they only grow.

        Args:
            at: virtual time, in seconds.
            handler: a name of this one run of it.
            done: calls that it has carried out, as the others.
            entity_errors: that ended in an error of the entity's.
            not_executed: that it has refused.
            unknown: of which it does not know whether they were carried out.
        """
        counts = (done, entity_errors, not_executed, unknown)
        before = self._beats.get(handler)
        if before is not None and any(n < b for n, b in zip(counts, before, strict=True)):
            self.violated(at, "outcomes add up", f"{handler} counted {before}, and now {counts}")
        self._beats[handler] = counts

    def counts_add_up(
        self, at: float, clients: Iterable[ClientStats], *, undisturbed: bool
    ) -> None:
        """Handlers' counts and clients' counts are of the same calls.

        Args:
            at: virtual time of the end, in seconds; all handlers' last counts have been told.
            clients: counts of all clients.
            undisturbed: there were no faults, so that no call was made twice and no count was lost with its
                handler. Otherwise handlers may have counted less, as they die, or more, as calls are resent.
        """
        if not undisturbed:
            return
        stats = list(clients)
        done = sum(counts[0] + counts[1] for counts in self._beats.values())
        ended = sum(s.ok + s.entity_errors for s in stats)
        left = sum(counts[3] for counts in self._beats.values())
        if done != ended or left:
            self.violated(
                at,
                "outcomes add up",
                f"handlers have carried out {done} calls and know nothing of {left}, clients have had the "
                f"outcomes of {ended}; nothing disturbed them",
            )

    # -------------------------------------------------------------------------------------------- liveness

    def owners_answer(
        self,
        at: float,
        faults_stopped_at: float,
        bound_s: float,
        answered: Mapping[int, float | None],
    ) -> None:
        """Once there are no faults any more, every partition is owned by a handler that answers.

        Args:
            at: virtual time of the end, in seconds.
            faults_stopped_at: when the last fault was mended.
            bound_s: seconds that the mesh has from then on.
            answered: of each partition when a call to it was first answered after that; None: never.
        """
        late = faults_stopped_at + bound_s
        for partition in range(self.partitions):
            when = answered.get(partition)
            if when is None or when > late:
                state = "did not answer" if when is None else f"answered only at {when:.3f} s"
                self.violated(
                    at,
                    "every partition has an owner that answers",
                    f"partition {partition} {state}; faults stopped at {faults_stopped_at:.3f} s, "
                    f"the bound is {bound_s:g} s",
                )


def _amount(operation: Operation) -> int:
    given = operation.args[0] if operation.args else operation.kwargs.get("by", 1)
    return int(given)


def _short(nonce: bytes) -> str:
    return nonce.hex()[:8]


def _version(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))


def _place(place: tuple[str, bytes]) -> str:
    return f"{place[0]} {readable(place[1])!r}"
