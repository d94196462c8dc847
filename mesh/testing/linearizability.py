"""Is a history linearizable? Could its calls have been made one at a time, between its begin and end each?

    history = History(now)
    client = Recorder(await mesh.connect(), history, "a")
    ...
    judged = check(history, Account)
    assert judged.ok, judged

Each key is judged by itself: linearizability is local, all keys are iff each one is (Herlihy and Wing, 1990).
What a key's calls do is what its entity class does, run one call at a time (mesh.testing.models); in what
order they can have been made is searched for (mesh.testing.placing).

What is known of a call decides where it may be placed. A reply, or an error of the entity's: between begin
and end, where the model says the same. Unknown, still running or cancelled: anywhere after its begin, or
nowhere. "Not executed": nowhere. Calls of one method under one idempotency key are one call, of which all
callers were told the same.

A counterexample is the shortest prefix of a history that has no such order, and so the end of one call: up
to there, all that callers had been told could be explained. If
one mistake of a mesh would explain it (a lost effect, a second one, an old state, a call that took effect
though its caller was told otherwise), that is said. The problem is NP-complete, so after a bounded number of
steps a key is given up, which is said too, and is neither good nor bad.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mesh.entities import spec_of
from mesh.errors import SetupError
from mesh.testing.history import ASKING, End, History, Operation, readable
from mesh.testing.models import BUILT_IN, Model
from mesh.testing.placing import Placed, Search

MAX_STEPS = 1_000_000
"""Placings tried for one key; a second's worth, roughly."""
_MAX_SHOWN = 5
_MAX_LINES = 40
_HINT_STEPS = 5_000
_MAX_HINTS = 40
"""Operations before the counterexample that are tried for a hint."""
_FINISHED = frozenset({End.RETURNED, End.RAISED, End.EXECUTED})


@dataclass(frozen=True, slots=True)
class Counterexample:
    """Why a key's history is not linearizable.

    Attributes:
        entity, key: whose history it is.
        operation: the one whose end cannot be explained; before it, everything could.
        prefix: all operations that had begun when it ended, in the order of their begins.
        blocked: the one that finds no place, given that end: itself, or one that ended before it.
        states: in which the key could have been where `blocked` is to be placed, as text; some of them, if
            there are many.
        hint: a mistake of the mesh that would explain all of it, or "".
    """

    entity: str
    key: bytes
    operation: Operation
    prefix: tuple[Operation, ...]
    blocked: Operation
    states: tuple[str, ...]
    hint: str = ""

    def __str__(self) -> str:
        told = [
            f"{self.entity} {readable(self.key)!r}: no order of the calls explains {self.operation}"
        ]
        before = "it"
        if self.blocked is not self.operation:
            before = f"#{self.blocked.number}"
            told[0] += f" with {self.blocked}"
        told += [f"    before {before} the key could only be: {state}" for state in self.states]
        if self.hint:
            told.append(f"    {self.hint}")
        left_out = len(self.prefix) - _MAX_LINES
        if left_out > 0:
            told.append(f"    ... {left_out} operations before these ...")
        told += [f"    {_line(o, self.operation.last)}" for o in self.prefix[-_MAX_LINES:]]
        return "\n".join(told)


@dataclass(frozen=True, slots=True)
class GaveUp:
    """A key whose history took too many steps.

    Attributes:
        entity, key: whose history it is.
        operations: how many it has.
        steps: after which it was given up.
    """

    entity: str
    key: bytes
    operations: int
    steps: int

    def __str__(self) -> str:
        return (
            f"{self.entity} {readable(self.key)!r}: gave up on {self.operations} operations after "
            f"{self.steps} steps; neither good nor bad"
        )


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of checking a history.

    Attributes:
        counterexamples: of each key whose history is not linearizable, one.
        gave_up: keys of which it is not known.
    """

    counterexamples: tuple[Counterexample, ...]
    gave_up: tuple[GaveUp, ...]

    @property
    def ok(self) -> bool:
        """Every key's history is known to be linearizable."""
        return not self.counterexamples and not self.gave_up

    def __str__(self) -> str:
        return "\n".join(map(str, (*self.counterexamples, *self.gave_up))) or "linearizable"


def check(
    history: History | Iterable[Operation], *entities: type, max_steps: int = MAX_STEPS
) -> Judgement:
    """Judge a history, key by key.

    Args:
        history: what callers did and were told.
        entities: the classes that it is of; KV and the models of mesh.testing.models need not be named.
        max_steps: placings that are tried for one key before it is given up.

    Raises:
        SetupError: the history is of an entity that is not named, of a method that it does not have, or of
            one that cannot be run by itself.
    """
    models = {spec_of(cls).name: Model(cls) for cls in (*BUILT_IN, *entities)}
    by_key: defaultdict[tuple[str, bytes], list[Operation]] = defaultdict(list)
    for operation in history:
        if operation.method != ASKING:
            by_key[operation.entity, operation.key].append(operation)
    found: list[Counterexample] = []
    gave_up: list[GaveUp] = []
    for (entity, _), operations in by_key.items():
        model = models.get(entity)
        if model is None:
            raise SetupError(
                f"{operations[0]} is in the history: name the class {entity} when you check it"
            )
        judged = _Key(model, operations, max_steps).judge()
        if isinstance(judged, GaveUp):
            gave_up.append(judged)
        elif judged is not None:
            found.append(judged)
    return Judgement(tuple(found), tuple(gave_up))


class _Key:
    """The judge of one key."""

    def __init__(self, model: Model, operations: list[Operation], max_steps: int) -> None:
        self._model = model
        self._operations = operations
        self._max_steps = max_steps

    def judge(self) -> Counterexample | GaveUp | None:
        """None: its history is linearizable."""
        try:
            operations = _merged(self._operations, self._model)
        except _AnsweredOtherwise as other:
            why = f"under one idempotency key, {other.first.client} was told {other.first.outcome}"
            return self._counterexample(other.second, other.second, (), why)
        search = self._search(operations, math.inf, self._max_steps)
        found = search.run()
        if found:
            return None
        first = self._operations[0]
        if found is None:
            return GaveUp(first.entity, first.key, len(self._operations), search.steps)
        search, culprit = self._shortest(operations, search)
        states = [self._model.show(state) for state in list(search.states)[:_MAX_SHOWN]]
        if len(search.states) > _MAX_SHOWN:
            states.append(f"one of {len(search.states) - _MAX_SHOWN} more")
        hint = self._hint([o for o in operations if o.first < culprit.last], culprit)
        blocked = search.end_of(search.furthest)
        return self._counterexample(culprit, blocked, tuple(states), hint)

    def _shortest(self, operations: list[Operation], search: Search) -> tuple[Search, Operation]:
        """Up to which end there is no order, given that what ended later was not yet known."""
        least = search.end_of(search.furthest).last
        ends = sorted((o for o in operations if o.executed is not None), key=_last)
        for culprit in ends:
            if culprit.last >= least:
                shorter = self._search(operations, culprit.last, self._max_steps)
                if shorter.run() is False:
                    return shorter, culprit
        return search, ends[-1]

    def _counterexample(
        self, culprit: Operation, blocked: Operation, states: tuple[str, ...], hint: str
    ) -> Counterexample:
        prefix = tuple(o for o in self._operations if o.first < culprit.last)
        by_number = {o.number: o for o in prefix}
        culprit, blocked = by_number[culprit.number], by_number[blocked.number]
        return Counterexample(culprit.entity, culprit.key, culprit, prefix, blocked, states, hint)

    def _search(self, operations: Iterable[Operation], until: float, max_steps: int) -> Search:
        return self._search_of(self._placed(operations, until), max_steps)

    def _search_of(self, calls: Iterable[Placed], max_steps: int) -> Search:
        ended: list[Placed] = []
        maybe: list[Placed] = []
        for call in calls:
            (ended if call.ended else maybe).append(call)
        return Search(self._model, ended, maybe, max_steps)

    def _placed(self, operations: Iterable[Operation], until: float) -> list[Placed]:
        """As the search sees them, given that nothing that ended later has ended."""
        placed = []
        for operation in operations:
            if operation.first > until:
                continue
            known = operation.last <= until
            ended = known and operation.end in _FINISHED
            is_query = self._model.is_query(operation) or (ended and operation.end is End.RAISED)
            if ended or not (is_query or (known and operation.end is End.NOT_EXECUTED)):
                placed.append(Placed(operation, is_query=is_query, ended=ended))
        return placed

    def _hint(self, operations: list[Operation], culprit: Operation) -> str:
        """The one mistake of a mesh with which it would be explained, if there is one."""
        calls = self._placed(operations, culprit.last)
        for operation in reversed(operations[-_MAX_HINTS:]):
            for call, mistake in self._mistakes(operation, culprit):
                others = [c for c in calls if c.operation is not operation or not call.ended]
                if self._search_of([*others, call], _HINT_STEPS).run():
                    return f"it would be explained if {operation} {mistake}"
                # A search leaves its bits behind in the calls; the next one writes its own.
        return ""

    def _mistakes(self, operation: Operation, culprit: Operation) -> Iterator[tuple[Placed, str]]:
        """What may have gone wrong with it: in place of the call, or, if not `ended`, beside it."""
        if operation.end is End.NOT_EXECUTED:
            if not self._model.is_query(operation):
                yield Placed(operation, is_query=False, ended=False), "had taken effect"
            return
        if self._model.is_query(operation):
            if operation.end in _FINISHED and operation.last <= culprit.last:
                stale = Placed(operation, is_query=True, ended=True)
                stale.first = -1
                yield stale, "had been answered from an older state"
            return
        yield Placed(operation, is_query=False, ended=False), "had taken effect twice"
        if operation.end in _FINISHED and operation.last <= culprit.last:
            lost = Placed(operation, is_query=False, ended=True, is_lost=True)
            yield lost, "had been lost after it was acknowledged"


class _AnsweredOtherwise(Exception):
    """Two calls under one idempotency key got different answers."""

    def __init__(self, first: Operation, second: Operation) -> None:
        super().__init__(first, second)
        self.first = first
        self.second = second


def _merged(operations: list[Operation], model: Model) -> list[Operation]:
    """Calls of one command under one idempotency key are one call: begun with the first, ended with the
    first that was told how it ended.
    """
    merged: list[Operation] = []
    named: defaultdict[tuple[object, ...], list[Operation]] = defaultdict(list)
    for operation in operations:
        if operation.idempotency_key is None or operation.end is End.NOT_EXECUTED:
            merged.append(operation)
        else:
            named[operation.method, operation.idempotency_key, repr(operation.args)].append(
                operation
            )
    for group in named.values():
        ended = sorted((o for o in group if o.end in _FINISHED), key=_last)
        told = [o for o in ended if o.end is not End.EXECUTED]
        for other in told[1:]:
            if not model.agree(told[0], other):
                raise _AnsweredOtherwise(told[0], other)
        one = copy.copy((told or ended or group)[0])
        one.first = min(o.first for o in group)
        one.last = ended[0].last if ended else math.inf
        merged.append(one)
    return merged


def _last(operation: Operation) -> float:
    return operation.last


def _line(operation: Operation, until: float) -> str:
    """An operation, as it was known at that point of the history."""
    if operation.last > until:
        who = f"#{operation.number} {operation.client}"
        return f"{operation.begun:.6f} -          s  {who}: {operation.call} running"
    return f"{operation.begun:.6f} - {operation.ended:.6f} s  {operation}"
