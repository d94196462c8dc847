"""An entity whose command kills the process that runs it, as a bug may that is reached by one call."""

from __future__ import annotations

from contextvars import ContextVar

from mesh.methods import command
from mesh.specs import entity
from mesh.testing.sim.loop import current
from mesh.testing.sim.process import Process

struck: ContextVar[list[int]] = ContextVar("struck")
"""In a handler's context: pids of those that it has killed, to be added to."""


@entity
class Poison:
    """Kills."""

    @command
    def strike(self) -> None:
        """Nobody gets to see what this returns."""
        process = current.get()
        assert isinstance(process, Process)
        struck.get().append(process.pid)
        process.kill()
