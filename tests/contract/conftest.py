"""One suite for every store: in memory, on an embedded Redis or Valkey that the session shares, and on the
simulator's model of one, which this proves to be like it.

Each test has a mesh of its own there. `mesh` is a leader's view of it, with the faults a test may
ask for.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import hiredis
import pytest

from mesh.core.epochs import epoch_of
from mesh.core.life_numbers import count_of
from mesh.core.records import (
    Entry,
    GrantRef,
    Move,
    Moves,
    OpenLife,
    StoreStatus,
    Takeover,
    TakeoverReply,
    Want,
)
from mesh.core.syncset import InSyncSet
from mesh.ids import new_nonce, new_operation
from mesh.store.address import StoreAddress
from mesh.store.api import Store
from mesh.store.embedded import EmbeddedStore
from mesh.store.memory import MemoryServer, MemoryStore
from mesh.store.redis import RedisStore
from mesh.store.resp import pack
from mesh.testing.sim.store.node import EMBEDDED, Disk, StoreNode

PARTITIONS = 8
WAIT_TIMEOUT_S = 0.05


class MeshUnderTest:
    """A mesh on some store; subclasses know how to hurt that store."""

    store: Store
    partitions = PARTITIONS

    def __init__(self) -> None:
        self.life = 0
        self.token = 0
        self.stores: list[Store] = []

    def another(self) -> Store:
        """A further process's access to the same mesh."""
        raise NotImplementedError

    async def pause(self, link: str) -> None:
        """The replica stays attached and confirms nothing."""
        raise NotImplementedError

    async def resume(self, link: str) -> None:
        raise NotImplementedError

    async def spoil(self, partition: int) -> None:
        """Another program makes the partition's key something else than a hash."""
        raise NotImplementedError

    async def restart(self) -> None:
        """The primary becomes another process: its run id is not the recorded one."""
        raise NotImplementedError

    async def can_confirm_fsync(self) -> bool:
        return True

    def opening(self, sync_set: InSyncSet, **changed: object) -> OpenLife:
        call = OpenLife(
            new_operation(), self.life, self.life + 1, self.token + 1, self.partitions, sync_set
        )
        return replace(call, **changed)

    async def open(
        self, sync_set: InSyncSet | None = None, *, partitions: int = 0
    ) -> TakeoverReply:
        """Open the next life; by default every replica is a member of the set."""
        self.partitions = partitions or self.partitions
        sync_set = sync_set or InSyncSet(1, frozenset(await self.store.links()))
        call = self.opening(sync_set)
        reply = await self.store.open_life(call)
        assert reply.status is StoreStatus.OK, reply
        self.life, self.token = call.number, call.token
        return reply

    def epoch(self, counter: int = 1) -> int:
        return epoch_of(count_of(self.life), counter)

    def call(self, *moves: Move, **changed: object) -> Takeover:
        call = Takeover(new_operation(), self.life, self.token, (), (), Moves.of(moves), b"table")
        return replace(call, **changed)

    async def takeover(self, *moves: Move, **changed: object) -> TakeoverReply:
        return await self.store.takeover(self.call(*moves, **changed))

    async def join(self, *held: int, nonce: bytes | None = None) -> GrantRef:
        """A process enrolled with these partitions at epoch 1."""
        nonce = nonce or new_nonce()
        moves = [Move(p, None, 0, nonce, self.epoch()) for p in held]
        reply = await self.takeover(*moves, enroll=((nonce, "h-0"),))
        assert reply.status is StoreStatus.OK, reply
        return GrantRef(nonce, self.life, reply.versions[nonce])

    def entry(self, partition: int, counter: int = 1, **fields: bytes) -> Entry:
        return Entry(partition, self.epoch(counter), {k.encode(): v for k, v in fields.items()})

    async def read(self, grant: GrantRef, partition: int, *fields: bytes) -> list[bytes | None]:
        reply = await self.store.load(grant, [Want(partition, self.epoch(), fields)])
        (values,) = reply.values
        assert values is not None
        return list(values)

    async def until(self, holds: Callable[[], Awaitable[bool]], within_s: float = 10.0) -> None:
        """Wait for a condition, with a deadline."""
        async with asyncio.timeout(within_s):
            while not await holds():  # noqa: ASYNC110 - it lies in other processes
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        for store in self.stores:
            await store.close()


class MeshInMemory(MeshUnderTest):
    def __init__(self) -> None:
        super().__init__()
        self.server = MemoryServer()
        self.store = self.another()

    def another(self) -> Store:
        self.stores.append(MemoryStore(self.server))
        return self.stores[-1]

    async def pause(self, link: str) -> None:
        self.server.pause(link)

    async def resume(self, link: str) -> None:
        self.server.resume(link)

    async def spoil(self, partition: int) -> None:
        self.server.wrong_type.add(partition)

    async def restart(self) -> None:
        self.server.restart()


class MeshOnRedis(MeshUnderTest):
    """A mesh in a store that is reached over sockets."""

    def __init__(self, address: StoreAddress) -> None:
        super().__init__()
        self.address = replace(address, mesh=f"t-{new_nonce().hex()}")
        self.paused: set[str] = set()
        self.store = self.another()

    def another(self, address: StoreAddress | None = None, **options: float) -> RedisStore:
        options = {"wait_timeout_s": WAIT_TIMEOUT_S, **options}
        store = RedisStore(address or self.address, **options)
        self.stores.append(store)
        return store

    async def can_confirm_fsync(self) -> bool:
        assert isinstance(self.store, RedisStore)
        return (await self.store.check_server()).can_confirm_fsync

    async def administer(self, *arguments: bytes | str | int) -> object:
        assert isinstance(self.store, RedisStore)
        return await self.store.administer(pack(*arguments))

    def neighbour(self) -> MeshOnRedis:
        """A mesh of another name in the same store."""
        raise NotImplementedError

    def stop(self, link: str) -> None:
        """What SIGSTOP does to that replica."""
        raise NotImplementedError

    def go_on(self, link: str) -> None:
        """What SIGCONT does."""
        raise NotImplementedError

    async def all_follow(self) -> bool:
        """Whether both replicas have caught up."""
        raise NotImplementedError

    async def pause(self, link: str) -> None:
        self.stop(link)
        self.paused.add(link)

    async def resume(self, link: str) -> None:
        self.go_on(link)
        self.paused.discard(link)

    async def spoil(self, partition: int) -> None:
        key = self.address.prefix + b"p:%d" % partition
        await self.administer("DEL", key)
        await self.administer("SET", key, "no hash")

    async def restart(self) -> None:
        # The shared server stays up; seen from the function it is the same whose run id is
        # another's.
        await self.administer("HSET", self.address.prefix + b"life", "run_id", "0" * 40)

    async def close(self) -> None:
        if self.paused:
            for link in list(self.paused):
                await self.resume(link)
            await self.until(self.all_follow)
        await super().close()


class MeshOnServer(MeshOnRedis):
    """On the embedded store's servers."""

    def __init__(self, embedded: EmbeddedStore, pids: dict[str, int]) -> None:
        super().__init__(embedded.address)
        self.embedded = embedded
        self.pids = pids

    def neighbour(self) -> MeshOnServer:
        return MeshOnServer(self.embedded, self.pids)

    def stop(self, link: str) -> None:
        os.kill(self.pids[link], signal.SIGSTOP)

    def go_on(self, link: str) -> None:
        os.kill(self.pids[link], signal.SIGCONT)

    async def all_follow(self) -> bool:
        nodes = await self.embedded.nodes()
        lags = [node.lag_bytes for node in nodes if node.role == "replica"]
        return len(lags) == 2 and all(lag is not None and lag < 1000 for lag in lags)


class MeshOnModel(MeshOnRedis):
    """On the simulator's model of a primary and two replicas, with real sockets."""

    def __init__(self, nodes: list[StoreNode]) -> None:
        _, *replicas = nodes
        super().__init__(model_address(nodes))
        self.nodes = nodes
        self.replicas = {f"{node.host}:{node.port}": node for node in replicas}

    def neighbour(self) -> MeshOnModel:
        return MeshOnModel(self.nodes)

    def stop(self, link: str) -> None:
        self.replicas[link].pause()

    def go_on(self, link: str) -> None:
        self.replicas[link].resume()

    async def all_follow(self) -> bool:
        return await self.administer("WAIT", 2, 100) == 2 and len(await self.store.links()) == 2


def model_address(nodes: list[StoreNode]) -> StoreAddress:
    return StoreAddress(tuple((node.host, node.port) for node in nodes), password="secret")


@pytest.fixture(scope="session")
async def embedded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedStore]:
    folder: Path = tmp_path_factory.mktemp("store")
    async with EmbeddedStore(folder, down_after_ms=500, tilt_ms=3000) as store:
        redis = RedisStore(store.address)
        await redis.ensure_functions()
        await redis.close()
        yield store


@pytest.fixture(scope="session")
async def model() -> AsyncIterator[list[StoreNode]]:
    """A primary and two replicas as `embedded` has them, in this process."""
    dice = random.Random(1)
    # Its clock goes on while this process does something else: then nobody has been silent.
    patient = {"min-replicas-max-lag": "600", "repl-timeout": "600"}
    settings = EMBEDDED | patient | {"requirepass": "secret", "masterauth": "secret"}
    primary = StoreNode(Disk(), dice, settings=settings)
    await primary.start("127.0.0.1", 0)
    nodes = [primary]
    for _ in range(2):
        follows = (primary.host, primary.port)
        nodes.append(StoreNode(Disk(), dice, settings=settings, primary=follows))
        await nodes[-1].start("127.0.0.1", 0)
    redis = RedisStore(model_address(nodes))
    async with asyncio.timeout(10):
        while len(await redis.links()) < 2:  # noqa: ASYNC110 - it lies behind sockets
            await asyncio.sleep(0.01)
    await redis.ensure_functions()
    await redis.close()
    yield nodes
    for node in nodes:
        await node.stop()


@pytest.fixture
async def on_server(embedded: EmbeddedStore) -> AsyncIterator[MeshOnServer]:
    pids = {f"{node.host}:{node.port}": node.pid for node in await embedded.nodes()}
    mesh = MeshOnServer(embedded, pids)
    yield mesh
    await mesh.close()


@pytest.fixture
async def on_model(model: list[StoreNode]) -> AsyncIterator[MeshOnModel]:
    mesh = MeshOnModel(model)
    yield mesh
    await mesh.close()


@pytest.fixture
async def in_memory() -> AsyncIterator[MeshInMemory]:
    mesh = MeshInMemory()
    yield mesh
    await mesh.close()


@pytest.fixture(params=["on_server", "on_model"])
def on_redis(request: pytest.FixtureRequest) -> MeshOnRedis:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["in_memory", "on_server", "on_model"])
def mesh(request: pytest.FixtureRequest) -> MeshUnderTest:
    return request.getfixturevalue(request.param)


class FakeServer:
    """Says what it is told to, for servers that one cannot have at hand. Unknown commands get +OK."""

    def __init__(
        self, replies: dict[bytes, bytes | None], tls: tuple[str, str] | None = None
    ) -> None:
        self.replies = replies
        """By a command's first word: its reply in RESP; None stays silent; b"" hangs up."""
        self.host, self.port = "127.0.0.1", 0
        self._tls: ssl.SSLContext | None = None
        if tls:
            self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._tls.load_cert_chain(*tls)
        self._server: asyncio.Server | None = None

    @property
    def node(self) -> tuple[str, int]:
        return self.host, self.port

    async def __aenter__(self) -> FakeServer:
        self._server = await asyncio.start_server(self._serve, self.host, 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = hiredis.Reader()
        try:
            while data := await reader.read(65_536):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    reply = self.replies.get(command[0], b"+OK\r\n")
                    if reply == b"":
                        return
                    writer.write(reply or b"")
                    await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


MASTER = b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
REPLICA = b"*5\r\n$5\r\nslave\r\n$1\r\nh\r\n:1\r\n$9\r\nconnected\r\n:0\r\n"


@pytest.fixture
async def fake() -> AsyncIterator[Callable[..., Awaitable[FakeServer]]]:
    """Start a fake server: a primary, unless `ROLE` says something else."""
    async with AsyncExitStack() as stack:

        async def start(tls: tuple[str, str] | None = None, **replies: bytes | None) -> FakeServer:
            said = {word.encode(): reply for word, reply in replies.items()}
            replies_by_word = {b"ROLE": MASTER, b"HGET": b"$-1\r\n", **said}
            return await stack.enter_async_context(FakeServer(replies_by_word, tls))

        start.REPLICA = REPLICA
        yield start


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
