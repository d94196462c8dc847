"""A mesh in this process whose loop turns on another thread, for tests that block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal
from mesh_in_process import InProcess

import mesh


class InThread:
    """An InProcess, asked from outside of its loop."""

    def __init__(self, portal: BlockingPortal, meshed: InProcess) -> None:
        self._portal = portal
        self._meshed = meshed

    @property
    def endpoint(self) -> str:
        return self._meshed.endpoint

    def connect(self, **options: Any) -> mesh.Client:
        return mesh.Client(self.endpoint, **options)

    def key_of(self, id_: str) -> str:
        return self._portal.call(self._meshed.key_of, id_)

    def until_pending(self, count: int = 1) -> None:
        self._portal.call(self._meshed.until_pending, count)

    def break_connections(self, id_: str) -> int:
        return self._portal.call(self._meshed.break_connections, id_)

    def vanish(self, id_: str) -> None:
        """That handler's process dies, and nobody has the proof: the route stays."""
        self._portal.call(self._meshed.nodes.pop(id_).stop)

    @contextlib.contextmanager
    def replicas_silent(self) -> Iterator[None]:
        silence = self._meshed.replicas_silent()
        self._portal.call(silence.__enter__)
        try:
            yield
        finally:
            self._portal.call(silence.__exit__, None, None, None)


@contextlib.contextmanager
def mesh_in_thread(handlers: int = 2, **options: Any) -> Iterator[InThread]:
    with start_blocking_portal("asyncio", {"use_uvloop": True}) as portal:
        meshed = portal.call(lambda: InProcess(handlers, **options))
        with portal.wrap_async_context_manager(meshed):
            yield InThread(portal, meshed)
