"""A simulated store for tests: nodes and Sentinels as processes on hosts of their own, and one client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from mesh.store.api import StoreRefused, StoreUnreachable
from mesh.store.resp import Connection, connect, pack
from mesh.testing.sim import Process, Simulation
from mesh.testing.sim.store.node import EMBEDDED, Disk, StoreNode
from mesh.testing.sim.store.sentinel import SentinelNode
from mesh.testing.sim.store.sentinel_view import SentinelConfig

PORT = 6379
SENTINEL_PORT = 26_379
Main = Callable[["Rig"], Coroutine[Any, Any, None]]
PLAIN = EMBEDDED | {"min-replicas-to-write": "0"}


class Rig:
    """db-0 … are nodes, se-0 … Sentinels."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.dice = sim.dice("store")
        self.nodes: dict[str, StoreNode] = {}
        self.disks: dict[str, Disk] = {}
        self.sentinels: dict[str, SentinelNode] = {}
        self.connections: dict[str, Connection] = {}

    def address(self, name: str) -> tuple[str, int]:
        port = PORT if name.startswith("db") else SENTINEL_PORT
        return self.sim.network.host(name).address, port

    def link(self, name: str) -> str:
        host, port = self.address(name)
        return f"{host}:{port}"

    async def node(self, name: str, primary: str | None = None, **options: Any) -> StoreNode:
        """Start a node, on the disk that it had before, if it had one."""
        disk = self.disks.setdefault(name, Disk())
        follows = self.address(primary) if primary else None
        settings = PLAIN | options.pop("settings", {})

        async def be(process: Process) -> None:
            node = StoreNode(disk, self.dice, settings=settings, primary=follows, **options)
            await node.start(*self.address(name))
            self.nodes[name] = node
            await process.loop.create_future()

        self.nodes.pop(name, None)
        self.sim.spawn(name, be)
        await self.until(lambda: name in self.nodes)
        return self.nodes[name]

    async def store(self, replicas: int = 2, **options: Any) -> None:
        """A primary db-0, and replicas that follow it."""
        await self.node("db-0", **options)
        for number in range(1, 1 + replicas):
            await self.node(f"db-{number}", "db-0", **options)
        await self.until_async(lambda: self._followed("db-0", replicas))

    async def _followed(self, primary: str, replicas: int) -> bool:
        return len((await self.ask(primary, "ROLE"))[2]) == replicas

    def config(self, number: int, count: int, **options: Any) -> SentinelConfig:
        others = {self.address(f"se-{i}"): f"{i:040x}" for i in range(count) if i != number}
        replicas = [self.address("db-1"), self.address("db-2")]
        options = {"down_after_s": 0.5} | options
        id_ = f"{number:040x}"
        return SentinelConfig(id_, "m", self.address("db-0"), replicas, others, **options)

    async def sentinel(self, name: str, config: SentinelConfig) -> None:
        async def be(process: Process) -> None:
            sentinel = SentinelNode(config, self.dice)
            await sentinel.start(*self.address(name))
            self.sentinels[name] = sentinel
            await process.loop.create_future()

        self.sentinels.pop(name, None)
        self.sim.spawn(name, be)
        await self.until(lambda: name in self.sentinels)

    async def watched(self, count: int = 3, **options: Any) -> None:
        """A store, and Sentinels that have had time to look at it."""
        await self.store()
        for number in range(count):
            await self.sentinel(f"se-{number}", self.config(number, count, **options))
        await asyncio.sleep(3)

    async def connect(self, name: str) -> Connection:
        return await connect(*self.address(name), within_s=1.0)

    async def ask(self, name: str, *args: bytes | str | int) -> Any:
        """One command's reply, on a connection that is kept."""
        connection = self.connections.get(name)
        if connection is None or connection.closed:
            connection = self.connections[name] = await self.connect(name)
        (reply,) = await connection.execute(pack(*args), within_s=30.0)
        return reply

    async def until(self, holds: Callable[[], bool], within_s: float = 30.0) -> None:
        async with asyncio.timeout(within_s):
            while not holds():  # noqa: ASYNC110 - virtual
                await asyncio.sleep(0.005)

    async def until_async(
        self, holds: Callable[[], Awaitable[bool]], within_s: float = 30.0
    ) -> None:
        async with asyncio.timeout(within_s):
            while True:
                try:
                    if await holds():
                        return
                except (StoreUnreachable, StoreRefused):
                    pass
                await asyncio.sleep(0.005)

    def role(self, name: str) -> str:
        return "primary" if self.nodes[name].is_primary else "replica"


def simulate(main: Main, *, seed: int = 1, chop: float = 0.0) -> None:
    """Run it as the client's process."""
    with Simulation(seed, chop=chop) as sim:

        async def be(process: Process) -> None:
            await main(Rig(sim))

        async def run() -> None:
            task = sim.spawn("client", be).task
            assert task is not None
            await task

        sim.run(run())
        assert not sim.unhandled, sim.unhandled
