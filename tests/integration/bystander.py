"""Somebody else's calls, while a test does its worst: none of them may fail."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from mesh_in_process import InProcess


@contextlib.asynccontextmanager
async def bystander(meshed: InProcess) -> AsyncIterator[None]:
    """Another client's calls for as long as this is open; they also go on afterwards."""
    client = await meshed.connect()
    done, ending = 0, asyncio.Event()

    async def call() -> None:
        nonlocal done
        while not ending.is_set():
            for key in "abcdefgh":
                await client.call("KV.incr", key, timeout=2.0)
            done += 1
            await asyncio.sleep(0.001)

    async with asyncio.TaskGroup() as group:
        group.create_task(call())
        await meshed.until(lambda: done > 0)
        before = done
        yield
        await meshed.until(lambda: done > before)
        ending.set()
