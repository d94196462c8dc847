"""What can be said of a simulated run at its end, from what callers were told, what is stored, and counts.

`Checks` has these, too, and is what a world tells things; see there.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mesh.client.stats import ClientStats
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


_RAN = frozenset((End.RETURNED, End.RAISED, End.EXECUTED))
READING = frozenset({"get", "items", "read", "~exists", ASKING})


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


class CallChecks:
    """Those of calls, counts and owners.

    Args:
        partitions: of the mesh.

    Attributes:
        violations: in the order in which they were found.
        gave_up: keys whose history was too much to judge; neither good nor bad.
    """

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.violations: list[Violation] = []
        self.gave_up: list[str] = []
        self._beats: dict[str, tuple[int, ...]] = {}
        self._told: dict[tuple[str, str], tuple[int, ...]] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, {len(self.violations)} violations>"

    def violated(self, at: float, what: str, evidence: str) -> None:
        """Note that a promise was broken; for checks that a world makes itself, too."""
        self.violations.append(Violation(at, what, evidence))

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
            commands = [o for o in by_key[place] if o.method not in READING]
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

    def outcomes_stay(self, at: float, history: History) -> None:
        """What the mesh says of a call under a caller's key holds: whoever asks is told the same, and what is
        said never to have run, nor to run ever, does not.

        Args:
            at: virtual time of the end, in seconds.
            history: of all clients.
        """
        asked: defaultdict[tuple[str, bytes, str, str], list[Operation]] = defaultdict(list)
        for operation in history:
            if operation.method == ASKING and operation.end is End.RETURNED:
                method, named = operation.args
                asked[operation.entity, operation.key, method, named].append(operation)
        for (entity, key, method, named), questions in asked.items():
            ran = [o for o in history.under(f"{entity}.{method}", key, named) if o.told in _RAN]
            answers = {question.value for question in questions}
            if len(answers) > 1:
                told = "; ".join(map(str, questions))
                self.violated(at, "an outcome stays what it is", told)
            elif ran and answers == {False}:
                self.violated(at, "an outcome stays what it is", f"{questions[0]}; {ran[0]}")

    # ---------------------------------------------------------------------------------------------- counts

    def client_counts(self, at: float, client: str, history: History, stats: ClientStats) -> None:
        """A client's own counts are what its callers have seen.

        Args:
            at: virtual time, in seconds.
            client: its name in the history.
            history: of all clients; calls that the client itself refused are to be left out of it.
            stats: of the client.
        """
        counted = Counter(_ENDS[o.told] for o in history if o.client == client)
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
        supervisor: str,
        handler: str,
        done: int,
        entity_errors: int,
        not_executed: int,
        unknown: int,
    ) -> None:
        """A handler process's counts, as its beats have them; to each supervisor's eyes they only grow.

        Args:
            at: virtual time, in seconds.
            supervisor: a name of this one run of it.
            handler: a name of this one run of it.
            done: calls that it has carried out, as the others.
            entity_errors: that ended in an error of the entity's.
            not_executed: that it has refused.
            unknown: of which it does not know whether they were carried out.
        """
        counts = (done, entity_errors, not_executed, unknown)
        before = self._told.get((supervisor, handler))
        if before is not None and any(n < b for n, b in zip(counts, before, strict=True)):
            self.violated(at, "outcomes add up", f"{handler} counted {before}, and now {counts}")
        self._told[supervisor, handler] = counts
        # One that was stopped hears late what another has heard long ago.
        self._beats[handler] = max(counts, self._beats.get(handler, counts), key=sum)

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


def _place(place: tuple[str, bytes]) -> str:
    return f"{place[0]} {readable(place[1])!r}"
