"""A whole mesh in the test's own process: real sockets, a store in memory, no Ray and no warden.

`kill` is a death as others see it: connections break, then the proof arrives that a warden would bring.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Self

import mesh
from mesh.client.aio import AsyncClient
from mesh.core import supervision as sv
from mesh.core.handling import HandlingConfig
from mesh.core.keyspace import partition_of
from mesh.core.messages import Hello, Message, unpack_message
from mesh.core.wire import FrameReader, Kind, Limits
from mesh.entities import Registry
from mesh.errors import SetupError
from mesh.net import clock
from mesh.node import Node, NodeSettings
from mesh.store.memory import MemoryServer, MemoryStore
from mesh.supervisor import Supervisor, SupervisorSettings

NAME = "in-process"
PARTITIONS = 16


class InProcess:
    """Use it as a context manager; it also is what starts the supervisor's handlers.

    Args:
        handlers: how many there should be.
        app: entity classes.
        replaces: a handler that died gets a replacement.
        server: the store of an earlier mesh.
    """

    def __init__(
        self,
        handlers: int = 3,
        *,
        app: Sequence[type] = (),
        token: str = "",
        limits: Limits | None = None,
        replaces: bool = True,
        server: MemoryServer | None = None,
    ) -> None:
        self.server = server or MemoryServer(2)
        self.nodes: dict[str, Node] = {}
        self.replaces = replaces
        self._app = app
        self._token = token
        self._limits = limits or Limits()
        self._clients: list[AsyncClient] = []
        self._ended: list[Node] = []
        settings = SupervisorSettings(
            NAME,
            "s-0",
            tuple(f"h-{i}" for i in range(handlers)),
            PARTITIONS,
            token=token,
            limits=self._limits,
            restart_after_s=0.02,
        )
        self.supervisor = Supervisor(settings, MemoryStore(self.server), self)

    async def __aenter__(self) -> Self:
        await self.supervisor.listen()
        await self.supervisor.lead()
        for id_ in self.supervisor.settings.handlers:
            await self.add(id_)
        await self.until(self.is_ready)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.replaces = False
        for client in self._clients:
            await client.close()
        for node in (*self.nodes.values(), *self._ended):
            await node.stop()
        await self.supervisor.stop()

    @property
    def endpoint(self) -> str:
        """The supervisor's address."""
        return f"127.0.0.1:{self.supervisor.port}"

    async def start_handler(self, id: str) -> None:
        """See Launcher."""
        if not self.replaces:
            raise SetupError("this test wants no replacement")
        await self.add(id)

    async def add(self, id_: str) -> Node:
        """Another handler process."""
        settings = NodeSettings(
            NAME,
            id_,
            (self.endpoint,),
            PARTITIONS,
            token=self._token,
            handling=HandlingConfig(limits=self._limits),
        )
        node = self.nodes[id_] = Node(settings, Registry(self._app), MemoryStore(self.server))
        await node.start()
        return node

    async def kill(self, id_: str) -> Node:
        """The handler's process is gone, and the supervisor has the proof."""
        node = self.nodes.pop(id_)
        await node.stop()
        self._ended.append(node)
        self.prove_exit(node)
        return node

    def prove_exit(self, node: Node) -> None:
        """What a warden would report of that process."""
        self.supervisor._step(sv.ProcessExited(node.nonce, clock.now()))

    async def connect(self, *endpoints: str, **options: Any) -> AsyncClient:
        """A client that ends with the mesh."""
        options = {"token": self._token, **options}
        client = await mesh.connect(*(endpoints or (self.endpoint,)), **options)
        self._clients.append(client)
        return client

    def address(self, id_: str) -> str:
        """A handler's."""
        return f"127.0.0.1:{self.nodes[id_].port}"

    async def status(self) -> dict[str, Any]:
        return await self.supervisor.status()

    async def is_ready(self) -> bool:
        """Every handler has its share and nothing moves."""
        return bool((await self.status())["ready"])

    async def owned(self, id_: str) -> set[int]:
        """Partitions of that handler's newest process."""
        rows = [h for h in (await self.status())["handlers"] if h["id"] == id_]
        return set(rows[-1]["partitions"]) if rows else set()

    async def key_of(self, id_: str, prefix: str = "k") -> str:
        """A key that this handler owns."""
        owned = await self.owned(id_)
        return next(key for key in keys(prefix) if partition_of(key.encode(), PARTITIONS) in owned)

    async def events(self, kind: str) -> list[dict[str, Any]]:
        """What the supervisor recorded of that kind."""
        return [e for e in await self.supervisor._list_events() if e["kind"] == kind]

    async def replaced(self, id_: str, process: Node) -> Node:
        """Wait until another process stands in for `process`, with its share; returns it."""

        async def is_there() -> bool:
            return self.nodes.get(id_) not in (None, process) and await self.is_ready()

        await self.until(is_there)
        return self.nodes[id_]

    @contextlib.contextmanager
    def replicas_silent(self):
        """Writes reach the primary, and no replica confirms them."""
        for link in self.server.links:
            self.server.pause(link)
        try:
            yield
        finally:
            for link in self.server.links:
                self.server.resume(link)

    def break_connections(self, id_: str) -> int:
        """Cut every client's connection to that handler, and leave the handler alone."""
        cut = [c for c in self.nodes[id_]._listener.connections if c.role == "client"]
        for conn in cut:
            conn._transport.abort()
        return len(cut)

    async def until(
        self, holds: Callable[[], Awaitable[bool] | bool], within_s: float = 10
    ) -> None:
        """Wait for a condition, with a deadline."""
        async with asyncio.timeout(within_s):
            while not (result if isinstance(result := holds(), bool) else await result):  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(0.005)

    async def until_pending(self, count: int = 1) -> None:
        """Wait until that many calls wait in the handlers for their commit."""
        await self.until(lambda: sum(n._core._pending for n in self.nodes.values()) >= count)


def keys(prefix: str) -> Any:
    number = 0
    while True:
        yield f"{prefix}{number}"
        number += 1


class RawPeer:
    """A peer that sends bytes of the test's choice."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.frames: list[tuple[int, bytes]] = []
        self._parser = FrameReader()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def send_hello(self, token: str = "", *, mesh: str = NAME, role: str = "client") -> None:
        self.send(Hello(mesh, role, token).frame(Kind.HELLO))

    async def frame(self, kind: Kind, within_s: float = 5.0) -> bytes:
        """The body of the next frame of that kind."""
        async with asyncio.timeout(within_s):
            while True:
                for index, (found, body) in enumerate(self.frames):
                    if found == kind:
                        del self.frames[index]
                        return body
                data = await self.reader.read(65_536)
                if not data:
                    raise ConnectionError("closed by the mesh")
                self.frames += self._parser.feed(data)

    async def last_words(self, within_s: float = 5.0) -> Message | None:
        """Read to the end of the connection; the last control message before it, if any came."""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(within_s):
                while data := await self.reader.read(65_536):
                    self.frames += self._parser.feed(data)
        bodies = [body for kind, body in self.frames if kind == Kind.CONTROL]
        return unpack_message(bodies[-1]) if bodies else None


@contextlib.asynccontextmanager
async def raw_peer(address: str) -> AsyncIterator[RawPeer]:
    """A connection without a hello."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield RawPeer(reader, writer)
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
