"""An event loop in virtual time: one thread, no selector; when nothing is ready it jumps to the next timer.

Steps take no virtual time. Ready handles run in the order in which they became ready, as asyncio promises to
each process, and processes come in turn as the network's delays have it; with the dice of the
network, which are seeded, one seed is one order of everything.
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from heapq import heappop, heappush
from typing import Any, TypeVar

from mesh.testing.sim.steps import DEAD, HELD, OUTSIDE, RUNNING, Runs, SimHandle, current
from mesh.testing.sim.surroundings import Factory, Net, Surroundings, refuse

__all__ = ["SimLoop", "Stuck", "current"]

T = TypeVar("T")

_MOST_AT_ONCE = 200_000
"""Steps at one instant; more is a loop that waits for time to pass without letting it."""


class Stuck(RuntimeError):
    """Nothing will ever happen again, or time stands still; the simulated code waits for ever."""


class SimLoop(Surroundings):
    """See the module; a `Simulation` makes one and gives it a network.

    Attributes:
        virtual: seconds since the beginning.
        unhandled: what nobody caught, as `call_exception_handler` was told of it.
        steps: handles that were run.
        process: whose step is being taken; None: what is done now belongs to none.
        ready: steps that wait for their turn at this instant.
    """

    def __init__(self) -> None:
        self.virtual = 0.0
        self.unhandled: list[dict[str, Any]] = []
        self.steps = 0
        self.network: Net | None = None
        self.process: Runs | None = None
        self.ready: deque[SimHandle] = deque()
        self._heap: list[tuple[float, int, SimHandle | Callable[[], object]]] = []
        self._pushed = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self._prune_at = 512
        self._running = False
        self._stopping = False
        self._over = False
        self._bare = contextvars.Context()

    def __repr__(self) -> str:
        return f"<SimLoop at {self.virtual:.6f} s, {len(self._heap)} timers>"

    # ------------------------------------------------------------------ time

    def time(self) -> float:
        """Virtual seconds, by the clock of the process that asks."""
        process = self.process
        if process is not None and process.skewed:
            return process.clock.local(self.virtual)
        return self.virtual

    def call_soon(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> SimHandle:
        if context is None:
            context = contextvars.copy_context()
        handle = SimHandle(callback, args, context, context.get(current) or self.process, 0.0)
        self.ready.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> SimHandle:
        if self._over:
            raise RuntimeError("this simulation is over")
        if events._get_running_loop() is not self:
            refuse("threads: they run in real time, and no run could be repeated")
        return self.call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> SimHandle:
        process = self.process
        if process is not None and process.skewed:
            return self.call_at(self.time() + delay, callback, *args, context=context)
        # As call_at, which would be two calls more for each sleep.
        if context is None:
            context = contextvars.copy_context()
        process = context.get(current) or process
        when = self.virtual + delay
        if process is not None and process.skewed:
            return self.call_at(when, callback, *args, context=context)
        handle = SimHandle(callback, args, context, process, when)
        self._pushed = pushed = self._pushed + 1
        heappush(self._heap, (when, pushed, handle))
        return handle

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> SimHandle:
        if context is None:
            context = contextvars.copy_context()
        process = context.get(current) or self.process
        handle = SimHandle(callback, args, context, process, when)
        at = when
        if process is not None and process.skewed:
            # A moment late, as real timers are: rounded down it would be asked for again and again.
            at = process.clock.virtual(when) + 1e-9
        self._pushed = pushed = self._pushed + 1
        heappush(self._heap, (at, pushed, handle))
        return handle

    # ---------------------------------------------------- below the processes

    def kernel_at(self, when: float, work: Callable[[], object]) -> None:
        """Have something done that belongs to no process: a packet arrives, a fault begins."""
        self._pushed = pushed = self._pushed + 1
        heappush(self._heap, (when, pushed, work))

    def kernel_later(self, delay_s: float, work: Callable[[], object]) -> None:
        """The same, after some time."""
        self.kernel_at(self.virtual + delay_s, work)

    def post(
        self,
        process: Runs,
        context: contextvars.Context,
        callback: Callable[..., object],
        *args: Any,
    ) -> None:
        """Have a process take a step, as the kernel wakes it."""
        if process.state == DEAD:
            return
        if process.state == RUNNING and not self.ready and self.process is None:
            self.step(process, context, callback, *args)
        else:
            self.ready.append(SimHandle(callback, args, context, process, 0.0))

    def step(
        self,
        process: Runs,
        context: contextvars.Context,
        callback: Callable[..., object],
        *args: Any,
    ) -> None:
        """Have a process that runs take a step now: where nothing is ready and no step is being taken, so
        that it is the next one anyway.
        """
        self.process = process
        self.steps += 1
        try:
            context.run(callback, *args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - as asyncio does: told, and the loop goes on
            self._failed(callback, error)
        self.process = None

    def put_first(self, handles: Iterable[SimHandle]) -> None:
        """Steps that were held back come before those that became ready since."""
        self.ready.extendleft(reversed(list(handles)))

    def run_handle(self, handle: SimHandle) -> None:
        """Take a step."""
        if handle._cancelled:
            return
        self.process = handle.process
        self.steps += 1
        try:
            handle._context.run(handle._callback, *handle._args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - as asyncio does: told, and the loop goes on
            self._failed(handle, error)

    def _failed(self, step: object, error: BaseException) -> None:
        self.call_exception_handler({"message": f"a step failed: {step!r}", "exception": error})

    # --------------------------------------------------------------- running

    def run_until_complete(  # type: ignore[override]
        self, future: Coroutine[Any, Any, T]
    ) -> T:
        """Run until it is done; time passes as fast as it can.

        Raises:
            Stuck: it will never be done.
        """
        if self._running or events._get_running_loop() is not None:
            future.close()
            raise RuntimeError("another event loop runs in this thread")
        if self._over:
            raise RuntimeError("this simulation is over")
        self._running = True
        before = current.get()
        events._set_running_loop(self)
        try:
            current.set(OUTSIDE)
            task = asyncio.Task(future, loop=self)
            task.add_done_callback(self._stop, context=contextvars.Context())
            self._tasks.append(task)
            self._stopping = False
            self._run()
            return task.result()
        finally:
            current.set(before)
            events._set_running_loop(None)
            self._running = False

    def _run(self) -> None:  # noqa: C901 - one loop, run for every step
        ready, heap = self.ready, self._heap
        at_once = 0
        while True:
            while ready:
                handle = ready.popleft()
                if handle._cancelled:
                    continue
                process = handle.process
                if process is not None and process.state != RUNNING:
                    if process.state == HELD:
                        process.hold(handle)
                    continue
                # As run_handle, which would be a call more for each step.
                self.process = process
                try:
                    handle._context.run(handle._callback, *handle._args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # noqa: BLE001 - as there
                    self._failed(handle, error)
                if self._stopping:
                    return
                at_once += 1
                if at_once > _MOST_AT_ONCE:
                    raise Stuck(f"{at_once} steps at {self.virtual:.6f} s: time does not pass")
            if not heap:
                raise Stuck(f"at {self.virtual:.6f} s nothing is ready and no timer is set")
            when, _, item = heappop(heap)
            if when > self.virtual:
                self.virtual = when
                self.steps += at_once
                at_once = 0
            if type(item) is SimHandle:
                if not item._cancelled:
                    ready.append(item)
            else:
                self.process = None
                item()  # type: ignore[operator]  # a SimHandle is final
                if self._stopping:
                    return

    def _stop(self, _: object) -> None:
        self._stopping = True

    def stop(self) -> None:
        """Have `run_until_complete` return after this step."""
        self._stopping = True

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._over

    def close(self) -> None:
        """End it: what has not come to its end never will, and is taken apart now, not by the collector in
        the middle of another simulation.
        """
        if self._over:
            return
        self._over = True
        self.ready.clear()
        self._heap.clear()
        before = events._get_running_loop()
        events._set_running_loop(self)
        try:
            for task in self._tasks:
                if not task.done():
                    _take_apart(task)
        finally:
            events._set_running_loop(before)
            self._tasks.clear()
            self.ready.clear()
            self._heap.clear()
            self.process = None

    # ------------------------------------------------------ futures and tasks

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[T]:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        # Held, or the tasks of a process that was killed would be collected, and their `finally` run.
        self._tasks.append(task)
        if len(self._tasks) >= self._prune_at:
            self._tasks = [task for task in self._tasks if not task.done()]
            self._prune_at = 512 + 2 * len(self._tasks)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep it for whoever judges the run."""
        if not self._over:
            context.setdefault("process", self.process)
            self.unhandled.append(context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    # --------------------------------------------------------------- network

    async def create_server(  # type: ignore[override]
        self,
        protocol_factory: Factory,
        host: str | None = None,
        port: int | None = None,
        *,
        ssl: object = None,
        **_options: object,
    ) -> asyncio.AbstractServer:
        """Listen in the simulated network, on the host of the process that asks."""
        return self._net(ssl).listen(self._someone(), protocol_factory, host, port or 0)

    async def create_connection(  # type: ignore[override]
        self,
        protocol_factory: Factory,
        host: str | None = None,
        port: int | None = None,
        *,
        ssl: object = None,
        **_options: object,
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Connect in the simulated network."""
        assert host is not None and port is not None
        return await self._net(ssl).connect(self._someone(), protocol_factory, host, port)

    def _net(self, ssl: object) -> Net:
        if ssl is not None:
            refuse("TLS")
        assert self.network is not None, "this loop has no network; see Simulation"
        return self.network

    def _someone(self) -> Runs:
        process = current.get() or self.process
        if process is None or process is OUTSIDE:
            refuse("sockets outside of a process; spawn one")
        return process


def _take_apart(task: asyncio.Task[Any]) -> None:
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coroutine = task.get_coro()
    try:
        coroutine.close()
    except RuntimeError:
        pass  # it awaits while it is being closed, or is the one that runs: it ends with its last reference
    except Exception:  # noqa: BLE001, S110 - the last words of a process that is long dead
        pass
