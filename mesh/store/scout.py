"""Is another node the primary by now? Asked while the present one is silent, or says that its life is closed.

A primary that is stopped keeps its connections: nothing ends them but a time-out, and one short enough for a
failover would also end those to a primary that is only busy. So a silence ends nothing by itself; it makes us
ask the other nodes, and what one of these says does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from mesh.store.api import StoreRefused, StoreUnreachable
from mesh.store.primary import Primary

log = logging.getLogger("mesh.store")


class Scout:
    """Asks once at a time, as often as it is told to go.

    Args:
        find: the primary, as for a new connection.
        found: gets its name.
    """

    def __init__(
        self, find: Callable[[], Awaitable[Primary]], found: Callable[[str], None]
    ) -> None:
        self._find = find
        self._found = found
        self._task: asyncio.Task[None] | None = None

    def go(self) -> None:
        """Ask, unless it is asked already."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._ask())

    async def close(self) -> None:
        """Ask no more."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _ask(self) -> None:
        try:
            primary = await self._find()
            name = primary.connection.peer
            primary.connection.abort("only asked")
            self._found(name)
        except (StoreUnreachable, StoreRefused) as error:
            log.debug("no other primary so far: %s", error)
        finally:
            self._task = None
