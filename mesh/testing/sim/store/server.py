"""The state of a node and the order in which commands are carried out; no lifecycle, see `node`.

What a command needs is checked in the real server's order: known, number of arguments, login,
permissions, memory, replicas, role, stale data, loading. A function checks for itself when it begins, and
is replicated as the commands that it made, in one MULTI.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Protocol, TypeAlias

from mesh.store.resp import pack
from mesh.testing.sim.store.access import User, Users
from mesh.testing.sim.store.commands import Command, command_named
from mesh.testing.sim.store.data_commands import Data
from mesh.testing.sim.store.disk import Commands, Disk
from mesh.testing.sim.store.libraries import Libraries
from mesh.testing.sim.store.links import Links
from mesh.testing.sim.store.lua import Function, runtime
from mesh.testing.sim.store.replies import Fault, Reply, Status, encode, shown
from mesh.testing.sim.store.session import Session
from mesh.testing.sim.store.settings import Settings
from mesh.testing.sim.store.stream import Stream, new_id

_MULTI, _EXEC = pack("MULTI"), pack("EXEC")
QUEUED = Status(b"QUEUED")
_NEVER_QUEUED = frozenset({"exec", "discard", "multi", "quit"})
_LOADING = "LOADING Valkey is loading the dataset in memory"
_OOM = "OOM command not allowed when used memory > 'maxmemory'."
_NO_REPLICAS = "NOREPLICAS Not enough good replicas to write."
_READ_ONLY = "READONLY You can't write against a read only replica."
_MASTER_DOWN = "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."

Args: TypeAlias = Sequence[bytes]
Handler: TypeAlias = Callable[[Session, Args], Reply]
"""What carries out a command that concerns the node; gets the arguments behind its name."""


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


class Script:
    """A function under way: for whom, where, and what it has written."""

    __slots__ = ("client", "read_only", "writes")

    def __init__(self, client: Session, *, read_only: bool) -> None:
        self.client = client
        self.read_only = read_only
        self.writes: list[tuple[int, tuple[bytes, ...]]] = []


class Server:
    """One server process.

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
        password = settings.text("requirepass")
        self.users = Users(password.encode() if password else None)
        self.stream = Stream(new_id(dice))
        self.links = Links(self.stream, self.later, settings.number("repl-backlog-size"))
        self.follower: Primary | None = None
        self.clients: dict[int, Session] = {}
        self.calls: Counter[str] = Counter()
        self.data = Data()
        self.libraries = Libraries(self.data)
        self.handlers: dict[str, Handler] = {}
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
        self._script: Script | None = None
        self._unblocked = False
        self._stream_database = -1
        self._awake = False
        self._ids = 0

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
        """Send what is to be sent before the loop sleeps."""
        if not self._awake:
            self._awake = True
            self.loop.call_soon(self._before_sleep)

    def _before_sleep(self) -> None:
        self._awake = False
        if not self.ended and not self.is_held(self.wake):
            self.links.flush()

    def next_client_id(self) -> int:
        self._ids += 1
        return self._ids

    def forget(self, client: Session) -> None:
        """A connection is gone."""
        self.clients.pop(client.id, None)
        self.links.detach(client)
        self.count_replicas()

    # -------------------------------------------------------------------------------- carrying out

    def execute(self, client: Session, args: list[bytes]) -> Reply:
        """Carry out one command of a client."""
        try:
            return self._execute(client, args)
        except Fault as fault:
            client.spoilt = True
            return fault

    def _execute(self, client: Session, args: list[bytes]) -> Reply:
        command = command_named(args[0])
        if command is None:
            raise _unknown(args)
        if not command.fits(len(args)):
            raise Fault(f"ERR wrong number of arguments for '{command.name}' command")
        user = client.user
        if user is None:
            if not command.no_auth:
                raise Fault("NOAUTH Authentication required.")
        elif not user.everything:
            user.check(command, args)
        self._admit(command)
        if client.queued is not None and command.name not in _NEVER_QUEUED:
            client.queued.append(args)
            return QUEUED
        return self._carry_out(client, command, args)

    def run_queued(self, client: Session) -> Reply:
        """EXEC. What it writes goes to replicas and disk command by command, not as a whole as in the real
        server: nobody here writes data in a MULTI.
        """
        queued, client.queued = client.queued, None
        if queued is None:
            raise Fault("ERR EXEC without MULTI")
        if client.spoilt:
            raise Fault("EXECABORT Transaction discarded because of previous errors.")
        replies: list[Reply] = []
        self._unblocked = True
        try:
            for args in queued:
                try:
                    command = command_named(args[0])
                    assert command is not None
                    replies.append(self._carry_out(client, command, args))
                except Fault as fault:
                    replies.append(fault)
        finally:
            self._unblocked = False
        return replies

    def _carry_out(self, client: Session, command: Command, args: list[bytes]) -> Reply:
        self.calls[command.name] += 1
        if command.on_data is None:
            before = self.stream.offset
            reply = self.handlers[command.name](client, args[1:])
            if self.stream.offset != before:
                client.written = self.stream.offset
            return reply
        data = self.data
        before = data.dirty
        reply = command.on_data(data, data.databases[client.database], args[1:])
        if data.dirty != before:
            self.propagate(client.database, (args,))
            client.written = self.stream.offset
        return reply

    def _admit(self, command: Command) -> None:
        if command.write:
            self.admit_write(more_memory=command.denied_oom)
        if self.is_stale and not command.stale:
            raise Fault(_MASTER_DOWN)
        if self.loading and not command.loading:
            raise Fault(_LOADING)

    def admit_write(self, *, more_memory: bool) -> None:
        """Refuse a write where memory is full, too few replicas follow, or this is a replica itself."""
        if more_memory and self.is_full:
            raise Fault(_OOM)
        if self.follower is not None:
            if self.settings.holds("replica-read-only"):
                raise Fault(_READ_ONLY)
        elif self.lacks_replicas:
            raise Fault(_NO_REPLICAS)

    @property
    def never_blocks(self) -> bool:
        """Whether a function or a MULTI is under way."""
        return self._script is not None or self._unblocked

    @property
    def is_full(self) -> bool:
        limit = self.settings.number("maxmemory")
        return limit > 0 and self.data.used_memory() > limit

    @property
    def lacks_replicas(self) -> bool:
        least = self.settings.number("min-replicas-to-write")
        lag = self.settings.number("min-replicas-max-lag")
        return least > 0 and lag > 0 and self.links.good < least

    @property
    def is_stale(self) -> bool:
        follower = self.follower
        return (
            follower is not None
            and follower.state != "connected"
            and not self.settings.holds("replica-serve-stale-data")
        )

    # ----------------------------------------------------------------------------------- functions

    def call_function(
        self,
        client: Session,
        function: Function,
        keys: list[bytes],
        args: list[bytes],
        *,
        read_only: bool,
    ) -> Reply:
        """FCALL, or FCALL_RO, once its arguments are sorted out."""
        writes = b"no-writes" not in function.flags
        if writes:
            self.admit_write(more_memory=b"allow-oom" not in function.flags)
            if read_only:
                raise Fault("ERR Can not execute a script with write flag using *_ro command.")
        database = client.database  # a SELECT in a function ends with it
        script = self._script = Script(client, read_only=not writes)
        try:
            return runtime().call(self, function, keys, args)
        finally:
            self._script = None
            client.database = database
            for place, made in groupby(script.writes, key=itemgetter(0)):
                self.propagate(place, [written for _, written in made])

    def command_from_function(self, args: tuple[bytes, ...]) -> Reply:
        """One redis.call of the function under way."""
        script = self._script
        assert script is not None
        command = command_named(args[0]) if args else None
        if command is None:
            raise Fault("ERR Unknown command called from script")
        if not command.fits(len(args)):
            raise Fault("ERR Wrong number of args calling command from script")
        client = script.client
        user = client.user
        if user is not None and not user.everything:
            self._check_from_function(user, command, args)
        if command.no_script:
            raise Fault("ERR This Redis command is not allowed from script")
        if command.write and script.read_only:
            raise Fault("ERR Write commands are not allowed from read-only scripts.")
        self.calls[command.name] += 1
        if command.on_data is None:
            return self.handlers[command.name](client, args[1:])
        data = self.data
        before = data.dirty
        reply = command.on_data(data, data.databases[client.database], args[1:])
        if data.dirty != before:
            script.writes.append((client.database, args))
        return reply

    @staticmethod
    def _check_from_function(user: User, command: Command, args: Sequence[bytes]) -> None:
        try:
            user.check(command, args)
        except Fault as fault:
            _, reason = str(fault).split(" ", 1)
            raise Fault(f"ERR ACL failure in script: {reason}") from None

    # --------------------------------------------------------------------------------- replication

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
            self.links.feed(b"")
            return
        packed = [pack(*command) for command in commands]
        if len(packed) > 1:
            packed = [_MULTI, *packed, _EXEC]
        if database != self._stream_database:
            self._stream_database = database
            self.links.feed(pack("SELECT", database))
        self.links.feed(b"".join(packed))

    def publish(self, channel: bytes, message: bytes) -> int:
        """PUBLISH: to those who listen here and, by way of the replicas, there; on no disk."""
        count = self.deliver(channel, message)
        if self.follower is None:
            self.links.feed(pack("PUBLISH", channel, message))
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
        for args in commands:
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


def _unknown(args: Sequence[bytes]) -> Fault:
    texts = [arg.partition(b"\0")[0] for arg in args]  # printed as C strings
    said = "".join(f"'{shown(text)}' " for text in texts[1:])
    return Fault(
        f"ERR unknown command '{shown(texts[0])[:128]}', with args beginning with: {said[:128]}"
    )
