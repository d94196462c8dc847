"""An event loop in virtual time: one thread, no selector; when nothing is ready it jumps to the next timer.

Steps take no virtual time. Ready handles run in the order in which they became ready, as asyncio promises to
each process, and processes come in turn as the network's delays have it; with the dice of the
network, which are seeded, one seed is one order of everything.

A handle belongs to the process of its context; one made in a context of nobody (a fresh
`contextvars.Context()`) belongs to the process that made it.

Not simulated, and refused: threads, sockets that exist, child processes, signals. What is given to an
executor is done at once.
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from heapq import heappop, heappush
from typing import Any, NoReturn, Protocol, TypeVar

T = TypeVar("T")

RUNNING, HELD, DEAD = 0, 1, 2
"""States of a process."""

Factory = Callable[[], asyncio.BaseProtocol]

_MOST_AT_ONCE = 200_000
"""Steps at one instant; more is a loop that waits for time to pass without letting it."""


class Stuck(RuntimeError):
    """Nothing will ever happen again, or time stands still; the simulated code waits for ever."""


class Clocked(Protocol):
    """What a process's time goes by, where it is not the loop's own."""

    def local(self, virtual: float) -> float:
        """What it shows at a virtual time."""
        ...

    def virtual(self, local: float) -> float:
        """When it will show that."""
        ...


class Runs(Protocol):
    """Whom a handle belongs to; see mesh.testing.sim.process."""

    state: int
    skewed: bool

    @property
    def clock(self) -> Clocked:
        """Its clock, of interest where it is skewed."""
        ...

    def hold(self, handle: SimHandle) -> None:
        """It is not free to take this step now."""
        ...


class Net(Protocol):
    """What lies below `create_server` and `create_connection`; see mesh.testing.sim.network."""

    def listen(
        self, process: Any, factory: Factory, host: str | None, port: int
    ) -> asyncio.AbstractServer:
        """Listen for a process."""
        ...

    async def connect(
        self, process: Any, factory: Factory, host: str, port: int
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Connect for a process."""
        ...


current: contextvars.ContextVar[Runs | None] = contextvars.ContextVar("process", default=None)
"""The process that a context belongs to."""


class _Outside:
    """Whoever watches a simulation, and is never killed."""

    state = RUNNING
    skewed = False

    def __repr__(self) -> str:
        return "<outside of all processes>"

    @property
    def clock(self) -> NoReturn:
        raise NotImplementedError

    def hold(self, handle: SimHandle) -> None:
        raise NotImplementedError


OUTSIDE = _Outside()


class SimHandle(asyncio.TimerHandle):
    """One step of a process, now or later."""

    __slots__ = ("process",)

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context,
        process: Runs | None,
        when: float,
    ) -> None:
        # Not the parent's, which asks the loop for its debug mode and fills in what only that reads.
        self._callback: Any = callback
        self._args: Any = args
        self._context = context
        self._cancelled = False
        self._when = when
        self.process = process

    def __repr__(self) -> str:
        what = "cancelled" if self._cancelled else repr(self._callback)
        return f"<SimHandle of {self.process!r}: {what}>"

    def cancel(self) -> None:
        """It is not wanted any more."""
        self._cancelled = True
        self._callback = self._args = None

    def cancelled(self) -> bool:
        """Whether it was."""
        return self._cancelled


class SimLoop(asyncio.AbstractEventLoop):
    """See the module; a `Simulation` makes one and gives it a network.

    Attributes:
        virtual: seconds since the beginning.
        unhandled: what nobody caught, as `call_exception_handler` was told of it.
        steps: handles that were run.
    """

    def __init__(self) -> None:
        self.virtual = 0.0
        self.unhandled: list[dict[str, Any]] = []
        self.steps = 0
        self.network: Net | None = None
        self._process: Runs | None = None
        self._ready: deque[SimHandle] = deque()
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

    @property
    def process(self) -> Runs | None:
        """Whose step is being taken."""
        return self._process

    # ------------------------------------------------------------------ time

    def time(self) -> float:
        """Virtual seconds, by the clock of the process that asks."""
        process = self._process
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
        handle = SimHandle(callback, args, context, context.get(current) or self._process, 0.0)
        if not self._over:
            self._ready.append(handle)
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
            _refuse("threads: they run in real time, and no run could be repeated")
        return self.call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> SimHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> SimHandle:
        if context is None:
            context = contextvars.copy_context()
        process = context.get(current) or self._process
        handle = SimHandle(callback, args, context, process, when)
        if not self._over:
            at = when
            if process is not None and process.skewed:
                # A moment late, as real timers are: rounded down it would be asked for again and again.
                at = process.clock.virtual(when) + 1e-9
            self._push(at, handle)
        return handle

    # ---------------------------------------------------- below the processes

    def kernel_at(self, when: float, work: Callable[[], object]) -> None:
        """Have something done that belongs to no process: a packet arrives, a fault begins."""
        self._push(when, work)

    def kernel_later(self, delay_s: float, work: Callable[[], object]) -> None:
        """The same, after some time."""
        self._push(self.virtual + delay_s, work)

    def post(
        self,
        process: Runs,
        context: contextvars.Context,
        callback: Callable[..., object],
        *args: Any,
    ) -> None:
        """Have a process take a step, as the kernel wakes it."""
        if process.state == DEAD or self._over:
            return
        if process.state == RUNNING and not self._ready and self._process is None:
            # Nobody is before it, so it is the next step anyway.
            self._process = process
            self.steps += 1
            try:
                context.run(callback, *args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - as asyncio does: told, and the loop goes on
                self._failed(callback, error)
            self._process = None
        else:
            self._ready.append(SimHandle(callback, args, context, process, 0.0))

    def put_first(self, handles: Iterable[SimHandle]) -> None:
        """Steps that were held back come before those that became ready since."""
        self._ready.extendleft(reversed(list(handles)))

    def run_handle(self, handle: SimHandle) -> None:
        """Take a step."""
        if handle._cancelled:
            return
        self._process = handle.process
        self.steps += 1
        try:
            handle._context.run(handle._callback, *handle._args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - as asyncio does: told, and the loop goes on
            self._failed(handle, error)

    def _failed(self, step: object, error: BaseException) -> None:
        self.call_exception_handler({"message": f"a step failed: {step!r}", "exception": error})

    def _push(self, when: float, item: SimHandle | Callable[[], object]) -> None:
        self._pushed += 1
        heappush(self._heap, (when, self._pushed, item))

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
        ready, heap = self._ready, self._heap
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
                self._process = process
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
                self._process = None
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
        self._ready.clear()
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
            self._process = None

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

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        """Nothing changes."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep it for whoever judges the run."""
        if not self._over:
            context.setdefault("process", self._process)
            self.unhandled.append(context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    async def shutdown_asyncgens(self) -> None:
        """Nothing is left to be shut down."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is none."""

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Done at once: no virtual time passes, and nobody runs beside it."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it is the caller's
            future.set_exception(error)
        return future

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

    async def getaddrinfo(  # type: ignore[override]
        self, host: str, port: int, **_options: object
    ) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        """Every name is the address itself."""
        return [(2, 1, 6, "", (host, port))]

    def _net(self, ssl: object) -> Net:
        if ssl is not None:
            _refuse("TLS")
        assert self.network is not None, "this loop has no network; see Simulation"
        return self.network

    def _someone(self) -> Runs:
        process = current.get() or self._process
        if process is None or process is OUTSIDE:
            _refuse("sockets outside of a process; spawn one")
        return process


def _refuse(what: str) -> NoReturn:
    raise NotImplementedError(f"a simulation has no {what}")


def _take_apart(task: asyncio.Task[Any]) -> None:
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coroutine = task.get_coro()
    try:
        coroutine.close()
    except RuntimeError:
        pass  # it awaits while it is being closed, or is the one that runs: it ends with its last reference
    except Exception:  # noqa: BLE001, S110 - the last words of a process that is long dead
        pass
