"""A mesh whose parts are stopped and killed, on a store of the test's own, whose servers come back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from running import READY_S

from mesh.config import MeshConfig
from mesh.launch import launch
from mesh.store.api import StoreRefused, StoreUnreachable
from mesh.testing.lasting import LastingStore
from mesh.testing.load import OpenLoop
from mesh.testing.watch import Watch

PARTITIONS = 64
AGAIN_S = 0.5


class Hurt:
    """A mesh that is hurt, and comes to itself again before the next test."""

    def __init__(self, status: dict[str, Any], store: LastingStore) -> None:
        self.status = status
        """What it last said when it was whole."""
        self._store = store

    @property
    def addresses(self) -> list[str]:
        rows = (*self.status["supervisors"], *self.status["handlers"])
        return [f"{row['host']}:{row['port']}" for row in rows]

    async def server(self, role: str) -> int:
        """Pid of a server of the store."""
        return next(node.pid for node in await self._store.nodes() if node.role == role)

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[Watch]:
        """While it is hurt; it is whole before and after."""
        async with Watch(self.status) as watch:
            assert await watch.whole(READY_S), watch.latest
            yield watch
            async with asyncio.timeout(READY_S):
                while not await watch.whole(AGAIN_S):
                    # A server that is being started does not answer yet.
                    with contextlib.suppress(StoreUnreachable, StoreRefused):
                        await self._store.admit()
            self.status = watch.latest


@contextlib.contextmanager
def hurt_mesh(
    folder: Path, name: str, *, handlers: int = 3, down_after_ms: int = 500, app: str = ""
) -> Iterator[Hurt]:
    """Such a mesh, on real Ray; its store has Sentinels that wait that long."""
    lasting = LastingStore(
        folder / "store", mesh=name, partitions=PARTITIONS, down_after_ms=down_after_ms
    )
    with lasting as store:
        config = MeshConfig(
            name=name,
            handlers=handlers,
            partitions=PARTITIONS,
            port=0,
            dashboard=False,
            app=app,
            data_dir=str(folder / "data"),
            store=store.url,
            store_password=store.password,
        )
        launched = launch(config)
        try:
            yield Hurt(launched.status, store)
        finally:
            launched.stop()


async def until(holds: Callable[[], Any], within_s: float = 15.0) -> Any:
    """Wait until that is something, 0.0 included; returns it."""
    async with asyncio.timeout(within_s):
        while (result := holds()) is None or result is False:  # noqa: ASYNC110 - of other processes
            await asyncio.sleep(0.01)
    return result


async def some_calls(load: OpenLoop, count: int = 300) -> None:
    """Wait until so many more calls have ended."""
    before = len(load.samples)
    await until(lambda: len(load.samples) >= before + count)


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Meanwhile these processes do not run."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # it was killed meanwhile
                os.kill(pid, signal.SIGCONT)


def writes_again(load: OpenLoop, since: float) -> bool:
    """A call that was due after the fault has been acknowledged."""
    return any(s.due >= since and s.value is not None for s in load.samples)


def slowest_s(load: OpenLoop) -> float:
    """The slowest call's latency."""
    return max(sample.latency_s for sample in load.samples)
