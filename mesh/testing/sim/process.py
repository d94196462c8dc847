"""A simulated process: what handles, sockets and a clock belong to, and what may be done to it from outside.

Every handle of the loop belongs to the process in whose context it was made, so killing one is to forget its
handles, and stopping it is to keep them. Nothing that runs in it can tell that it is not alone in the
world, except that threads, files and signals are not simulated.

    running --pause--> held --resume--> running        SIGSTOP, SIGCONT
    running --starve(s)--> held, one handle each s seconds --starve(0)--> running
    any --kill--> dead, for ever                       its sockets end as a kernel ends them
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from mesh.net.clock import Timer
from mesh.testing.sim.loop import SimLoop
from mesh.testing.sim.steps import DEAD, HELD, RUNNING, SimHandle, current

_EPOCH = 1_700_000_000.0


class Socket(Protocol):
    """What the kernel ends when its process has ended."""

    def end_with_process(self) -> None:
        """Its process is dead."""
        ...


class Host:
    """A machine: an address at which processes listen.

    Attributes:
        name: as traces show it.
        address: as processes name it.
        listening: who, by port.
    """

    __slots__ = ("address", "listening", "name", "next_port")

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self.listening: dict[int, Any] = {}
        self.next_port = 10_000

    def __repr__(self) -> str:
        return f"<Host {self.name}, {self.address}>"


class Process:
    """Made by `Simulation.spawn`.

    Attributes:
        name: as traces show it.
        host: where it runs.
        pid: unique in a simulation.
        clock: what it tells the time by; a `mesh.net.clock.Clock`.
        task: its main coroutine.
        on_exit: called, by nobody's process, once it is dead.
    """

    __slots__ = (
        "_backlog",
        "_lag_s",
        "_paused",
        "_pumping",
        "clock",
        "context",
        "host",
        "loop",
        "name",
        "on_exit",
        "pid",
        "skewed",
        "sockets",
        "state",
        "task",
    )

    def __init__(self, loop: SimLoop, host: Host, name: str, pid: int) -> None:
        self.loop = loop
        self.host = host
        self.name = name
        self.pid = pid
        self.state = RUNNING
        self.skewed = False
        self.clock = SimClock(self)
        self.task: asyncio.Task[Any] | None = None
        self.on_exit: list[Callable[[Process], object]] = []
        self.sockets: dict[Socket, None] = {}
        self.context = contextvars.Context()
        self.context.run(current.set, self)
        self._backlog: deque[SimHandle] = deque()
        self._paused = False
        self._lag_s = 0.0
        self._pumping = False

    def __repr__(self) -> str:
        return f"<Process {self.name} on {self.host.name}, {self.condition}>"

    @property
    def condition(self) -> str:
        """In a word, for people."""
        if self.state == DEAD:
            return "dead"
        if self._paused:
            return "paused"
        return f"starved, {self._lag_s:g} s a step" if self._lag_s else "running"

    @property
    def alive(self) -> bool:
        """It was not killed, and has not ended by itself."""
        return self.state != DEAD

    @property
    def is_paused(self) -> bool:
        """It takes no step until it is resumed."""
        return self._paused

    @property
    def is_starved(self) -> bool:
        """It takes a step now and then."""
        return self._lag_s > 0

    def begin(self, main: Coroutine[Any, Any, Any]) -> None:
        """Run its main coroutine; the process ends when that does."""
        self.task = self.loop.create_task(main, name=self.name, context=self.context.copy())
        self.task.add_done_callback(self._ended, context=contextvars.Context())

    def kill(self) -> None:
        """SIGKILL: it runs no further step, and its sockets end; what it had sent still arrives."""
        if self.state == DEAD:
            return
        self.state = DEAD
        self._backlog.clear()
        for socket in list(self.sockets):
            socket.end_with_process()
        for told in self.on_exit:
            told(self)

    def pause(self) -> None:
        """SIGSTOP: its steps wait, and its sockets go on to buffer."""
        if self.state != DEAD:
            self._paused = True
            self.state = HELD

    def resume(self) -> None:
        """SIGCONT: what came meanwhile is handled in the order in which it came."""
        if self.state != DEAD and self._paused:
            self._paused = False
            self._release()

    def starve(self, lag_s: float) -> None:
        """Let it take one step each `lag_s` seconds; 0 lets it run freely again."""
        if self.state != DEAD:
            self._lag_s = lag_s
            self._release()

    def hold(self, handle: SimHandle) -> None:
        """A step that it is not free to take now."""
        self._backlog.append(handle)
        if not self._paused:
            self._pump_later()

    def _release(self) -> None:
        if self._paused:
            return
        if self._lag_s:
            self.state = HELD
            self._pump_later()
            return
        self.state = RUNNING
        self.loop.put_first(self._backlog)
        self._backlog.clear()

    def _pump_later(self) -> None:
        if self._backlog and not self._pumping:
            self._pumping = True
            self.loop.kernel_later(self._lag_s, self._pump)

    def _pump(self) -> None:
        self._pumping = False
        if self.state == HELD and not self._paused and self._backlog:
            handle = self._backlog.popleft()
            self._pump_later()
            self.loop.run_handle(handle)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.loop.call_exception_handler(
                {"message": f"{self.name} failed", "exception": error, "process": self}
            )
        self.kill()


class SimClock:
    """One process's clock: virtual time with an offset and a rate.

    The loop's own time, and so what the process sleeps, goes by it too: a machine has one crystal.
    """

    __slots__ = ("_from", "_local", "_process", "_rate", "_wall")

    def __init__(self, process: Process) -> None:
        self._process = process
        self._rate = 1.0
        self._from = 0.0
        self._local = 0.0
        self._wall = _EPOCH

    def __repr__(self) -> str:
        return f"<SimClock of {self._process.name}, rate {self._rate:g}>"

    def now(self) -> float:
        """See Clock."""
        now = self._process.loop.virtual
        return self.local(now) if self._process.skewed else now

    def wall(self) -> float:
        """See Clock."""
        return self._wall + self.now()

    def call_later(self, delay_s: float, work: Callable[[], object]) -> Timer:
        """See Clock."""
        return self._process.loop.call_later(delay_s, work)

    def local(self, virtual: float) -> float:
        """What this clock shows at that virtual time."""
        return self._local + (virtual - self._from) * self._rate

    def virtual(self, local: float) -> float:
        """The virtual time at which this clock will show `local`."""
        return self._from + (local - self._local) / self._rate

    def skew(self, *, rate: float = 1.0, offset_s: float = 0.0, wall_s: float = 0.0) -> None:
        """From now on go at another rate, after a step.

        Args:
            rate: 0.9 loses a second in ten.
            offset_s: step of the time that spans are measured by; a real one goes only forward.
            wall_s: step of what people read.
        """
        now = self._process.loop.virtual
        self._local = self.now() + offset_s
        self._from = now
        self._rate = rate
        self._wall += wall_s - offset_s
        self._process.skewed = True
