"""The state of a node and the order in which commands are carried out; no lifecycle, see `node`.

What a command needs is checked in the real server's order: known, number of arguments, login,
permissions, memory, replicas, role, stale data, loading. A function checks for itself when it begins, and
is replicated as the commands that it made, in one MULTI.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TypeAlias

from mesh.testing.sim.store.access import User, Users
from mesh.testing.sim.store.commands import BY_WRITTEN_NAME, Command, command_named
from mesh.testing.sim.store.disk import Disk
from mesh.testing.sim.store.lua import Function, runtime
from mesh.testing.sim.store.replicating import Replicating
from mesh.testing.sim.store.replies import Fault, Reply, Status, shown
from mesh.testing.sim.store.session import Session
from mesh.testing.sim.store.settings import Settings

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


class Script:
    """A function under way: for whom, where, and what it has written."""

    __slots__ = ("client", "read_only", "writes")

    def __init__(self, client: Session, *, read_only: bool) -> None:
        self.client = client
        self.read_only = read_only
        self.writes: list[tuple[int, tuple[bytes, ...]]] = []


class Server(Replicating):
    """One server process: who is connected, and what they may have done."""

    def __init__(self, settings: Settings, disk: Disk, dice: random.Random) -> None:
        super().__init__(settings, disk, dice)
        password = settings.text("requirepass")
        self.users = Users(password.encode() if password else None)
        self.calls: Counter[str] = Counter()
        self.handlers: dict[str, Handler] = {}
        self._script: Script | None = None
        self._unblocked = False
        self._ids = 0

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
            # A reply; its frames would refer to it, and only the collector could end that.
            return fault.with_traceback(None)

    def _execute(self, client: Session, args: list[bytes]) -> Reply:
        command = BY_WRITTEN_NAME.get(args[0]) or command_named(args[0])
        if command is None:
            raise _unknown(args)
        arity = command.arity
        if len(args) != arity and (arity > 0 or len(args) < -arity):
            raise Fault(f"ERR wrong number of arguments for '{command.name}' command")
        user = client.user
        if user is None:
            if not command.no_auth:
                raise Fault("NOAUTH Authentication required.")
        elif not user.everything:
            user.check(command, args)
        if command.write or self.follower is not None or self.loading:
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
        command = BY_WRITTEN_NAME.get(args[0]) or command_named(args[0]) if args else None
        if command is None:
            raise Fault("ERR Unknown command called from script")
        arity = command.arity
        if len(args) != arity and (arity > 0 or len(args) < -arity):
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


def _unknown(args: Sequence[bytes]) -> Fault:
    texts = [arg.partition(b"\0")[0] for arg in args]  # printed as C strings
    said = "".join(f"'{shown(text)}' " for text in texts[1:])
    return Fault(
        f"ERR unknown command '{shown(texts[0])[:128]}', with args beginning with: {said[:128]}"
    )
