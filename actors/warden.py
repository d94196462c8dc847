"""A warden as a Ray actor, one for each node.

Ray starts it again when it dies. It has no proofs then until handlers return, which they do at once: their
connection to the one before has ended.
"""

from __future__ import annotations

import asyncio
import os

from actors import names, priority, runtime
from actors.spec import Spec
from mesh.warden import Warden


class WardenActor:
    """Hosts one mesh.warden.Warden."""

    def __init__(self, mesh: str, id: str) -> None:
        self._id = id
        self._warden: Warden | None = None
        if runtime.is_restarted():
            self._coming = runtime.come_back(self._come_back(mesh), names.warden(id))

    def __repr__(self) -> str:
        # Ray asks once, before anything is started, and shows that for ever: no word of state in it.
        name = names.warden(self._id)
        return f"{name}: {self._warden!r}" if self._warden else name

    async def start(self, spec: Spec) -> int:
        """Listen for handlers and report to the supervisors; returns the pid."""
        spec.log_as(names.warden(self._id))
        self._warden = Warden(spec.mesh, self._id, spec.warden, spec.supervisors, spec.token)
        priority.precede()
        self._warden.start()
        runtime.settle_memory()
        runtime.end_with_owner(spec, self._warden.ended)
        return os.getpid()

    async def _come_back(self, mesh: str) -> None:
        await self.start(await asyncio.to_thread(runtime.recall, mesh))

    async def run(self) -> None:
        """Until the mesh stops."""
        assert self._warden is not None
        await self._warden.ended.wait()
        await runtime.leave_when(self._warden.stop())
