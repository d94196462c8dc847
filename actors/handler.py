"""A handler as a Ray actor."""

from __future__ import annotations

import os
from functools import partial

from actors import carried, names, runtime
from actors.spec import Spec
from mesh.app import load_app
from mesh.client.inner import open_inner
from mesh.core.handling import HandlingConfig
from mesh.core.wire import Limits
from mesh.entities import Registry
from mesh.node import Node
from mesh.node_settings import NodeSettings
from mesh.store.address import StoreAddress
from mesh.store.redis import RedisStore


class HandlerActor:
    """Hosts one mesh.node.Node. Ray starts it, names it and shows it; requests never pass through Ray."""

    def __init__(self, id: str) -> None:
        self._id = id
        self._node: Node | None = None

    def __repr__(self) -> str:
        # Ray asks once, before anything is started, and shows that for ever: no word of state in it.
        name = names.handler(self._id)
        return f"{name}: {self._node!r}" if self._node else name

    async def start(self, spec: Spec) -> int:
        """Come up and offer itself to the supervisor; returns the pid."""
        spec.log_as(names.handler(self._id))
        settings = NodeSettings(
            spec.mesh,
            self._id,
            spec.supervisors,
            spec.partitions,
            host=spec.host,
            warden=spec.warden,
            token=spec.token,
            handling=HandlingConfig(
                limits=Limits(**spec.limits),
                lease=spec.timing.lease,
                replicas=spec.replicas if spec.durability == "replicated" else 0,
                **spec.handling,
            ),
            timing=spec.timing,
            health_port=spec.health_port_of(self._id),
        )
        registry = Registry([*load_app(spec.app), *carried.unpack(spec.carried)])
        store = RedisStore(StoreAddress.from_dict(spec.store), **spec.store_options)
        inner = partial(open_inner, token=spec.token, mesh=spec.mesh)
        self._node = Node(
            settings, registry, store, connect=inner, settle_memory=runtime.settle_memory
        )
        runtime.settle_memory()
        await self._node.start()
        runtime.end_with_owner(spec, self._node.ended)
        return os.getpid()

    async def address(self) -> str:
        """Where clients find it."""
        assert self._node is not None
        return f"{self._node.settings.host}:{self._node.port}"

    async def run(self) -> None:
        """Until the mesh stops, or this process has nothing left to do: a handler whose grant was
        revoked ends, its replacement is on its way.
        """
        assert self._node is not None
        await self._node.ended.wait()
        await runtime.leave_when(self._node.stop())
