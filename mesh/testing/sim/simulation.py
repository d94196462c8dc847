"""One simulation: a seed, a loop, a network, processes, and a trace of what happened.

    sim = Simulation(7)
    server = sim.spawn("server", serve())        # on a host of its own
    sim.run(some_coroutine())                    # in no process: it watches, and is never killed
    print(sim.trace)

A seed replays exactly: dice, identities, delays, time. So does everything that is simulated, as long as it
takes none of these from elsewhere.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from random import Random
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from mesh import ids
from mesh.testing.sim.loop import SimLoop, current
from mesh.testing.sim.network import Network
from mesh.testing.sim.process import Process

T = TypeVar("T")


class Happened(NamedTuple):
    """A line of a trace.

    Attributes:
        at: virtual seconds since the beginning.
        who: the process, or what stands for something outside of all of them.
        what: in words, or something whose `str` they are, asked for when somebody reads.
    """

    at: float
    who: str
    what: object

    def __str__(self) -> str:
        return f"{self.at:11.6f}  {self.who:<12} {self.what}"


@dataclass(slots=True)
class Trace:
    """What happened, oldest first."""

    lines: list[Happened] = field(default_factory=list)

    def __iter__(self) -> Iterator[Happened]:
        return iter(self.lines)

    def __len__(self) -> int:
        return len(self.lines)

    def __str__(self) -> str:
        return "\n".join(map(str, self.lines))


class Simulation:
    """See the module. Use it as a context manager, or `close` it.

    Args:
        seed: whatever is drawn in it comes from this.
        delay_s, jitter_s, chop: see Network.

    Attributes:
        processes: all that ever were, by name; the newest of each.
        observers: called with each line of the trace when it is written: at, who, what.
    """

    def __init__(
        self, seed: int, *, delay_s: float = 50e-6, jitter_s: float = 200e-6, chop: float = 0.01
    ) -> None:
        self.seed = seed
        self.loop = SimLoop()  # type: ignore[abstract]  # typeshed's, of what is not simulated
        self.network = Network(
            self.loop, self.dice("network"), delay_s=delay_s, jitter_s=jitter_s, chop=chop
        )
        self.processes: dict[str, Process] = {}
        self.trace = Trace()
        self.observers: list[Callable[[float, str, object], None]] = []
        self._pids = 100
        self._identities = self.dice("identities")

    def __repr__(self) -> str:
        return f"<Simulation of seed {self.seed} at {self.now:.6f} s>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def now(self) -> float:
        """Virtual seconds since the beginning."""
        return self.loop.virtual

    @property
    def unhandled(self) -> list[dict[str, Any]]:
        """Errors that no simulated code caught."""
        return self.loop.unhandled

    def dice(self, purpose: str) -> Random:
        """Dice of their own for a purpose: who throws more does not change what others draw."""
        return Random(f"{self.seed}/{purpose}")

    def spawn(
        self, name: str, main: Callable[[Process], Coroutine[Any, Any, Any]], *, host: str = ""
    ) -> Process:
        """Start a process.

        Args:
            name: as traces show it; of a process that is dead it may be taken again.
            main: called with the process; it ends when this does.
            host: where; one of its own, named like it, unless given.
        """
        before = self.processes.get(name)
        if before is not None and before.alive:
            raise ValueError(f"a process named {name!r} is alive")
        self._pids += 1
        process = Process(self.loop, self.network.host(host or name), name, self._pids)
        self.processes[name] = process
        process.begin(main(process))
        return process

    def note(self, who: str, what: object) -> None:
        """Add a line to the trace."""
        self.trace.lines.append(Happened(self.loop.virtual, who, what))
        for observer in self.observers:
            observer(self.loop.virtual, who, what)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine that belongs to no process, and everything else, until it is done.

        Raises:
            Stuck: it never will be.
        """
        with ids.drawn_from(self._identities.randbytes, self._pid):
            return self.loop.run_until_complete(main)

    def close(self) -> None:
        """End it; nothing that was still under way takes another step."""
        with ids.drawn_from(self._identities.randbytes, self._pid):
            self.loop.close()

    def _pid(self) -> int:
        process = current.get() or self.loop.process
        return process.pid if isinstance(process, Process) else 1


@contextlib.contextmanager
def quiet_collector() -> Iterator[None]:
    """Keep the garbage collector from stopping a run half-way; what a run leaves is collected after it.

    A simulation is one large cycle. Left to itself the collector goes through all of it again and again,
    and collected seldom it fills memory that no cache has seen (a quarter of the time of a seed). What was
    there before is not looked at.
    """
    if not gc.isenabled():
        yield  # within another one
        return
    frozen = gc.get_freeze_count()
    gc.disable()
    if not frozen:
        gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        if not frozen:
            gc.unfreeze()
        gc.enable()
