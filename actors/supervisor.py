"""A supervisor as a Ray actor, and how it starts handler actors."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import Any

from actors import names, priority, runtime
from actors.spec import Spec
from mesh.core.wire import Limits
from mesh.errors import MeshError
from mesh.store.address import StoreAddress
from mesh.store.redis import RedisStore
from mesh.supervisor import Supervisor, SupervisorSettings


class SupervisorActor:
    """Hosts one mesh.supervisor.Supervisor."""

    def __init__(self, id: str) -> None:
        self._id = id
        self._spec: Spec | None = None
        self._supervisor: Supervisor | None = None

    def __repr__(self) -> str:
        # Ray asks once, before anything is started, and shows that for ever: no word of state in it.
        name = names.supervisor(self._id)
        return f"{name}: {self._supervisor!r}" if self._supervisor else name

    async def listen(self, spec: Spec) -> int:
        """Take the port; returns it."""
        spec.log_as(names.supervisor(self._id))
        settings = SupervisorSettings(
            spec.mesh,
            self._id,
            spec.handlers,
            spec.partitions,
            host=spec.host,
            port=spec.port,
            token=spec.token,
            replicas=spec.replicas,
            durability=spec.durability,  # type: ignore[arg-type]
            open_s=spec.store_open_s,
            restart_after_s=spec.restart_after_s,
            limits=Limits(**spec.limits),
            timing=spec.timing,
            health_port=spec.health_port_of(self._id),
            about=spec.about,
        )
        store = RedisStore(StoreAddress.from_dict(spec.store), **spec.store_options)
        self._supervisor = Supervisor(settings, store, self)
        priority.precede()
        await self._supervisor.listen()
        address = f"{spec.host}:{self._supervisor.port}"
        self._spec = dataclasses.replace(spec, supervisors=(address,))
        runtime.end_with_owner(spec, self._supervisor.ended)
        return self._supervisor.port

    async def address(self) -> str:
        """Where clients find it."""
        assert self._spec is not None
        return self._spec.supervisors[0]

    async def lead(self) -> None:
        """Open a life on the store and start supervising."""
        assert self._supervisor is not None
        await self._supervisor.lead()
        runtime.settle_memory()

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
        await runtime.leave_when(self._supervisor.stop())
