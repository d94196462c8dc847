"""Queries beside a load: each must show at least what had been acknowledged of its key when it was sent.

A process that was stopped, or cut off, and answers from its memory when it comes back is what this finds:
its writes the store refuses, its answers nobody would.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from mesh.client.aio import AsyncClient
from mesh.errors import MeshError
from mesh.net import clock
from mesh.testing.load import OpenLoop
from mesh.testing.metronome import Metronome


@dataclass(slots=True)
class QueryVerdict:
    """What became of the queries. A stale one is a broken promise."""

    queries: int = 0
    failed: int = 0
    stale: int = 0
    slowest_s: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)


class Queries:
    """Queries at a fixed rate on the keys of a load, in turn.

    Args:
        client: to ask with.
        load: whose keys, and what was acknowledged of them.
        rate: queries a second.
        timeout_s: for each.
    """

    def __init__(
        self, client: AsyncClient, load: OpenLoop, *, rate: float, timeout_s: float = 5.0
    ) -> None:
        self.verdict = QueryVerdict()
        self._client = client
        self._load = load
        self._rate = rate
        self._timeout_s = timeout_s
        self._get = f"{load.entity}.get"
        self._running: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin. The load has been started."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Ask no more; return when every query has ended."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.gather(*self._running)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        begun, sent = clock.now(), 0
        with Metronome(1 / self._rate) as metronome:
            while True:
                while (due := begun + sent / self._rate) <= clock.now():
                    # 7 has no divisor with most numbers of keys, so the keys take turns in another order
                    # than the load's.
                    task = loop.create_task(self._ask(due, 7 * sent % len(self._load.names)))
                    self._running.add(task)
                    task.add_done_callback(self._running.discard)
                    sent += 1
                await metronome.tick()

    async def _ask(self, due: float, key: int) -> None:
        least = self._load.highest[key]
        verdict = self.verdict
        verdict.queries += 1
        try:
            value = await self._client.call(
                self._get, self._load.names[key], timeout=self._timeout_s
            )
        except MeshError as failure:
            verdict.failed += 1
            verdict.errors[type(failure).__name__] += 1
            return
        verdict.slowest_s = max(verdict.slowest_s, clock.now() - due)
        if (value or 0) < least:
            verdict.stale += 1
