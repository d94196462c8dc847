"""Async and blocking methods: handed to the shell, and judged when they are back (mesh.core.runs)."""

from __future__ import annotations

from typing import Any

import msgpack

from mesh.core.calls import Calls
from mesh.core.running import TimeLimitExceeded, begin_run, finish_command, finish_query
from mesh.core.runs import Run
from mesh.core.tenure import Tenure
from mesh.core.wire import Status, pack_reply
from mesh.core.workings import Workings


class Apart:
    """The runs of one handler, from their beginning to what becomes of them.

    Args:
        workings: of the handler.
        calls: go on where a run held their key.
    """

    def __init__(self, workings: Workings, calls: Calls) -> None:
        self._calls = calls
        self._answers = workings.answers
        self._outbox = workings.outbox
        self._runs = workings.runs
        self._cache = workings.cache
        self._expiry = workings.expiry
        self._home = workings.home
        self._unleased = workings.unleased

    def __repr__(self) -> str:
        return f"Apart({self._runs!r})"

    def take_runs(self, now: float) -> list[Run]:
        """Async and blocking methods to be carried out now; `on_ran` is to be told of each, once."""
        begun: list[Run] = []
        for run in self._runs.due(now):
            try:
                begin_run(run)
            except ValueError as error:  # a codec of the user's that does not read what it wrote
                self.on_ran(run, None, error, now)
                continue
            if run.records is None and not self._home.is_leased():
                # The state of a query is read here, and later it only answers: so this is the moment at
                # which nobody else may serve the key.
                self._runs.came_back(run)
                self._runs.end(run, stop=False)
                self._unleased.add(run.pending)
                continue
            begun.append(run)
        return begun

    def on_ran(self, run: Run, result: Any, error: BaseException | None, now: float) -> None:
        """A run came to an end, whether or not anyone waits for it still.

        Args:
            result: what the method returned.
            error: what it raised; None where it returned.
        """
        self._runs.came_back(run)
        if not run.over:
            self._finish(run, result, error, now, stop=False)

    def _finish(
        self, run: Run, result: Any, error: BaseException | None, now: float, *, stop: bool
    ) -> None:
        if run.records is None:
            status, payload = finish_query(run, result, error)
            self._runs.end(run, stop=stop)
            self._answers.pending -= 1
            self._answers.done += 1
            for conn, counter in run.waiters:
                conn.send(pack_reply(counter, status, payload))
            return
        effect = finish_command(run, result, error)
        self._runs.end(run, stop=stop)  # its place among those in progress is its effect's now
        self._outbox.add(effect)
        field, tenure = run.pending.field, run.pending.tenure
        self._cache.touch(tenure, field, run.slot)
        self._expiry.watch(tenure, field, run.slot)
        self._calls.run_waiting(tenure, field, now)

    def on_timer(self, now: float) -> None:
        """End runs that took too long, and those for which no thread was free."""
        if not self._runs.is_any:
            return
        for run in self._runs.overdue(now):
            fate = (
                "it goes on in its thread, and nothing of it is kept"
                if run.blocking
                else "it was cancelled"
            )
            limit = TimeLimitExceeded(
                f"{run.name} took longer than its limit of {run.limit_s:g} s; {fate}"
            )
            self._finish(run, None, limit, now, stop=True)
        for run in self._runs.expired(now):
            self._end_unrun(run, Status.EXPIRED, "its deadline passed while all threads were taken")
            self._calls.run_waiting(run.pending.tenure, run.pending.field, now)

    def end_all(self, tenure: Tenure) -> None:
        """The tenure is over: what still runs of it will not have been."""
        for run in self._runs.of(tenure):
            self._end_unrun(run, Status.NOT_READY, "the partition moved on")

    def _end_unrun(self, run: Run, status: Status, reason: str) -> None:
        """Nothing of it was written, or will be."""
        self._runs.end(run, stop=True)
        self._answers.pending -= 1
        self._answers.not_executed += 1
        if run.records is not None:
            run.records.abandon(run.pending.request.counter)
        why = msgpack.packb(reason)
        for conn, counter in run.waiters:
            conn.send(pack_reply(counter, status, why))
