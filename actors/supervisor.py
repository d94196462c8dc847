"""A supervisor as a Ray actor, and how it starts handler actors.

Ray starts it again when it dies, at the address that it had. It is a standby then, and bids for the lead if
it hears of no leader: after all of them have died, one of them leads again.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import Any

from actors import names, priority, runtime
from actors.spec import Spec
from mesh.core.leadership import LeadershipConfig
from mesh.core.wire import Limits
from mesh.errors import MeshError
from mesh.store.address import StoreAddress
from mesh.store.redis import RedisStore
from mesh.supervisor import Supervisor, SupervisorSettings


class SupervisorActor:
    """Hosts one mesh.supervisor.Supervisor."""

    def __init__(self, mesh: str, id: str) -> None:
        self._id = id
        self._spec: Spec | None = None
        self._supervisor: Supervisor | None = None
        if runtime.is_restarted():
            self._coming = runtime.come_back(self._come_back(mesh), names.supervisor(id))

    def __repr__(self) -> str:
        # Ray asks once, before anything is started, and shows that for ever: no word of state in it.
        name = names.supervisor(self._id)
        return f"{name}: {self._supervisor!r}" if self._supervisor else name

    @property
    def _rank(self) -> int:
        return int(self._id.rpartition("-")[2])

    async def listen(self, spec: Spec, port: int) -> int:
        """Take that port, or a free one where it is 0; returns it."""
        spec.log_as(names.supervisor(self._id))
        settings = SupervisorSettings(
            spec.mesh,
            self._id,
            spec.handlers,
            spec.partitions,
            host=spec.host,
            port=port,
            token=spec.token,
            replicas=spec.replicas,
            durability=spec.durability,  # type: ignore[arg-type]
            open_s=spec.store_open_s,
            restart_after_s=spec.restart_after_s,
            limits=Limits(**spec.limits),
            timing=spec.timing,
            health_port=spec.health_port_of(self._id),
            leadership=LeadershipConfig(rank=self._rank),
            about=spec.about,
        )
        store = RedisStore(StoreAddress.from_dict(spec.store), **spec.store_options)
        self._supervisor = Supervisor(settings, store, self)
        priority.precede()
        await self._supervisor.listen()
        self._spec = dataclasses.replace(spec, supervisors=(self._supervisor.address,))
        runtime.end_with_owner(spec, self._supervisor.ended)
        return self._supervisor.port

    async def address(self) -> str:
        """Where clients find it."""
        assert self._supervisor is not None
        return self._supervisor.address

    async def meet(self, spec: Spec) -> None:
        """Know the others, and what handlers are to be told."""
        assert self._supervisor is not None
        self._spec = spec
        self._supervisor.meet(spec.supervisors)

    async def lead(self) -> None:
        """Open a life on the store and lead in it."""
        assert self._supervisor is not None
        await self._supervisor.lead()
        runtime.settle_memory()

    async def stand_by(self) -> None:
        """Watch whoever leads."""
        assert self._supervisor is not None
        await self._supervisor.stand_by()
        runtime.settle_memory()

    async def _come_back(self, mesh: str) -> None:
        spec = await asyncio.to_thread(runtime.recall, mesh)
        _, _, port = spec.supervisors[self._rank].rpartition(":")
        await self.listen(spec, int(port))
        await self.meet(spec)
        await self.stand_by()

    async def start_handler(self, id: str) -> None:
        """See Launcher."""
        assert self._spec is not None
        loop, mesh = asyncio.get_running_loop(), self._spec.mesh

        def create() -> Any:
            # A process that hangs before it has registered keeps the name: it would never be replaced.
            runtime.kill_named(mesh, names.handler(id))
            return runtime.create_handler(mesh, id)

        # Creating an actor talks to Ray's control service and may block for milliseconds.
        creating = loop.run_in_executor(None, create)
        try:
            await runtime.start(await asyncio.shield(creating), self._spec)
        except BaseException:
            # Its thread goes on when this is cancelled, and what it creates would have the name.
            with contextlib.suppress(MeshError):
                await loop.run_in_executor(None, runtime.kill, await creating)
            raise

    async def run(self) -> None:
        """Until the mesh stops."""
        assert self._supervisor is not None
        await self._supervisor.ended.wait()
        if self._supervisor.failed:
            runtime.end_process()
        await runtime.leave_when(self._supervisor.stop())
