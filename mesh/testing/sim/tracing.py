"""What callers are told, and what the mesh logs, written into a simulation's trace."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mesh.testing.history import End, History, Operation
from mesh.testing.sim.loop import current
from mesh.testing.sim.process import Process


class TracedHistory(History):
    """Its operations are in the trace, too."""

    def __init__(self, now: Callable[[], float], note: Callable[[str, object], None]) -> None:
        super().__init__(now)
        self._note = note

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, {len(self)} operations>"

    def end(self) -> None:
        """The run is over; what is kept of it refers to nothing that ran."""
        self._now, self._note = lambda: 0.0, lambda _who, _what: None

    def begin(self, *args: Any, **kwargs: Any) -> Operation:
        operation = super().begin(*args, **kwargs)
        self._note(operation.client, _Begun(operation))
        return operation

    def finish(self, operation: Operation, end: End, error: tuple[str, str] | None = None) -> None:
        super().finish(operation, end, error)
        self._note(operation.client, operation)


class _Begun(NamedTuple):
    """A line of the trace, written down when somebody reads it."""

    operation: Operation

    def __str__(self) -> str:
        return f"#{self.operation.number} {self.operation.call} ..."


class _LogNotes(logging.Handler):
    """Puts what the mesh logs into the trace, under the process that logs it."""

    def __init__(self, note: Callable[[str, object], None]) -> None:
        super().__init__(logging.WARNING)
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        process = current.get()
        who = process.name if isinstance(process, Process) else "log"
        words = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            words += f": {record.exc_info[1]!r}"
        self._note(who, f"logs: {words}")


@contextlib.contextmanager
def logged(note: Callable[[str, object], None]) -> Iterator[None]:
    """Have what the mesh logs in the trace, and nowhere else, for as long as the block lasts."""
    logger = logging.getLogger("mesh")
    handler = _LogNotes(note)
    propagates = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates


def failure(told: dict[str, Any]) -> str:
    """An error that no simulated code caught, in a line."""
    error = told.get("exception")
    if error is None:
        return str(told["message"])
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    where = " < ".join(f"{f.name} ({Path(f.filename).name}:{f.lineno})" for f in reversed(frames))
    return f"{error!r} in {where}; {told['message']}"
