"""A leader's view of the nodes of a store in memory: they are all one object, and none is ever promoted."""

from __future__ import annotations

from mesh.core.storeview import NodeSeen, StoreSeen
from mesh.store.memory_server import HISTORY, MemoryServer

PRIMARY = "memory:0"


class MemoryNodes:
    """See mesh.store.api.StoreNodes. There are no Sentinels to tell anything."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    async def look(self, *, sentinels: bool) -> StoreSeen:
        server = self._server
        if not server.reachable:
            return StoreSeen()
        histories = frozenset({HISTORY})
        role = server.role()
        primary = NodeSeen(
            PRIMARY,
            server.run_id,
            histories,
            role.offset,
            links=role.links,
            life=server.life,
            clock_us=server.clock_us,
            keeps_all=True,
        )
        replicas = (
            NodeSeen(
                name,
                name,
                histories,
                offset,
                follows=PRIMARY,
                is_linked=True,
                priority=server.priorities.get(name, 100),
                life=server.life,
                clock_us=server.clock_us,
            )
            for name, offset in role.links
            if name not in server.paused
        )
        return StoreSeen((primary, *replicas))

    def follow(self, node: str, primary: str) -> None:
        """They all do."""

    def set_priority(self, node: str, priority: int) -> None:
        self._server.priorities[node] = priority

    def fail_over(self, node: str) -> None:
        """Nobody could."""

    def end_tilt(self, sentinels: tuple[str, ...], tilt_ms: int) -> None:
        """Nobody is."""

    async def close(self) -> None:
        """Nothing is open."""
