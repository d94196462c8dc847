"""What a process has under way. None of it may fail unheard: a tick that is missing would be a mesh that
nobody looks after, a loop that is missing would leave calls without an answer for ever. A dead process is
noticed, and replaced within milliseconds; so whoever owns these is told to end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger("mesh.tasks")


class Tasks:
    """Tasks that end together.

    Args:
        whose: the process's id, for their names.
        on_failed: called when one of them has failed.
    """

    def __init__(self, whose: str, on_failed: Callable[[], None]) -> None:
        self._whose = whose
        self._on_failed = on_failed
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[asyncio.Task[None], None] = {}  # in order, so that runs can be repeated

    def __repr__(self) -> str:
        return f"Tasks({', '.join(task.get_name() for task in self._tasks) or 'none'})"

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Begin one."""
        task = self._loop.create_task(work, name=f"{self._whose} {name}")
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def step(self, work: Callable[..., None], *arguments: object) -> None:
        """Do it now. It fails as a task does: what it leaves half done, a lane taken or a key held, would
        have callers wait for ever.
        """
        try:
            work(*arguments)
        except Exception:
            log.critical("a step of %s failed, it ends", self._whose, exc_info=True)
            self._on_failed()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            name, whose = task.get_name(), self._whose
            log.critical("%s failed, %s ends", name, whose, exc_info=task.exception())
            self._on_failed()

    def cancel(self) -> None:
        """Have all of them end."""
        for task in list(self._tasks):
            task.cancel()

    async def close(self) -> None:
        """End all of them."""
        self.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
