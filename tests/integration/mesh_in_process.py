"""A mesh in the test's own process, by the machine's clock: what tests do to `HostedMesh` beside using it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from mesh.core.keyspace import partition_of
from mesh.core.messages import Hello, Message, unpack_message
from mesh.core.wire import FrameReader, Kind, Limits
from mesh.net.clock import SYSTEM
from mesh.node import Node
from mesh.store.memory import MemoryServer
from mesh.testing.hosted import HostedMesh

NAME = "in-process"
PARTITIONS = 16


class InProcess(HostedMesh):
    """A mesh whose inside tests look into."""

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
        super().__init__(
            app,
            handlers=handlers,
            clock=SYSTEM,
            name=NAME,
            partitions=PARTITIONS,
            token=token,
            limits=limits,
            replaces=replaces,
            restart_after_s=0.02,
            server=server,
        )

    async def kill(self, handler: str) -> Node:
        """A death whose takeover the test watches itself."""
        return await self.die(handler)

    async def _watch(self, node: Node) -> None:
        """A process that ends by itself is left for the test to find."""

    def address(self, id_: str) -> str:
        """A handler's."""
        return f"127.0.0.1:{self.nodes[id_].port}"

    async def is_ready(self) -> bool:
        """Every handler has its share and nothing moves."""
        return bool(self.status()["ready"])

    async def owned(self, id_: str) -> set[int]:
        """Partitions of that handler's newest process."""
        rows = [h for h in self.status()["handlers"] if h["id"] == id_]
        return set(rows[-1]["partitions"]) if rows else set()

    async def key_of(self, id_: str, prefix: str = "k") -> str:
        """A key that this handler owns."""
        owned = await self.owned(id_)
        return next(key for key in keys(prefix) if partition_of(key.encode(), PARTITIONS) in owned)

    async def events(self, kind: str) -> list[dict[str, Any]]:
        """What the supervisor recorded of that kind."""
        return [e for e in await self.supervisor.questions.events() if e["kind"] == kind]

    async def replaced(self, id_: str, process: Node) -> Node:
        """Wait until another process stands in for `process`, with its share; returns it."""

        async def is_there() -> bool:
            return self.nodes.get(id_) not in (None, process) and await self.is_ready()

        await self.until(is_there)
        return self.nodes[id_]

    @contextlib.contextmanager
    def replicas_silent(self) -> Iterator[None]:
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

    async def until_pending(self, count: int = 1) -> None:
        """Wait until that many calls wait in the handlers for their commit."""
        await self.until(
            lambda: sum(n._core._answers.pending for n in self.nodes.values()) >= count
        )


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
