"""An embedded store beside event loops that come and go, as those of tests and of a benchmark's repeats do.

It looks after its servers in a loop of its own, in a thread of its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self, TypeVar

from mesh.store.embedded import EmbeddedStore, NodeStatus
from mesh.store.resp import connect, pack

T = TypeVar("T")
_USUAL = 100
"""A node's priority unless it is told another."""


class LastingStore:
    """Use it as a context manager.

    Args:
        folder: where its data is.
        mesh: name of the mesh.
        partitions: of its key space; None for the usual number.
        down_after_ms: silence after which a Sentinel takes a node for dead.
    """

    def __init__(
        self, folder: Path, *, mesh: str, partitions: int | None = None, down_after_ms: int
    ) -> None:
        self._store = EmbeddedStore(
            folder, mesh=mesh, partitions=partitions, down_after_ms=down_after_ms
        )
        self._mesh = mesh
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name=f"store of {mesh}", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._wait(self._store.start())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._wait(self._store.stop())
        finally:
            self._end()

    @property
    def url(self) -> str:
        """For `store=`, without its password."""
        sentinels = ",".join(f"{host}:{port}" for host, port in self._store.sentinels)
        return f"redis+sentinel://{sentinels}/{self._mesh}"

    @property
    def password(self) -> str:
        """For `store_password=`."""
        return str(self._store.address.password)

    async def nodes(self) -> list[NodeStatus]:
        """Every server, and what it is at present."""
        work = asyncio.run_coroutine_threadsafe(self._store.nodes(), self._loop)
        return await asyncio.wrap_future(work)

    async def admit(self) -> None:
        """Have replicas that were started again be promoted like the others, as an operator would.

        A mesh takes no node into its set that its operator wants never to be promoted, and in one that
        it does not manage that is what a priority of 0 says.
        """
        for node in await self.nodes():
            if node.role == "replica":
                connection = await connect(
                    node.host, node.port, password=self.password, within_s=1.0
                )
                try:
                    command = pack("CONFIG", "SET", "replica-priority", _USUAL)
                    await connection.execute(command, within_s=1.0)
                finally:
                    await connection.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
