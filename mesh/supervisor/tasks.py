"""What a supervisor has under way. None of it may fail unheard: a tick that is missing would be a mesh that
nobody looks after, and a dead supervisor is noticed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger("mesh.supervisor")


class Tasks:
    """Tasks that end together.

    Args:
        whose: the supervisor's id, for their names.
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

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            log.critical("%s failed", task.get_name(), exc_info=task.exception())
            self._on_failed()

    def cancel(self) -> None:
        """Have all of them end."""
        for task in list(self._tasks):
            task.cancel()

    async def close(self) -> None:
        """End all of them."""
        self.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
