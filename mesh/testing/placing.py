"""In which order can the calls of one key have been made? A search.

Wing and Gong's ("Testing and verifying concurrent objects", 1993), with Lowe's two additions ("Testing for
linearizability", 2017): it goes from one end of a call to the next, and places calls just in time, which is
when one that has ended would be left out otherwise; and it remembers where it has been, by the calls that are
placed and the state, so that no way is tried twice. What a method returns in a state is remembered too, so
each runs once for each state that it meets.

Two rules keep it small. A call that changes nothing in any state (a query, a command that raised) is placed
as soon as the state fits it: that takes nothing from the others. And where a way has failed with some of the
unknown calls still to be placed, it fails all the more with fewer of them left.
"""

from __future__ import annotations

from collections.abc import Iterator

from mesh.testing.history import Operation
from mesh.testing.models import Model, State


class Placed:
    """A call, as the search sees it.

    Args:
        operation: it.
        is_query: it changes no state.
        ended: it has to be placed before its end; else it may be placed, or not.
        is_lost: it was answered, and what it changed came to nothing; for hints.
    """

    __slots__ = ("bit", "ended", "first", "is_lost", "is_query", "last", "number", "operation")

    def __init__(
        self, operation: Operation, *, is_query: bool, ended: bool, is_lost: bool = False
    ) -> None:
        self.operation = operation
        self.number = 4 * operation.number + 2 * ended + is_lost
        self.is_query = is_query
        self.is_lost = is_lost
        self.first = operation.first
        self.last = operation.last
        self.ended = ended
        self.bit = 0


class _Unfit:
    """In place of the next state: the call cannot have been told what it was told there."""


_UNFIT = _Unfit()
_Frame = tuple[int, int, int, State, Iterator[Placed]]


class Search:
    """Of one key, given which calls have to be placed and which may be.

    Args:
        model: what runs the calls.
        ended: calls that have to be placed between their begin and their end.
        maybe: calls that may be placed after their begin.
        max_steps: placings to try.

    Attributes:
        steps: placings tried.
        furthest: number of the end (in the order of ends) past which no order gets.
        states: that the key could have been in there.
    """

    def __init__(
        self, model: Model, ended: list[Placed], maybe: list[Placed], max_steps: int
    ) -> None:
        self.steps = 0
        self.furthest = -1
        self.states: dict[State, None] = {}
        self._model = model
        self._max_steps = max_steps
        self._ends = sorted(ended, key=_last)
        self._maybe = sorted(maybe, key=_first)
        self._next: dict[tuple[int, State], State | _Unfit] = {}
        self._failed: dict[tuple[int, int, State], list[int]] = {}
        self._queries: list[tuple[Placed, ...]] = []
        self._commands: list[tuple[Placed, ...]] = []
        self._maybe_begun: list[int] = []
        self._lay_out()

    def _lay_out(self) -> None:
        """For each end, the calls that are open there; each has a bit of its own among those of its time."""
        free: list[int] = []
        used = 0
        opened = sorted(self._ends, key=_first)
        open_: list[Placed] = []
        at = maybe_at = 0
        for end in self._ends:
            while at < len(opened) and opened[at].first < end.last:
                call = opened[at]
                if free:
                    call.bit = free.pop()
                else:
                    call.bit = 1 << used
                    used += 1
                open_.append(call)
                at += 1
            while maybe_at < len(self._maybe) and self._maybe[maybe_at].first < end.last:
                self._maybe[maybe_at].bit = 1 << maybe_at
                maybe_at += 1
            open_.sort(key=_last)
            self._queries.append(tuple(c for c in open_ if c.is_query))
            self._commands.append(tuple(c for c in open_ if not c.is_query))
            self._maybe_begun.append(maybe_at)
            open_.remove(end)
            free.append(end.bit)

    def end_of(self, number: int) -> Operation:
        """The call of that end."""
        return self._ends[number].operation

    def run(self) -> bool | None:
        """True: there is an order. False: there is none. None: that took too many steps."""
        stack: list[_Frame] = []
        frame = self._advance(0, 0, 0, None)
        if frame is None:
            return True
        self._push(stack, frame)
        while stack:
            at, placed, tried, state, calls = stack[-1]
            call = next(calls, None)
            if call is None:
                stack.pop()
                continue
            self.steps += 1
            if self.steps > self._max_steps:
                return None
            after = self._after(call, state)
            if isinstance(after, _Unfit):
                continue
            if call.ended:
                frame = self._advance(at, placed | call.bit, tried, after)
            elif after == state:
                continue
            else:
                frame = self._advance(at, placed, tried | call.bit, after)
            if frame is None:
                return True
            self._push(stack, frame)
        return False

    def _push(self, stack: list[_Frame], frame: tuple[int, int, int, State]) -> None:
        """Go on from there, unless that has failed before."""
        at, placed, tried, state = frame
        if at >= self.furthest:
            if at > self.furthest:
                self.furthest = at
                self.states.clear()
            self.states[state] = None
        failed = self._failed.setdefault((at, placed, state), [])
        # Whatever had fewer of the unknown calls placed had more left to try with.
        if any(less & tried == less for less in failed):
            return
        failed.append(tried)
        stack.append((at, placed, tried, state, self._calls(at, placed, tried)))

    def _advance(
        self, at: int, placed: int, tried: int, state: State
    ) -> tuple[int, int, int, State] | None:
        """Past every end whose call is placed; None: past all of them."""
        ends = self._ends
        while at < len(ends):
            for query in self._queries[at]:
                if not placed & query.bit and not isinstance(self._after(query, state), _Unfit):
                    placed |= query.bit
            bit = ends[at].bit
            if not placed & bit:
                return at, placed, tried, state
            placed &= ~bit
            at += 1
        return None

    def _calls(self, at: int, placed: int, tried: int) -> Iterator[Placed]:
        """What may be placed next: first the one whose end it is, last what nobody knows of."""
        for call in self._commands[at]:
            if not placed & call.bit:
                yield call
        for number in range(self._maybe_begun[at]):
            if not tried >> number & 1:
                yield self._maybe[number]

    def _after(self, call: Placed, state: State) -> State | _Unfit:
        """The state that the call leaves behind."""
        key = (call.number, state)
        try:
            return self._next[key]
        except KeyError:
            pass
        model, operation = self._model, call.operation
        new: State | _Unfit
        new, result, error = model.run(state, operation)
        if call.ended and not model.fits(operation, result, error):
            new = _UNFIT
        elif call.is_lost:
            new = state
        self._next[key] = new
        return new


def _first(call: Placed) -> int:
    return call.first


def _last(call: Placed) -> float:
    return call.last
