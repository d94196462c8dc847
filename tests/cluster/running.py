"""A running mesh, as tests see it: watched, loaded, and hurt."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from mesh.client.aio import AsyncClient
from mesh.client.tool import Tool
from mesh.net import clock
from mesh.testing.load import OpenLoop

HANDLERS = 4
MESH = Path(sys.executable).with_name("mesh")
READY_S = 40.0

Run = Callable[..., "subprocess.CompletedProcess[str]"]

APP = """
    import os
    import signal

    import mesh

    @mesh.entity
    class Account:
        balance: int = 0

        @mesh.command
        def deposit(self, amount: int) -> int:
            if amount <= 0:
                raise ValueError("a deposit is above 0", amount)
            self.balance += amount
            return self.balance

        @mesh.command
        def poison(self) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        @mesh.query
        def read(self) -> int:
            return self.balance
"""


def write_app(folder: Path) -> None:
    """A user's module `bank`, in a folder that is on nobody's path."""
    (folder / "bank.py").write_text(textwrap.dedent(APP))


class Cluster:
    """A running mesh, as a test watches and hurts it."""

    def __init__(self, tool: Tool) -> None:
        self.tool = tool

    async def status(self) -> dict[str, Any]:
        return dict(await self.tool.ask("status"))

    async def ready(self) -> dict[str, Any]:
        """Wait until every handler is there and nothing moves."""
        return await self.until(lambda status: status["ready"])

    async def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until that holds of the status."""
        async with asyncio.timeout(READY_S):
            while not holds(status := await self.status()):  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.02)
        return status

    async def events(self, since: float, kind: str) -> list[dict[str, Any]]:
        """Events of a kind, at or after a wall-clock time."""
        return [e for e in await self.tool.ask("events") if e["kind"] == kind and e["at"] >= since]

    async def kill(self, *ids: str) -> float:
        """SIGKILL these handlers at once; when, by the wall clock."""
        pids = {h["id"]: h["pid"] for h in (await self.status())["handlers"]}
        at = clock.wall()
        for id_ in ids:
            os.kill(pids[id_], signal.SIGKILL)
        return at - 0.001


@contextlib.asynccontextmanager
async def under_load(
    client: AsyncClient, prefix: str, *, in_a_row: bool = False
) -> AsyncIterator[OpenLoop]:
    """An open loop of increments, whose ledger must balance at the end.

    However many handlers die at one instant, no call fails. Where one dies a while after the other, a call
    that both had taken up goes to no third, since it may be what kills them: its caller is told that the
    outcome is unknown.
    """
    load = OpenLoop(client, rate=400, keys=300, prefix=prefix)
    await load.start()
    try:
        yield load
    finally:
        await load.stop()
    verdict = await load.verdict()
    assert verdict.calls > 100
    assert (verdict.lost, verdict.doubled, verdict.not_executed) == (0, 0, 0), verdict
    assert verdict.unknown == 0 or in_a_row, verdict
    assert verdict.unknown <= verdict.calls * 0.02, verdict
