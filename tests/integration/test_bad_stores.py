"""Stores that will not do: whoever brings a mesh up reads why, and whoever calls one goes on afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count as count_up
from pathlib import Path
from typing import Any

import hiredis
import pytest

import mesh
from actors.carried import pack as pack_classes
from mesh import rundir
from mesh.bringup import up
from mesh.client.aio import AsyncClient
from mesh.config import MeshConfig
from mesh.core.keyspace import partition_of
from mesh.core.lease import LeaseTiming
from mesh.core.records import OpenLife
from mesh.core.syncset import InSyncSet
from mesh.entities import Registry
from mesh.errors import EntityError, OutcomeUnknown, Overloaded, SetupError
from mesh.ids import new_operation
from mesh.net.clock import now
from mesh.node import Node
from mesh.node_settings import NodeSettings
from mesh.store.address import StoreAddress
from mesh.store.binary import find_binary
from mesh.store.embedded import EmbeddedStore
from mesh.store.redis import RedisStore
from mesh.store.resp import connect, pack
from mesh.supervisor import Supervisor, SupervisorSettings

SECRET = "open-sesame"
MASTER = b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"


async def refused(store: str, *, carried: bytes = b"", **settings: Any) -> str:
    """What who brings a mesh up on that store is told; nothing may be left of the attempt."""
    said: list[str] = []
    config = MeshConfig(name="bad-store", store=store, port=0, store_open_s=1.0, **settings)
    with pytest.raises(SetupError) as caught:
        await up(config, carried=carried, progress=said.append)
    assert said == [], "nothing is started for a store that will not do"
    assert rundir.read("bad-store") is None
    assert SECRET not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ------------------------------------------------------- servers of this machine


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[int]]]:
    """Start a real server with these options; returns its port."""
    binary = await find_binary()
    running: list[subprocess.Popen[bytes]] = []

    async def start(*options: str) -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        folder = tmp_path / str(port)
        folder.mkdir()
        command = [binary.path, "--port", str(port), "--dir", folder, "--save", "", *options]
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))  # noqa: ASYNC220
        async with asyncio.timeout(10):
            while not await answers(port):  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.01)
        return port

    yield start
    for process in running:
        process.kill()
        process.wait()


async def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.setblocking(False)
        with contextlib.suppress(ConnectionError):
            await asyncio.get_running_loop().sock_connect(probe, ("127.0.0.1", port))
            return True
    return False


async def test_a_store_that_nobody_serves_is_named_with_what_to_do(unused_port):
    assert await refused(f"redis://127.0.0.1:{unused_port}") == (
        f"store 127.0.0.1:{unused_port}: nothing listens there; start the store, or name another one"
    )


async def test_a_host_that_nobody_knows_is_told_as_that():
    said = await refused("redis://no-such-host.invalid:6379")
    assert said.startswith("store no-such-host.invalid:6379: the name of its host is not known (")


async def test_a_port_that_accepts_and_stays_silent_is_given_up_soon(fake):
    port = await fake(ROLE=None, CLIENT=None)
    said = await refused(f"redis://127.0.0.1:{port}", store_connect_s=0.2)
    assert f"store 127.0.0.1:{port}: no reply within 0.2 s; start the store" in said


async def test_a_server_without_tls_is_told_from_one_with_it(server):
    port = await server()
    assert await refused(f"rediss://127.0.0.1:{port}", store_connect_s=0.3) == (
        f"store 127.0.0.1:{port}: no answer within 0.3 s (rediss:// is with TLS, redis:// without); "
        f"start the store, or name another one"
    )


async def test_a_peer_that_answers_tls_with_something_else_is_told_as_that():
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"-ERR Protocol error\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        said = await refused(f"rediss://127.0.0.1:{port}")
    assert f"store 127.0.0.1:{port}: no TLS could be agreed on: " in said


async def test_a_wrong_password_and_a_missing_one_say_what_to_do(server):
    port = await server("--requirepass", "another")
    said = await refused(f"redis://127.0.0.1:{port}", store_password=SECRET)
    assert f"store 127.0.0.1:{port}: the server does not accept this user and password" in said
    said = await refused(f"redis://127.0.0.1:{port}")
    assert "the server wants a password: name its secret file, or put it in the URL" in said


async def test_a_replica_alone_is_told_from_a_primary(server):
    primary = await server()
    replica = await server("--replicaof", f"127.0.0.1 {primary}")
    said = await refused(f"redis://127.0.0.1:{replica}")
    assert f"127.0.0.1:{replica} is a replica; name the primary too" in said


async def test_a_store_that_may_drop_keys_is_refused(server):
    port = await server("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    said = await refused(f"redis://127.0.0.1:{port}")
    assert "has the maxmemory-policy allkeys-lru" in said
    assert "drops entities that were acknowledged; set it to noeviction" in said


async def test_a_store_without_memory_left_is_refused_with_what_to_raise(server):
    port = await server("--maxmemory", "1mb", "--appendonly", "yes")
    said = await refused(f"redis://127.0.0.1:{port}")
    assert "the server is at its memory limit: raise maxmemory (with the policy noeviction)" in said


async def test_a_store_that_can_keep_no_write_is_refused_with_the_ways_out(server):
    port = await server("--appendonly", "no")
    said = await refused(f"redis://127.0.0.1:{port}")
    assert "cannot confirm that a write is on disk: attach replicas, or use" in said
    assert "--durability process" in said


@mesh.entity(durability="fsynced")
class OnDisk:
    value: int = 0


async def test_an_entity_that_wants_the_disk_is_refused_where_nobody_can_say_what_is_on_it(server):
    primary = await server("--appendonly", "no")
    await server("--replicaof", f"127.0.0.1 {primary}")
    said = await refused(
        f"redis://127.0.0.1:{primary}", carried=pack_classes([OnDisk]), durability="process"
    )
    assert said.startswith(
        'OnDisk: durability="fsynced" needs a store that confirms what is on its disk, and '
        f"redis://127.0.0.1:{primary}"
    )
    assert "with appendonly no: use Redis or Valkey 7.2 or newer with appendonly yes" in said


async def test_a_mesh_of_another_number_of_partitions_is_left_as_it_is(server):
    port = await server("--appendonly", "yes")
    store = RedisStore(mesh_address(port))
    await store.ensure_functions()
    opening = OpenLife(new_operation(), 0, 1, 1, 64, InSyncSet(1, frozenset()))
    await store.open_life(opening)
    said = await refused(f"redis://127.0.0.1:{port}", partitions=128)
    assert said == (
        "mesh 'bad-store' was created with 64 partitions, not 128; the number is fixed: leave "
        "--partitions out, or use another name"
    )
    life = (await store.recorded()).life
    assert life is not None
    assert (life.number, life.partitions) == (1, 64)
    await store.close()


def mesh_address(port: int) -> StoreAddress:
    return StoreAddress((("127.0.0.1", port),), "bad-store")


# --------------------------------------- servers that one cannot have at hand


@pytest.fixture
async def fake() -> AsyncIterator[Callable[..., Awaitable[int]]]:
    """Serve what is given: by a command's first word its reply, None for silence; +OK to others."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(**replies: bytes | None) -> int:
            by_word = {"ROLE": MASTER, "HGET": b"$-1\r\n", "WAIT": b":0\r\n", **replies}

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                parser = hiredis.Reader()
                with contextlib.suppress(ConnectionError):
                    while data := await reader.read(65_536):
                        parser.feed(data)
                        while (command := parser.gets()) is not False:
                            writer.write(by_word.get(command[0].decode(), b"+OK\r\n") or b"")
                writer.close()

            listening = await asyncio.start_server(serve, "127.0.0.1", 0)
            await stack.enter_async_context(listening)
            return int(listening.sockets[0].getsockname()[1])

        yield start


def info(**fields: str) -> bytes:
    text = "".join(f"{name}:{value}\r\n" for name, value in fields.items()).encode()
    return b"$%d\r\n%b\r\n" % (len(text), text)


FIT = info(redis_version="7.2.4", run_id="a", redis_mode="standalone")
UNKNOWN = b"-ERR unknown command 'FUNCTION', with args beginning with: 'LIST'\r\n"

UNFIT = {
    "too old": (
        {"INFO": info(redis_version="6.2.14", run_id="a")},
        "is redis 6.2.14, which has no functions: raymesh needs Redis 7.0 or Valkey 7.2, or newer",
    ),
    "a valkey that is too old": (
        {"INFO": info(redis_version="7.2.4", valkey_version="7.1.0", run_id="a")},
        "is valkey 7.1.0, which has no functions",
    ),
    "a cluster": (
        {"INFO": info(redis_version="7.2.4", run_id="a", redis_mode="cluster")},
        "runs in the mode 'cluster': name a standalone primary (with replicas)",
    ),
    "a proxy that has no version": (
        {"INFO": info(proxy="yes")},
        "does not tell its version as Redis does (INFO says 'proxy:yes\\r\\n'): raymesh needs Redis",
    ),
    "a proxy that answers with a number": (
        {"INFO": b":7\r\n"},
        "does not tell its version as Redis does (INFO says '7')",
    ),
    "a proxy that knows no functions": (
        {"INFO": FIT, "FUNCTION": UNKNOWN},
        "a command is not known there: raymesh needs Redis 7.0 or Valkey 7.2, or newer, and no proxy",
    ),
    "one that knows no ROLE": (
        {"ROLE": b"-ERR unknown command 'ROLE'\r\n"},
        "a command is not known there",
    ),
    "one in protected mode": (
        {"CLIENT": b"-DENIED Redis is running in protected mode\r\n", "ROLE": b"-DENIED no\r\n"},
        "the server is in protected mode, for its own machine only: set a password there",
    ),
    "one that has too many clients": (
        {"ROLE": b"-ERR max number of clients reached\r\n"},
        "the server has as many clients as it may: raise maxclients",
    ),
    "one that is loading": (
        {"ROLE": b"-LOADING Redis is loading the dataset in memory\r\n"},
        "the server is loading its data: wait",
    ),
}


@pytest.mark.parametrize("what", UNFIT)
async def test_an_unfit_server_is_told_with_what_is_wanted(fake, what):
    replies, said = UNFIT[what]
    port = await fake(**replies)
    message = await refused(f"redis://127.0.0.1:{port}")
    assert said in message
    assert f"127.0.0.1:{port}" in message


def test_on_the_terminal_it_is_one_line_and_nothing_stays(tmp_path, unused_port):
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MESH_")},
        "MESH_STORE_PASSWORD": SECRET,
        "TMPDIR": str(tmp_path),
    }
    arguments = ("up", "--store", f"redis://127.0.0.1:{unused_port}", "--data-dir", "data")
    done = subprocess.run(
        [sys.executable, "-m", "mesh.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"mesh up: store 127.0.0.1:{unused_port}: nothing listens there; start the store, or name "
        f"another one\n"
    )
    assert not list(tmp_path.glob("raymesh-*/*"))


# ------------------------------------------------- a store that fails while it serves


class OnServers:
    """A mesh in this process, on real servers: a primary, two replicas, Sentinels."""

    def __init__(self, folder: Path) -> None:
        self.embedded = EmbeddedStore(folder, mesh="on-servers", down_after_ms=60_000)
        self.nodes: list[Node] = []

    async def __aenter__(self) -> OnServers:
        self.address = await self.embedded.start()
        store = RedisStore(self.address)
        await store.ensure_functions()
        ids = ("h-0", "h-1")
        self.supervisor = Supervisor(
            SupervisorSettings("on-servers", "s-0", ids, 16), store, NoLauncher()
        )
        await self.supervisor.listen()
        await self.supervisor.lead()
        for id_ in ids:
            settings = NodeSettings("on-servers", id_, (self.endpoint,), 16)
            node = Node(settings, Registry([]), RedisStore(self.address, call_timeout_s=0.5))
            await node.start()
            self.nodes.append(node)
        await self.until(self._is_ready)
        self.client = await mesh.connect(self.endpoint)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()
        for node in self.nodes:
            await node.stop()
        await self.supervisor.stop()
        await self.embedded.stop()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.supervisor.port}"

    async def _is_ready(self) -> bool:
        # Warm: from here on only commits need the store.
        tenures = [
            tenure for node in self.nodes for tenure in node._core._tenures.in_memory.values()
        ]
        warm = len(tenures) == 16 and all(tenure.warm for tenure in tenures)
        return warm and bool((await self.supervisor.status())["ready"])

    async def until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(15):
            while not await holds():  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(0.005)

    def key_beside(self, key: str) -> str:
        """One of another partition, and of the same handler."""
        own = partition_of(key.encode(), 16)
        [held] = [n._core._tenures for n in self.nodes if own in n._core._tenures]
        beside = {*held.held()} - {own}
        return next(
            k for k in map("b{}".format, count_up()) if partition_of(k.encode(), 16) in beside
        )

    async def all_wait(self, calls: int) -> bool:
        return sum(node._core._answers.pending for node in self.nodes) >= calls

    async def tell_primary(self, *arguments: bytes | str | int) -> object:
        connection = await connect(
            *self.address.nodes[0], password=self.address.password, within_s=5
        )
        try:
            (reply,) = await connection.execute(pack(*arguments), within_s=5)
        finally:
            await connection.close()
        assert not isinstance(reply, Exception), reply
        return reply


class NoLauncher:
    async def start_handler(self, id: str) -> None:
        raise SetupError("this test wants no replacement")


@pytest.fixture
async def on_servers(tmp_path: Path) -> AsyncIterator[OnServers]:
    async with OnServers(tmp_path) as running:
        yield running


async def in_the_end(client: AsyncClient, key: str, refused: list[Overloaded]) -> Any:
    """As a caller does who heeds what a refusal says."""
    while True:
        try:
            return await client.call("KV.incr", key)
        except Overloaded as error:
            refused.append(error)
            await asyncio.sleep(error.retry_after or 0)


async def count(client: AsyncClient, key: str) -> Any:
    return await client.call("KV.get", key)


async def test_while_the_store_is_out_of_memory_calls_end_typed_and_afterwards_all_goes_on(
    on_servers, caplog
):
    client = on_servers.client
    assert await client.call("KV.incr", "k") == 1
    with caplog.at_level(logging.WARNING, "mesh.node"):
        await on_servers.tell_primary("CONFIG", "SET", "maxmemory", "1mb")
        full_at = now()
        with pytest.raises(OutcomeUnknown) as caught:
            await client.call("KV.incr", "k", timeout=0.3)
        assert caught.value.executed is None
        # Who comes later reads why, and knows that nothing was done. Two lanes: one more finds out by itself.
        beside = on_servers.key_beside("k")
        with pytest.raises(OutcomeUnknown):
            await client.call("KV.incr", beside, timeout=0.3)
        for key in ("k", beside, "k"):
            with pytest.raises(Overloaded) as refused:
                await client.call("KV.incr", key)
            assert (refused.value.executed, refused.value.retry_after) == (False, 1.0)
            assert refused.value.message.startswith("not executed, nothing can be written: store ")
            assert "the server is at its memory limit: raise maxmemory" in refused.value.message
        # What is acknowledged is still served, also when the lease is not that of before any more.
        async with asyncio.timeout(5):
            while now() < full_at + LeaseTiming().out_s:
                assert await count(client, "k") == 1
        assert await count(client, "k") == 1
        assert await count(client, "other") is None
    [warning] = [r.getMessage() for r in caplog.records if "store refused" in r.getMessage()]
    assert "the server is at its memory limit: raise maxmemory" in warning
    assert not any(node.ended.is_set() for node in on_servers.nodes)
    await on_servers.tell_primary("CONFIG", "SET", "maxmemory", "0")
    # The call without a verdict took effect once, since the memory is back; so does the next.
    assert await in_the_end(client, "k", []) == 3
    assert caplog.messages[-1] == "the store answers again"
    with pytest.raises(EntityError):
        await client.call("KV.incr", "k", "x")


async def test_calls_that_wait_while_the_store_is_out_of_memory_end_well_in_time(on_servers):
    """Those that were taken up before it said so, and those that were told to come again."""
    client, refused = on_servers.client, []
    await on_servers.tell_primary("CONFIG", "SET", "maxmemory", "1mb")
    calls = [asyncio.create_task(in_the_end(client, f"k{i}", refused)) for i in range(50)]
    await on_servers.until(lambda: on_servers.all_wait(len(calls) - len(refused)))
    await on_servers.tell_primary("CONFIG", "SET", "maxmemory", "0")
    assert await asyncio.gather(*calls) == [1] * len(calls)


async def test_while_the_store_does_not_answer_reads_wait_once_the_lease_is_out(on_servers, caplog):
    """Until then nobody else can serve the key; after that its owner cannot know."""
    client = on_servers.client
    assert await client.call("KV.incr", "k") == 1
    primary, *_ = await on_servers.embedded.nodes()
    os.kill(primary.pid, signal.SIGSTOP)
    try:
        assert await count(client, "k") == 1
        with caplog.at_level(logging.WARNING, "mesh.node"), pytest.raises(OutcomeUnknown):
            await client.call("KV.incr", "k", timeout=1.0)
        waiting = asyncio.create_task(count(client, "k"))
        with pytest.raises(OutcomeUnknown):
            await client.call("KV.get", "k", timeout=0.3)
        assert not waiting.done()
    finally:
        os.kill(primary.pid, signal.SIGCONT)
    assert "store unreachable, commits wait" in caplog.text
    assert "no reply within 0.5 s" in caplog.text
    assert await waiting in (1, 2)
    assert await client.call("KV.incr", "k") == 3


async def test_functions_that_somebody_deleted_are_named_and_nothing_is_lost(on_servers, caplog):
    client = on_servers.client
    assert await client.call("KV.incr", "k") == 1
    await on_servers.tell_primary("FUNCTION", "FLUSH")
    with caplog.at_level(logging.WARNING, "mesh.node"), pytest.raises(OutcomeUnknown):
        await client.call("KV.incr", "k", timeout=0.3)
    assert "the mesh's functions are not loaded here yet: its leader loads them" in caplog.text
    store = RedisStore(on_servers.address)
    await store.ensure_functions()
    await store.close()
    assert await client.call("KV.incr", "k") == 3
