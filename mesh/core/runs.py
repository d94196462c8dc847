"""Runs apart: async and blocking methods, which take their time while the handler goes on with other keys.

A Run is asked of the shell (`due`), which has a task or a thread carry it out and reports what came of it.
It works on a copy of its key's state. Whatever ends it here first decides: its result, its time limit, or the
end of its tenure. What comes later finds it over and is dropped. So a method that cannot be stopped, a
thread above all, costs its thread and nothing else.

Threads are few and a stuck one is lost until it comes back, so what needs one waits here, in order, and
is not given to the shell before there is one.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from mesh.context import Context
from mesh.core.outcomes import Records
from mesh.core.tenure import Pending, Slot, Tenure, Waiter

_SLACK = 256


class Run:
    """One run of an async or blocking method.

    Attributes:
        records: of a command; its duplicates find it there. A query has none.
        waiters: who is told how it ended.
        limit_s: seconds that it may take.
        until: when it has taken too long; None while it waits for a thread.
        over: it was decided; what the method still does counts for nothing.
        instance: the copy of the state that it works on; `before` the bytes that it was made of.
    """

    __slots__ = (
        "_context",
        "before",
        "extra",
        "instance",
        "limit_s",
        "over",
        "pending",
        "records",
        "slot",
        "until",
        "waiters",
    )

    def __init__(self, pending: Pending, slot: Slot, records: Records | None) -> None:
        self.pending = pending
        self.slot = slot
        self.records = records
        self.limit_s = pending.method.limit_s or pending.tenure.home.run_limit_s
        self.waiters: list[Waiter] = [(pending.conn, pending.request.counter)]
        self.until: float | None = None
        self.over = False
        self.instance: Any = None
        self.extra: dict[str, Any] = {}
        self.before = b""
        self._context: Context | None = None

    def __repr__(self) -> str:
        state = "over" if self.over else "waiting" if self.until is None else "running"
        return f"Run({self.name}, {state})"

    @property
    def name(self) -> str:
        """Entity.method"""
        return f"{self.pending.spec.name}.{self.pending.method.name}"

    @property
    def digest(self) -> bytes:
        """Of its arguments: there is no outcome yet that bears it."""
        return self.pending.digest

    @property
    def blocking(self) -> bool:
        """It needs a thread."""
        return self.pending.method.blocking

    def work(self) -> Callable[[], Any]:
        """What calls the method: for a coroutine where it is async, for its result where it is blocking."""
        pending = self.pending
        return partial(pending.method.function, self.instance, *pending.args, **pending.kwargs)

    def close(self) -> None:
        """It is over. What it held is let go of at once, rather than by the garbage collector."""
        self.over = True
        self.instance = self._context = None

    def context(self) -> Context:
        """See mesh.context.Source: one for the whole run, since it counts the calls that the run makes."""
        if self._context is None:
            self._context = self.pending.context(partial(self.pending.tenure.home.call, self))
        return self._context


class Runs:
    """The runs of one handler.

    Args:
        threads: that blocking methods may take.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._taken = 0
        self._ready: deque[Run] = deque()
        self._for_thread: deque[Run] = deque()
        self._limits: list[tuple[float, int, Run]] = []
        self._begun = 0
        self._under_way = 0
        self._of: dict[Tenure, dict[Run, None]] = {}
        self._to_stop: list[Run] = []

    def __repr__(self) -> str:
        return (
            f"Runs({self._under_way} under way, {len(self._for_thread)} wait for one of "
            f"{self._threads} threads)"
        )

    @property
    def is_due(self) -> bool:
        """Something is to be begun or stopped."""
        return bool(
            self._ready or self._to_stop or (self._for_thread and self._taken < self._threads)
        )

    @property
    def is_any(self) -> bool:
        """There is a run that is not over."""
        return bool(self._of)

    def of(self, tenure: Tenure) -> list[Run]:
        """That tenure's, which are not over."""
        return list(self._of.get(tenure, ()))

    def add(self, run: Run) -> None:
        """It is to be carried out; a command holds its key from now on."""
        pending = run.pending
        self._of.setdefault(pending.tenure, {})[run] = None
        run.slot.pending += 1  # so that it stays in memory
        if run.records is not None:
            pending.tenure.held.add(pending.field)
            run.records.start(pending.request.counter, run)
        (self._for_thread if run.blocking else self._ready).append(run)

    def due(self, now: float) -> list[Run]:
        """To be begun now; their time counts from here."""
        runs: list[Run] = []
        while self._ready:
            runs.append(self._ready.popleft())
        while self._for_thread and self._taken < self._threads:
            runs.append(self._for_thread.popleft())
            self._taken += 1
        for run in runs:
            run.until = now + run.limit_s
            self._begun += 1
            heapq.heappush(self._limits, (run.until, self._begun, run))
        self._under_way += len(runs)
        if len(self._limits) > 2 * self._under_way + _SLACK:
            # So that those which ended long before their limit do not pile up.
            self._limits = [limit for limit in self._limits if not limit[2].over]
            heapq.heapify(self._limits)
        return runs

    def overdue(self, now: float) -> list[Run]:
        """Under way for longer than they may."""
        late: list[Run] = []
        while self._limits and (self._limits[0][2].over or self._limits[0][0] <= now):
            run = heapq.heappop(self._limits)[2]
            if not run.over:
                late.append(run)
        return late

    def expired(self, now: float) -> list[Run]:
        """Waiting for a thread for longer than their callers do."""
        return [run for run in self._for_thread if run.pending.deadline <= now]

    def end(self, run: Run, *, stop: bool) -> None:
        """It is decided; with `stop` the shell is asked to stop it, where it has begun."""
        run.close()
        pending = run.pending
        mine = self._of[pending.tenure]
        del mine[run]
        if not mine:
            del self._of[pending.tenure]
        run.slot.pending -= 1
        if run.records is not None:
            pending.tenure.held.discard(pending.field)
        if run.until is None:
            (self._for_thread if run.blocking else self._ready).remove(run)
            return
        self._under_way -= 1
        if stop:
            self._to_stop.append(run)

    def came_back(self, run: Run) -> None:
        """The shell has done with it: its thread is free."""
        if run.blocking:
            self._taken -= 1

    def take_stops(self) -> list[Run]:
        """To be stopped, as far as that is possible."""
        runs, self._to_stop = self._to_stop, []
        return runs
