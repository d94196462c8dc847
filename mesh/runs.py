"""Carries out what mesh.core.runs asks for: async methods as tasks, blocking ones on threads.

Decides nothing: whether a run was in time, and what is left of it, the core says. A task that is told to
stop is cancelled. A thread cannot be: it is logged by its method's name, counted, and lost until it comes
back by itself.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from mesh.context import Outgoing, here, task_source
from mesh.core.runs import Run
from mesh.errors import BadRequest, Unavailable
from mesh.threads import Threads

log = logging.getLogger("mesh.runs")

_PATIENCE_S = 1.0
"""How long tasks have for ending that were cancelled because their handler stops."""

OnRan = Callable[[Run, Any, BaseException | None], None]


class Peer(Protocol):
    """A handler's own client, by which its methods call other entities."""

    async def call(self, outgoing: Outgoing) -> Any:
        """Make the call."""
        ...

    async def close(self) -> None:
        """Give it up."""
        ...


class Runner:
    """The tasks and threads of one handler.

    Args:
        on_ran: told once of each run that has come to its end, on the loop.
        connect: makes the handler's own client; asked when the first method calls another entity.

    Attributes:
        stuck: by method's name, the threads that it keeps past its limit.
    """

    def __init__(
        self, on_ran: OnRan, connect: Callable[[], Coroutine[Any, Any, Peer]], name: str
    ) -> None:
        self.stuck: dict[str, int] = {}
        self._on_ran = on_ran
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self._threads = Threads(f"{name} blocking")
        self._tasks: dict[Run, asyncio.Task[None]] = {}
        self._of_task: dict[asyncio.Task[Any], Run] = {}
        self._stopped: set[Run] = set()
        """Blocking runs that were told to stop, and whose threads are not back."""
        self._calls: dict[Run, set[concurrent.futures.Future[Any]]] = {}
        self._peer: asyncio.Task[Peer] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"Runner({len(self._tasks)} tasks, {self._threads!r}, stuck {self.stuck})"

    def on_loop(self) -> Run | None:
        """The run whose coroutine keeps the loop at this moment; may be asked by another thread."""
        task = asyncio.current_task(self._loop)
        return self._of_task.get(task) if task is not None else None

    def start(self, run: Run) -> None:
        """Carry it out."""
        work = run.work()
        if run.blocking:
            try:
                self._threads.submit(lambda: self._in_thread(run, work))
            except RuntimeError as error:
                self._loop.call_soon(self._tell, run, None, error)
            return
        # Nothing of the call that happened to wake this loop up belongs to the run.
        fresh = contextvars.Context()
        fresh.run(task_source.set, run)
        task = self._loop.create_task(self._in_task(run, work), name=run.name, context=fresh)
        self._tasks[run] = task
        self._of_task[task] = run

    def stop(self, run: Run) -> None:
        """It counts for nothing any more: have it end, as far as that is possible."""
        task = self._tasks.get(run)
        if task is not None:
            task.cancel()
        if not run.blocking:
            return
        self._stopped.add(run)
        for call in self._calls.get(run, ()):
            call.cancel()
        self.stuck[run.name] = self.stuck.get(run.name, 0) + 1
        log.warning(
            "%s goes on in its thread though it counts for nothing any more (limit %g s); %d threads are "
            "lost that way",
            run.name,
            run.limit_s,
            sum(self.stuck.values()),
        )

    async def close(self) -> None:
        """Cancel the tasks, leave the threads to themselves, give up the client."""
        self._closed = True
        tasks = list(self._tasks.values())
        if self._peer is not None and not self._peer.done():
            self._peer.cancel()
        for task in tasks:
            task.cancel()
        for calls in self._calls.values():
            for call in calls:
                call.cancel()
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=_PATIENCE_S)
            for task in left:
                log.warning("%s does not end though it was cancelled", task.get_name())
        self._threads.close()
        if self._peer is not None:
            with contextlib.suppress(Exception, asyncio.CancelledError):
                await (await self._peer).close()

    # ------------------------------------------------------------------------------- the methods themselves

    async def _in_task(self, run: Run, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        result, error = None, None
        try:
            result = await work()
        except KeyboardInterrupt:
            raise
        except BaseException as raised:  # noqa: BLE001 - whatever a user's method raises is its outcome
            error = raised
        del self._of_task[self._tasks.pop(run)]
        self._tell(run, result, error)

    def _in_thread(self, run: Run, work: Callable[[], Any]) -> Callable[[], None]:
        result, error = None, None
        place = here()
        place.source = run
        try:
            result = work()
        except BaseException as raised:  # noqa: BLE001 - whatever a user's method raises is its outcome
            error = raised
        finally:
            place.source = None

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for it
                self._loop.call_soon_threadsafe(self._from_thread, run, result, error)

        return tell

    def _from_thread(self, run: Run, result: Any, error: BaseException | None) -> None:
        self._calls.pop(run, None)
        if run in self._stopped:
            self._stopped.discard(run)
            left = self.stuck[run.name] - 1
            if left:
                self.stuck[run.name] = left
            else:
                del self.stuck[run.name]
            log.info("%s came back long after its end; its thread is free", run.name)
        self._tell(run, result, error)

    def _tell(self, run: Run, result: Any, error: BaseException | None) -> None:
        if not self._closed:
            self._on_ran(run, result, error)

    # ------------------------------------------------------------------------ their calls to other entities

    def call(self, source: Any, outgoing: Outgoing) -> Any:
        """See mesh.core.tenure.Home: awaitable on the loop, the reply itself in a thread."""
        run: Run = source
        if not run.blocking:
            return self._call(run, outgoing)
        if here().source is not run:
            raise BadRequest(
                f"{run.name} runs on a thread of its own; only there it may call other entities"
            )
        calls = self._calls.setdefault(run, set())
        call = asyncio.run_coroutine_threadsafe(self._call(run, outgoing), self._loop)
        calls.add(call)
        try:
            return call.result()
        finally:
            calls.discard(call)

    async def _call(self, run: Run, outgoing: Outgoing) -> Any:
        if run.over or self._closed:
            raise Unavailable(f"{run.name} is over; it calls nobody any more")
        if self._peer is None or (self._peer.done() and self._failed(self._peer)):
            # In a context of its own: it outlives the run that happens to be the first to need it.
            self._peer = self._loop.create_task(
                self._connect(), name="handler's own client", context=contextvars.Context()
            )
        peer = await asyncio.shield(self._peer)
        return await peer.call(outgoing)

    @staticmethod
    def _failed(task: asyncio.Task[Peer]) -> bool:
        return task.cancelled() or task.exception() is not None
