"""Forgetting in small steps: sessions that fell silent, records whose time is over, clients that are gone.

A walk over all that a handler remembers takes as many turns of its timer as it needs; then it rests, since
nothing is due more often than once in a small part of the time that records are kept. What is forgotten
is deleted by commits that would be sent anyway where there are any, and else by a commit of its own. Either
way memory forgets first: a deletion that is lost leaves a record in the store, which the next owner finds
and forgets again; the other order would leave calls without the record that they need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mesh.core.dedupe import MOST_FORGOTTEN, SessionLog
from mesh.core.outbox import Change
from mesh.core.retention import Retention
from mesh.core.tenure import Tenure
from mesh.specs import Durability

STEPS_A_TURN = 64
_REST_SHARE = 1 / 512
_LONGEST_REST_S = 60.0


class Forgotten(Change):
    """Names that are deleted for nobody: no call waits for it."""

    __slots__ = ()

    def __init__(self, tenure: Tenure, names: list[bytes], durability: Durability) -> None:
        super().__init__(tenure.partition, tenure.epoch, {}, names, durability)
        self.size = sum(map(len, names))  # so that a batch is not made of deletions without end


class Forgetting:
    """One handler's walk over what it remembers.

    Args:
        tenures: what it holds, by partition; changes as it goes.
        retention: how long things are kept.
    """

    __slots__ = ("_rest_s", "_rests_until", "_retention", "_tenures", "_walk")

    def __init__(self, tenures: Mapping[int, Tenure], retention: Retention) -> None:
        self._tenures = tenures
        self._retention = retention
        self._rest_s = min(_LONGEST_REST_S, retention.keep_s * _REST_SHARE)
        self._rests_until = 0.0
        self._walk: Iterator[Forgotten | None] | None = None

    def __repr__(self) -> str:
        return f"Forgetting({'at rest' if self._walk is None else 'under way'})"

    def turn(self, now: float) -> list[Forgotten]:
        """A few steps of the walk; what is to be deleted for them."""
        if self._walk is None:
            if now < self._rests_until:
                return []
            self._walk = self._steps()
        due: list[Forgotten] = []
        names = 0
        for _ in range(STEPS_A_TURN):
            if names >= MOST_FORGOTTEN:
                break
            try:
                change = next(self._walk)
            except StopIteration:
                self._walk = None
                self._rests_until = now + self._rest_s
                break
            if change is not None:
                due.append(change)
                names += len(change.deleted)
        return due

    def end(self, session: int) -> list[Forgotten]:
        """The client of that session is gone, and nothing that it sent is still under way."""
        due: list[Forgotten] = []
        for tenure in self._tenures.values():
            if tenure.release_token is not None:
                continue
            for durability, log in tenure.logs().items():
                names = log.end(session)
                if names:
                    due.append(Forgotten(tenure, names, durability))
        return due

    def _steps(self) -> Iterator[Forgotten | None]:
        for tenure in list(self._tenures.values()):
            for durability, log in list(tenure.logs().items()):
                for names in self._of(tenure, log):
                    yield Forgotten(tenure, names, durability) if names else None

    def _of(self, tenure: Tenure, log: SessionLog) -> Iterator[list[bytes]]:
        """One step for each session, and for each handful of records under callers' keys."""
        yield []
        for number in list(log.numbers()):
            while self._is_ours(tenure):
                names = log.expire(number)
                yield names
                if not names:
                    break
        while self._is_ours(tenure):
            names = log.callers.forget()
            yield names
            if not names:
                return

    def _is_ours(self, tenure: Tenure) -> bool:
        return self._tenures.get(tenure.partition) is tenure and tenure.release_token is None
