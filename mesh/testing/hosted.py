"""A whole mesh in this process and loop: real sockets, a store in memory, no Ray and no warden.

What is tested is what runs in production, down to the bytes on the sockets; only the processes, the store's
servers and (in `InProcessMesh`) the clock are stood in for. A kill is a death as others see it: the
handler's connections break, then the proof arrives that a warden would bring.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

from mesh.client.aio import AsyncClient, connect
from mesh.client.connecting import Connecting
from mesh.client.inner import open_inner
from mesh.client.status import Status
from mesh.client.sync import Client
from mesh.core import signals
from mesh.core.handling import HandlingConfig
from mesh.core.keyspace import key_bytes, partition_of
from mesh.core.wire import Limits
from mesh.entities import Registry
from mesh.errors import BadRequest, SetupError
from mesh.net.clock import Clock
from mesh.node import Node
from mesh.node_settings import NodeSettings
from mesh.store.memory import MemoryServer, MemoryStore
from mesh.supervisor import Supervisor, SupervisorSettings
from mesh.testing.clock import ManualClock

_POLL_S = 0.002
_READY_S = 10.0


class HostedMesh:
    """Use it as an async context manager. It also is what starts the supervisor's handlers.

    Args:
        entities: the classes it serves, beside KV.
        handlers: how many handlers there should be.
        clock: what everything in it tells the time by.
        name: the mesh's.
        partitions: of the key space.
        token: that clients have to know; its own clients do.
        replaces: a handler that died gets a replacement.
        restart_after_s: how long after its death.
        limits: of the wire.
        server: the store of an earlier mesh, to go on with.

    Raises:
        SetupError: an entity cannot be served.
    """

    def __init__(
        self,
        entities: Sequence[type],
        *,
        handlers: int,
        clock: Clock,
        name: str,
        partitions: int,
        token: str = "",
        replaces: bool = True,
        restart_after_s: float = 0.25,
        limits: Limits | None = None,
        server: MemoryServer | None = None,
    ) -> None:
        if not 1 <= handlers <= partitions:
            raise SetupError(
                f"{handlers} handlers cannot share {partitions} partitions: ask for 1 to {partitions}"
            )
        Registry(entities)
        self.name = name
        self.partitions = partitions
        self.server = server or MemoryServer(2)
        """The store's."""
        self.nodes: dict[str, Node] = {}
        """Handler processes that live, by the handler's id."""
        self.replaces = replaces
        self._entities = tuple(entities)
        self._handlers = tuple(f"h-{i}" for i in range(handlers))
        self.clock = clock
        self._token = token
        self._limits = limits or Limits()
        self._restart_after_s = restart_after_s
        self._clients: list[AsyncClient] = []
        self._blocking: list[Client] = []
        self._ended: list[Node] = []
        self._watches: set[asyncio.Task[None]] = set()
        self._supervisor: Supervisor | None = None

    def __repr__(self) -> str:
        if self._supervisor is None:
            return f"<{type(self).__name__} {self.name}, not entered>"
        return f"<{type(self).__name__} {self.name} at {self.endpoint}, {len(self.nodes)} handlers>"

    async def __aenter__(self) -> Self:
        self._supervisor = Supervisor(
            SupervisorSettings(
                self.name,
                "s-0",
                self._handlers,
                self.partitions,
                token=self._token,
                limits=self._limits,
                restart_after_s=self._restart_after_s,
                timing=None,
                about={"store": {"kind": "memory"}},
            ),
            MemoryStore(self.server),
            self,
            self.clock,
        )
        if isinstance(self.clock, ManualClock):
            loop = asyncio.get_running_loop()
            self.clock.after.append(partial(loop.call_soon_threadsafe, self._on_clock_moved))
        try:
            await self._supervisor.listen()
            await self._supervisor.lead()
            for id_ in self._handlers:
                await self.add(id_)
            await self.until_ready()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        if isinstance(self.clock, ManualClock):
            self.clock.after.clear()
        self.replaces = False
        for blocking in self._blocking:
            await asyncio.to_thread(blocking.close)
        for client in self._clients:
            await client.close()
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        for node in (*self.nodes.values(), *self._ended):
            await node.stop()
        await self.supervisor.stop()

    # ------------------------------------------------------------- what users ask of it

    @property
    def supervisor(self) -> Supervisor:
        """The one that leads.

        Raises:
            SetupError: the mesh was not entered: use `async with`.
        """
        if self._supervisor is None:
            raise SetupError("this mesh is not up: enter it first, with `async with` or `with`")
        return self._supervisor

    @property
    def endpoint(self) -> str:
        """Where to connect to, "host:port", from this process or another."""
        return f"127.0.0.1:{self.supervisor.port}"

    @property
    def handlers(self) -> tuple[str, ...]:
        """Ids of the handlers that live: "h-0", "h-1", ..."""
        return tuple(sorted(self.nodes))

    def owner_of(self, key: str | bytes) -> str:
        """Id of the handler that owns a key, as the supervisor has it on record.

        Args:
            key: str or bytes, 1 to 512 bytes.
        """
        partition = partition_of(key_bytes(key), self.partitions)
        rows = self.status()["handlers"]
        return next(str(row["id"]) for row in rows if partition in row["partitions"])

    def status(self) -> Status:
        """What `mesh status --json` prints."""
        return Status({**_at_once(self.supervisor.status()), "log": os.devnull})

    def connect(
        self, *endpoints: str, timeout: float = 10.0, token: str | None = None
    ) -> Connecting[AsyncClient]:
        """An async client of this mesh, closed with it: `await` it, or `async with` it.

        Args:
            endpoints: of this mesh; none: the supervisor.
            timeout: seconds until it is connected, by the machine's clock.
            token: the mesh's own unless given.
        """
        return Connecting(self._connect(endpoints or (self.endpoint,), timeout, token))

    async def _connect(
        self, endpoints: tuple[str, ...], timeout: float, token: str | None
    ) -> AsyncClient:
        secret = self._token if token is None else token
        client = await connect(*endpoints, token=secret, timeout=timeout)
        client._clock = self.clock  # before its first call
        self._clients.append(client)
        return client

    def client(self, *endpoints: str, timeout: float = 10.0, token: str | None = None) -> Client:
        """A blocking client of this mesh, closed with it; for other threads than the mesh's own.

        Args:
            endpoints: of this mesh; none: the supervisor.
            timeout: seconds until it is connected, by the machine's clock.
            token: the mesh's own unless given.

        Raises:
            BadRequest: called on the mesh's own loop, which it would keep from answering.
        """
        if asyncio._get_running_loop() is self.supervisor._loop:
            raise BadRequest(
                "a blocking client would keep this loop from turning, on which the mesh runs: use "
                "`await m.connect()`, or call it by way of asyncio.to_thread(m.client)"
            )
        secret = self._token if token is None else token
        client = Client(*(endpoints or (self.endpoint,)), token=secret, timeout=timeout)
        client._client._clock = self.clock  # before its first call
        self._blocking.append(client)
        if isinstance(self.clock, ManualClock):
            self.clock.before.append(partial(_begin_submitted, client))
        return client

    async def kill(self, handler: str) -> Node:
        """Have a handler's process die; returns once the survivors have taken over.

        Calls that were on their way to it are answered by the survivors. Where none is left, calls
        wait for the replacement.

        Args:
            handler: its id, such as "h-0".

        Raises:
            BadRequest: no handler of that id lives.
        """
        node = await self.die(handler)
        if self.nodes:
            await self.until(lambda: self.is_taken_over(node))
        return node

    async def until_ready(self, within_s: float = _READY_S) -> None:
        """Wait until every handler that should be there has its share and nothing moves.

        Args:
            within_s: seconds, by the machine's clock.

        Raises:
            TimeoutError: it still is not.
        """
        await self.until(lambda: bool(self.status()["ready"]), within_s)

    # -------------------------------------------------------------- behind the scenes

    async def start_handler(self, id: str) -> None:
        """See Launcher."""
        if not self.replaces:
            raise SetupError("this mesh replaces nobody")
        await self.add(id)

    async def add(self, id_: str) -> Node:
        """Start a handler's process."""
        settings = NodeSettings(
            self.name,
            id_,
            (self.endpoint,),
            self.partitions,
            token=self._token,
            handling=HandlingConfig(limits=self._limits),
        )
        node = self.nodes[id_] = Node(
            settings,
            Registry(self._entities),
            MemoryStore(self.server),
            self.clock,
            partial(open_inner, token=self._token, mesh=self.name),
            heart=None,
        )
        watch = asyncio.get_running_loop().create_task(self._watch(node))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)
        await node.start()
        return node

    async def _watch(self, node: Node) -> None:
        """A handler that ends by itself (its grant revoked, a failure) is a process that exits."""
        await node.ended.wait()
        if self.nodes.get(node.settings.id) is node:
            await self.die(node.settings.id)

    async def die(self, id_: str) -> Node:
        """A handler's process dies and the supervisor has the proof; nothing is waited for."""
        node = self.nodes.pop(id_, None)
        if node is None:
            raise BadRequest(f"no handler {id_!r} lives; there are {list(self.handlers)}")
        await node.stop(in_order=False)
        self._ended.append(node)
        self.prove_exit(node)
        return node

    def _on_clock_moved(self) -> None:
        for node in list(self.nodes.values()):
            node.look_at_the_clock()
        self.supervisor.leader.step(signals.Tick())

    def prove_exit(self, node: Node) -> None:
        """What a warden would report of that process."""
        self.supervisor.leader.step(
            signals.ProcessExited(node.nonce, node.settings.id, self.clock.now())
        )

    def is_taken_over(self, node: Node) -> bool:
        """That process is off the record, and who has its partitions was told."""
        core = self.supervisor.core
        if core is None or not core.at_rest:
            return False
        return node.nonce not in {member.row.nonce for member in core.members}

    async def until(
        self, holds: Callable[[], Awaitable[bool] | bool], within_s: float = _READY_S
    ) -> None:
        """Wait for a condition, by the machine's clock.

        Raises:
            TimeoutError: it does not come.
        """
        async with asyncio.timeout(within_s):
            while not (result if isinstance(result := holds(), bool) else await result):  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(_POLL_S)


def _begin_submitted(client: Client) -> None:
    """Wait until the client's thread has begun every call that it was given."""

    async def turn() -> None:
        pass

    with client._lock:
        if client._closing is not None or client._thread.is_current:
            return
        turned = client._thread.run(turn())
    turned.result()


def _at_once(asking: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """What a coroutine returns that waits for nothing."""
    try:
        asking.send(None)
    except StopIteration as done:
        return dict(done.value)
    asking.close()
    raise AssertionError("a supervisor in this process had to wait for its own status")


class InProcessMesh(HostedMesh):
    """A mesh for a user's tests, on a clock of its own; see `mesh.testing.mesh`.

    Attributes:
        clock: `m.clock.advance(seconds)` lets time pass.
    """

    clock: ManualClock

    def __init__(
        self,
        entities: Sequence[type],
        *,
        handlers: int,
        partitions: int,
        replaces: bool,
        token: str,
    ) -> None:
        super().__init__(
            entities,
            handlers=handlers,
            clock=ManualClock(),
            name="testing",
            partitions=partitions,
            replaces=replaces,
            token=token,
        )
