"""The half of a server that data pass through: from the disk, from a primary, to replicas, to the disk."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from mesh.store.resp import pack
from mesh.testing.sim.store.commands import BY_WRITTEN_NAME, command_named
from mesh.testing.sim.store.data_commands import Data
from mesh.testing.sim.store.disk import Commands, Disk
from mesh.testing.sim.store.libraries import Libraries
from mesh.testing.sim.store.links import Links
from mesh.testing.sim.store.pieces import Piece
from mesh.testing.sim.store.replies import encode
from mesh.testing.sim.store.session import Session
from mesh.testing.sim.store.settings import Settings
from mesh.testing.sim.store.stream import Stream, new_id

_MULTI, _EXEC = pack("MULTI"), pack("EXEC")


class Primary(Protocol):
    """A replica's side of its replication; see `follower`."""

    host: str
    port: int
    state: str
    """connect, connecting, handshake, sync or connected, as ROLE says it."""
    heard_at: float
    """When the primary last sent anything."""
    down_since: float | None
    """When the link was lost; None while it is up."""
    database: int
    """That the stream's next command concerns."""

    def look(self, now: float, timeout_s: int) -> None:
        """Once a second: connect again, acknowledge, or give the connection up."""
        ...

    def end(self) -> None:
        """Follow no more."""
        ...


class Replicating:
    """A server's data, and where they go.

    Attributes:
        run_id: drawn at each start.
        follower: towards the primary; None: this node is one.
        synced_offset: how much of the stream is on this node's disk for certain.
        full_resyncs, partial_resyncs: how replicas that attached here were served.
        paused: nothing is carried out; what arrives meanwhile waits.
    """

    def __init__(self, settings: Settings, disk: Disk, dice: random.Random) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.settings = settings
        self.disk = disk
        self.dice = dice
        self.run_id = new_id(dice)
        self.port = 0
        self.stream = Stream(new_id(dice))
        self.links = Links(self.stream, self.later, settings.number("repl-backlog-size"))
        self.follower: Primary | None = None
        self.clients: dict[int, Session] = {}
        self.data = Data()
        self.libraries = Libraries(self.data)
        self.synced_offset = 0
        self.full_resyncs = self.partial_resyncs = 0
        self.loading = False
        self.when_loaded: list[Callable[[], None]] = []
        self.load_s = 0.0
        self.paused = False
        self.ended = False
        self.started_at = self.now
        self.on_shutdown: Callable[[], None] = lambda: None
        self._held: deque[Callable[[], None]] = deque()
        self._stream_database = -1
        self._awake = False

    # ------------------------------------------------------------------------------------ the loop

    @property
    def now(self) -> float:
        return self.loop.time()

    def later(self, delay_s: float, then: Callable[[], None]) -> asyncio.TimerHandle:
        """The loop's call_later; nothing happens while the node is paused or after its end."""

        def ring() -> None:
            if not self.ended and not self.is_held(ring):
                then()

        return self.loop.call_later(delay_s, ring)

    def is_held(self, again: Callable[[], None]) -> bool:
        """Whether the node is paused; `again` is called once it is resumed."""
        if self.paused:
            self._held.append(again)
        return self.paused

    def resume(self) -> None:
        """Go on after a pause, with what arrived meanwhile, in order."""
        self.paused = False
        held, self._held = self._held, deque()
        for again in held:
            again()

    def wake(self) -> None:
        """Send replicas what is to be sent before the loop sleeps."""
        if not self._awake and self.links.all:
            self._awake = True
            self.loop.call_soon(self._before_sleep)

    def _before_sleep(self) -> None:
        self._awake = False
        if not self.ended and not self.is_held(self.wake):
            self.links.flush()

    # ------------------------------------------------------------------------------------- the data

    def propagate(self, database: int, commands: Commands) -> None:
        """Hand on what was written: to the disk, and to the replicas as one transaction."""
        if self.settings.holds("appendonly"):
            self.disk.append(database, commands)
        if self.follower is None:
            self._feed(database, commands)
        if self.settings.text("appendfsync") == "always":
            self.sync()
        self.wake()

    def _feed(self, database: int, commands: Commands) -> None:
        if not self.links.wants_bytes:
            self.links.count_write()
            return
        packed = [pack(*command) for command in commands]
        if len(packed) > 1:
            packed = [_MULTI, *packed, _EXEC]
        if database != self._stream_database:
            self._stream_database = database
            select = [b"SELECT", b"%d" % database]
            self.links.feed(Piece(pack(*select), (select,)))
        self.links.feed(Piece(b"".join(packed), commands))

    def publish(self, channel: bytes, message: bytes) -> int:
        """PUBLISH: to those who listen here and, by way of the replicas, there; on no disk."""
        count = self.deliver(channel, message)
        if self.follower is None:
            command = [b"PUBLISH", channel, message]
            self.links.feed(Piece(pack(*command), (command,)))
            self.wake()
        return count

    def deliver(self, channel: bytes, message: bytes) -> int:
        """To those who listen here; their number."""
        listening = [client for client in self.clients.values() if channel in client.channels]
        for client in listening:
            client.send(encode([b"message", channel, message]))
        return len(listening)

    def name_database_anew(self) -> None:
        """Whoever reads the stream from here knows of no database yet."""
        self._stream_database = -1

    def apply(self, follower: Primary, commands: Iterable[Sequence[bytes]]) -> None:
        """Carry out what the primary wrote."""
        written = []
        data = self.data
        for args in commands:
            command = BY_WRITTEN_NAME.get(args[0])
            if command is not None and command.on_data is not None:
                command.on_data(data, data.databases[follower.database], args[1:])
                written.append(args)
                continue
            name = args[0].upper()
            if name == b"SELECT":
                follower.database = int(args[1])
            elif name == b"PUBLISH":
                self.deliver(args[1], args[2])
            else:
                self.replay(follower.database, args)
                written.append(args)
        if written:
            self.propagate(follower.database, written)

    def replay(self, database: int, args: Sequence[bytes]) -> None:
        """Carry out a command from the disk or the primary: nothing is checked."""
        command = command_named(args[0])
        assert command is not None, args
        if command.on_data is not None:
            command.on_data(self.data, self.data.databases[database], args[1:])
        else:
            self.libraries.change(args[1:])

    def take_over(self, data: Data) -> None:
        """Become what a primary or the disk says; for a while, if loading takes time."""
        self.adopt(data)
        if self.settings.holds("appendonly"):
            self.disk.begin(data.dump())
            self.sync()
        if self.load_s:
            self.loading = True
            self.later(self.load_s, self.loaded)

    def adopt(self, data: Data) -> None:
        """These data, and their functions afresh."""
        self.data = data
        self.libraries = Libraries(data)

    def loaded(self) -> None:
        """Loading is over."""
        self.loading = False
        waiting, self.when_loaded = self.when_loaded, []
        for then in waiting:
            then()

    def promote(self) -> None:
        """REPLICAOF NO ONE."""
        if self.follower is None:
            return
        self.follower.end()
        self.follower = None
        self.stream.branch(new_id(self.dice))
        self.name_database_anew()
        self.links.keep()
        self.links.disconnect()

    def shut_down(self) -> None:
        """SHUTDOWN: everything on the disk, every connection closed."""
        self.sync()
        self.on_shutdown()

    def sync(self) -> None:
        """All that was written is on the disk for certain."""
        self.disk.sync()
        self.synced_offset = self.stream.offset
        self.links.settle()

    def count_replicas(self) -> None:
        """How many replicas were heard of lately."""
        self.links.count(self.now, self.settings.number("min-replicas-max-lag"))

    def every_second(self, second: int) -> None:
        """What a server does from time to time."""
        settings = self.settings
        if settings.text("appendfsync") == "everysec" and self.synced_offset < self.stream.offset:
            self.sync()
        timeout_s = settings.number("repl-timeout")
        if self.follower is not None:
            self.follower.look(self.now, timeout_s)
        elif second % settings.number("repl-ping-replica-period") == 0:
            self.links.ping()
        self.links.look(self.now, settings.number("min-replicas-max-lag"), timeout_s)
        self.wake()
