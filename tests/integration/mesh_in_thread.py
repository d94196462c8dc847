"""A mesh in this process whose loop turns on another thread, for tests that block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from mesh_in_process import InProcess

import mesh
from mesh.testing.blocking import BlockingHost


class InThread(BlockingHost):
    """An InProcess, asked from outside of its loop."""

    _hosted: InProcess

    def connect(self, **options: Any) -> mesh.Client:
        return mesh.Client(self.endpoint, **options)

    def key_of(self, id_: str) -> str:
        return self._run(self._hosted.key_of(id_))

    def until_pending(self, count: int = 1) -> None:
        self._run(self._hosted.until_pending(count))

    def break_connections(self, id_: str) -> int:
        async def cut() -> int:
            return self._hosted.break_connections(id_)

        return self._run(cut())

    def vanish(self, id_: str) -> None:
        """That handler's process dies, and nobody has the proof: the route stays."""
        self._run(self._hosted.nodes.pop(id_).stop())

    @contextlib.contextmanager
    def replicas_silent(self) -> Iterator[None]:
        # Plain fields of the store, which the loop reads once a call.
        with self._hosted.replicas_silent():
            yield


@contextlib.contextmanager
def mesh_in_thread(handlers: int = 2, **options: Any) -> Iterator[InThread]:
    running = InThread(InProcess(handlers, **options))
    running.start()
    try:
        yield running
    finally:
        running.stop()
