"""A store node: starts, listens, can be paused, stopped, killed and started again from the same disk.

It runs on any asyncio loop, with its sockets: the real one, uvloop, or the simulator's. A primary with two
replicas, as the embedded store has them:

    dice = random.Random(7)
    primary = StoreNode(Disk(), dice, settings=EMBEDDED)
    await primary.start("10.0.0.1", 6379)
    for host in ("10.0.0.2", "10.0.0.3"):
        replica = StoreNode(Disk(), dice, settings=EMBEDDED, primary=("10.0.0.1", 6379))
        await replica.start(host, 6379)

A restart in place is a new node on the same disk, which may have lost power meanwhile, or have been wiped
or rolled back (see `disk`). As in the real server, a node that starts from an append-only file begins a
new history: whoever follows it is sent everything.

A node that dies with its process (its callbacks are dropped, its sockets closed by the kernel) needs no
call here; `kill` does the same to a node whose process lives on. REPLICAOF, CONFIG and whatever else an
operator or a Sentinel says comes in over a connection, as with the real server.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

from mesh.testing.sim.store.client import Client
from mesh.testing.sim.store.connection_commands import ConnectionCommands
from mesh.testing.sim.store.data_commands import Data
from mesh.testing.sim.store.disk import Disk
from mesh.testing.sim.store.follower import follow
from mesh.testing.sim.store.function_commands import FunctionCommands
from mesh.testing.sim.store.node_commands import NodeCommands
from mesh.testing.sim.store.replication_commands import ReplicationCommands
from mesh.testing.sim.store.server import Server
from mesh.testing.sim.store.settings import EMBEDDED, Settings

__all__ = ["EMBEDDED", "Disk", "StoreNode"]


class StoreNode:
    """One start of a server.

    Args:
        disk: what it finds, and writes to.
        dice: for its ids, and for when its seconds begin.
        settings: by the server's own names, where they differ from its defaults; see `EMBEDDED`.
        primary: (host, port) to replicate; None: it is a primary itself.
        load_s: how long it takes to load its data, at the start and after a full resync.
    """

    def __init__(
        self,
        disk: Disk,
        dice: random.Random,
        *,
        settings: Mapping[str, str] | None = None,
        primary: tuple[str, int] | None = None,
        load_s: float = 0.0,
    ) -> None:
        self.disk = disk
        self.host, self.port = "", 0
        self._dice = dice
        self._settings = Settings(settings or {})
        self._primary = primary
        self._load_s = load_s
        self._server: Server | None = None
        self._listener: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._second = 0

    def __repr__(self) -> str:
        state = "stopped"
        if self._server is not None:
            state = (
                "paused"
                if self._server.paused
                else "replica"
                if self.server.follower
                else "primary"
            )
        return f"<StoreNode {self.host}:{self.port}, {state}>"

    @property
    def server(self) -> Server:
        """Its state, for tests and checks that look inside."""
        assert self._server is not None, "the node is not started"
        return self._server

    @property
    def run_id(self) -> str:
        return self.server.run_id

    @property
    def is_primary(self) -> bool:
        return self.server.follower is None

    async def start(self, host: str, port: int) -> None:
        """Load the disk, listen (on any port, for 0), and follow the primary, if there is one."""
        assert self._server is None, (
            "a node is started once; for a restart, make another on its disk"
        )
        server = self._server = Server(self._settings, self.disk, self._dice)
        for commands in (ConnectionCommands, NodeCommands, ReplicationCommands, FunctionCommands):
            server.handlers |= commands(server).table
        server.load_s = self._load_s
        server.on_shutdown = self.kill
        self._recover(server)
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: Client(server), host, port)
        self.host, self.port = host, port or self._listener.sockets[0].getsockname()[1]
        server.port = self.port
        self._timer = server.later(self._dice.random(), self._tick)
        if self._primary is not None:
            follow(server, *self._primary)

    def _recover(self, server: Server) -> None:
        disk, settings = self.disk, self._settings
        if not settings.holds("appendonly"):
            return
        server.adopt(Data.load(disk.base))
        for database, commands in disk.entries:
            for args in commands:
                server.replay(database, args)
        disk.sync()
        if disk.entries and self._load_s:
            server.loading = True
            server.later(self._load_s, server.loaded)

    def _tick(self) -> None:
        self._second += 1
        self.server.every_second(self._second)
        self._timer = self.server.later(1.0, self._tick)

    def pause(self) -> None:
        """SIGSTOP: connections stay, and nothing is answered."""
        self.server.paused = True

    def resume(self) -> None:
        """SIGCONT."""
        self.server.resume()

    async def stop(self) -> None:
        """SIGTERM: everything is synced, then every connection closed."""
        if self._server is not None and not self._server.ended:
            self._server.sync()
            self.kill()
        if self._listener is not None:
            await self._listener.wait_closed()

    def kill(self) -> None:
        """SIGKILL: what was not written is lost, and every connection is closed."""
        server = self.server
        server.ended = True
        if self._timer is not None:
            self._timer.cancel()
        if self._listener is not None:
            self._listener.close()
        if server.follower is not None:
            server.follower.end()
        for client in list(server.clients.values()):
            client.kill()
