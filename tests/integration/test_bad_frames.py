"""Bytes that no client of ours sends: whoever sent them reads what was wrong, and nobody else notices.

Of memory: what a peer can make a process keep is bounded by the limits, whatever it sends and however slowly.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import resource
import tracemalloc
from collections.abc import AsyncIterator

import msgpack
import pytest
from bystander import bystander
from mesh_in_process import PARTITIONS, InProcess, RawPeer, raw_peer

import mesh
from mesh.core.keyspace import partition_of
from mesh.core.messages import Answer, Ask, Refused, Welcome, unpack_message
from mesh.core.wire import (
    Kind,
    Limits,
    Request,
    Status,
    pack_frame,
    pack_request,
    unpack_reply,
)
from mesh.errors import Unavailable
from mesh.store.address import StoreAddress
from mesh.store.api import StoreUnreachable
from mesh.store.redis import RedisStore

LIMITS = Limits(frame_bytes=1 << 20, hello_s=0.5, frame_s=0.2)
DEEP = 100_000


@pytest.fixture
async def meshed():
    async with InProcess(2, limits=LIMITS) as running:
        yield running


@pytest.fixture(params=["supervisor", "handler"])
def address(request, meshed):
    return meshed.endpoint if request.param == "supervisor" else meshed.address("h-0")


@pytest.fixture
async def unharmed(meshed):
    """Another client's calls, all through the test."""
    async with bystander(meshed):
        yield


def listener_at(meshed: InProcess, address: str):
    at_supervisor = address == meshed.endpoint
    return meshed.supervisor.links.listener if at_supervisor else meshed.nodes["h-0"]._listener


def kept_bytes(listener) -> int:
    """Of frames that are not whole, over all connections."""
    connections = (*listener._silent, *listener.connections)
    return sum(len(conn._reader.unfinished or b"") for conn in connections)


# ------------------------------------------------------------------ strangers


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
async def test_who_comes_with_curl_reads_what_listens_there(method, address):
    def ask() -> tuple[int, str]:
        host, _, port = address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=5)
        try:
            connection.request(method, "/metrics")
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    status, body = await asyncio.to_thread(ask)
    assert status == 400
    assert body == (
        "a raymesh mesh listens here and does not speak HTTP: call it with mesh.connect() or "
        "`mesh call`; `mesh status` shows who listens where\n"
    )


@pytest.mark.usefixtures("unharmed")
async def test_a_mesh_that_is_named_as_the_store_is_told_from_one(address):
    host, _, port = address.rpartition(":")
    for password in (None, "secret"):
        store = RedisStore(StoreAddress(((host, int(port)),), password=password))
        says = "which had said: ERR a raymesh mesh listens here and does not speak Redis"
        with pytest.raises(StoreUnreachable, match=says):
            await store.check_server()
        await store.close()


OTHERS = {
    "a web server": (
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        "the peer speaks HTTP, not raymesh's protocol",
    ),
    "a mesh of the next version": (b"\0\0\0\x08\x02\x01\0\0hello", "protocol version 2, this side"),
    "one that sends too much": (b"\x7f\xff\xff\xff\x01\x05\0\0", "2147483647 bytes is over the"),
    "one that sends no welcome": (pack_frame(Kind.TABLE, b"x"), "does not answer as a mesh does"),
    "one that hangs up": (b"", "closed by the peer"),
}


@pytest.mark.parametrize("what", OTHERS)
async def test_a_client_that_finds_somebody_else_says_who_it_is(what):
    answer, said = OTHERS[what]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unavailable) as caught:
            await mesh.connect(f"127.0.0.1:{port}", timeout=0.5)
    assert f"no welcome from 127.0.0.1:{port}: " in str(caught.value)
    assert said in str(caught.value)


# ------------------------------------------------------------- malformed bytes


def nested(depth: int, core: bytes = b"\xc0") -> bytes:
    """Lists in lists, as msgpack writes them."""
    return b"\x91" * depth + core


@pytest.mark.usefixtures("unharmed")
async def test_a_hello_that_is_nested_deeply_is_malformed(address):
    async with raw_peer(address) as peer:
        peer.send(pack_frame(Kind.HELLO, nested(LIMITS.hello_bytes - 100)))
        refused = await peer.last_words()
    assert isinstance(refused, Refused)
    assert "malformed message" in refused.reason


@pytest.mark.usefixtures("unharmed")
async def test_a_hello_that_is_large_is_refused_at_its_first_bytes(address):
    async with raw_peer(address) as peer:
        peer.send(pack_frame(Kind.HELLO, b"x" * LIMITS.hello_bytes)[:8])
        refused = await peer.last_words()
    assert isinstance(refused, Refused)
    assert f"over the limit of {LIMITS.hello_bytes}" in refused.reason


@pytest.mark.usefixtures("unharmed")
async def test_a_message_that_is_nested_deeply_ends_its_connection(meshed):
    async with greeted(meshed.endpoint) as peer:
        peer.send(pack_frame(Kind.CONTROL, nested(DEEP)))
        refused = await peer.last_words()
    assert isinstance(refused, Refused)
    assert "malformed message" in refused.reason


BAD_REQUESTS = {
    "arguments nested deeply": (b"\x93\xa6KV.put\xc4\x01k" + nested(DEEP), "cannot be decoded"),
    "no msgpack": (b"\xc1" * 10, "cannot be decoded"),
    "cut short": (b"\x93\xa6KV.put\xc4\x01k\x91\xc4\xff", "cannot be decoded"),
    "more behind it": (b"\x93\xa6KV.get\xc4\x01k\x90\x00", "cannot be decoded"),
    "a list that says it has 4 G elements": (
        b"\x93\xa6KV.put\xc4\x01k\xdd\xff\xff\xff\xff",
        "cannot be decoded",
    ),
    "a text that is no UTF-8": (b"\x93\xa6KV.put\xc4\x01k\x91\xa2\xff\xfe", "cannot be decoded"),
    "a number": (b"\x07", "a request is [method, key, args"),
    "a map of arguments in the place of a list": (
        msgpack.packb(["KV.get", b"k", {}]),
        "a request is [method, key, args",
    ),
    "an unknown entity": (msgpack.packb(["Nope.get", b"k", []]), "no entity is named 'Nope'"),
    "an unknown method": (msgpack.packb(["KV.nope", b"k", []]), "KV has no method 'nope'"),
    "a field in the place of a method": (
        msgpack.packb(["KV.__class__", b"k", []]),
        "KV has no method '__class__'",
    ),
    "an unknown argument": (
        msgpack.packb(["KV.get", b"k", [], {"nope": 1}]),
        "got an unexpected keyword argument 'nope'",
    ),
    "too many arguments": (
        msgpack.packb(["KV.get", b"k", [1, 2, 3]]),
        "too many positional arguments",
    ),
    "too few arguments": (msgpack.packb(["KV.put", b"k", []]), "missing a required argument"),
    "a key of another type": (msgpack.packb(["KV.get", "k", []]), "a key is 1 to 512 bytes"),
    "an empty key": (msgpack.packb(["KV.get", b"", []]), "a key is 1 to 512 bytes"),
    "a long key": (msgpack.packb(["KV.get", b"k" * 513, []]), "a key is 1 to 512 bytes"),
}


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("what", BAD_REQUESTS)
async def test_a_bad_request_is_answered_and_its_connection_goes_on(meshed, what):
    payload, said = BAD_REQUESTS[what]
    key = (await meshed.key_of("h-0")).encode()
    core = meshed.nodes["h-0"]._core
    async with greeted(meshed.address("h-0")) as peer:
        before = set(core._tenures[partition_of(key, PARTITIONS)].slots)
        peer.send(request(meshed, 1, key, payload))
        reply = unpack_reply(await peer.frame(Kind.REPLY))
        assert (reply.counter, reply.status) == (1, Status.BAD_REQUEST)
        assert said in msgpack.unpackb(reply.payload)
        assert set(core._tenures[partition_of(key, PARTITIONS)].slots) == before
        peer.send(request(meshed, 2, key, msgpack.packb(["KV.get", key, []])))
        reply = unpack_reply(await peer.frame(Kind.REPLY))
        assert (reply.counter, reply.status) == (2, Status.OK)


@pytest.mark.usefixtures("unharmed")
async def test_a_key_in_the_wrong_partition_is_refused(meshed):
    key = (await meshed.key_of("h-0")).encode()
    other = next(
        k for k in (b"%d" % i for i in range(100)) if partition_of(k, 16) != partition_of(key, 16)
    )
    async with greeted(meshed.address("h-0")) as peer:
        peer.send(request(meshed, 1, key, msgpack.packb(["KV.incr", other, []])))
        reply = unpack_reply(await peer.frame(Kind.REPLY))
        assert reply.status == Status.BAD_REQUEST
        assert "does not belong to partition" in msgpack.unpackb(reply.payload)
        peer.send(pack_request(Request(9, 2, 2, 4_000_000_000, 0, 9000, 0, 0, 0, b"")))
        reply = unpack_reply(await peer.frame(Kind.REPLY))
        assert "partition 4000000000 of a mesh that has 16" in msgpack.unpackb(reply.payload)


# ------------------------------------------------------------------- slow ones


@pytest.mark.usefixtures("unharmed")
async def test_a_frame_that_is_never_finished_ends_its_connection_and_no_others(meshed, address):
    async with greeted(address) as idle, greeted(address) as slow:
        slow.send(pack_frame(Kind.CONTROL, b"x" * 1000)[:500])
        refused = await slow.last_words()
        assert isinstance(refused, Refused)
        assert refused.reason == "a frame was begun and not finished within 0.2 s"
        idle.send(Ask(1, "nonsense", []).frame())
        await (idle.frame(Kind.CONTROL) if address == meshed.endpoint else idle.last_words())


@pytest.mark.usefixtures("unharmed")
async def test_a_peer_that_sends_frame_after_frame_slowly_is_not_cut_off(meshed):
    """It has an unfinished one whenever anybody looks, and never the same."""
    frame = Ask(1, "nonsense", []).frame()
    half = len(frame) // 2
    listener = meshed.supervisor.links.listener
    async with greeted(meshed.endpoint) as slow:
        sweeps, sweep = 0, listener._sweep
        slow.send(frame[:half])
        while sweeps < 4:
            slow.send(frame[half:] + frame[:half])
            assert isinstance(unpack_message(await slow.frame(Kind.CONTROL)), Answer)
            sweeps, sweep = sweeps + (listener._sweep is not sweep), listener._sweep


@pytest.mark.usefixtures("unharmed")
async def test_what_slow_senders_make_a_process_keep_is_bounded(meshed, address):
    listener = listener_at(meshed, address)
    large = pack_frame(Kind.REQUEST, b"x" * (LIMITS.frame_bytes - 4))
    tracemalloc.start()
    try:
        async with contextlib.AsyncExitStack() as stack:
            peers = [await stack.enter_async_context(greeted(address)) for _ in range(4)]
            before, _ = tracemalloc.get_traced_memory()
            for peer in peers:
                peer.send(large[:-1])
            await meshed.until(lambda: kept_bytes(listener) >= 4 * (len(large) - 1))
            now, _ = tracemalloc.get_traced_memory()
            # Theirs, and what a buffer has in hand to grow.
            assert now - before <= 1.25 * 4 * len(large)
            words = await asyncio.gather(*(peer.last_words() for peer in peers))
        assert all(isinstance(w, Refused) and "not finished" in w.reason for w in words)
        assert kept_bytes(listener) == 0
    finally:
        tracemalloc.stop()


# -------------------------------------------------------------- silent strangers

CROWD = 1000


@pytest.fixture
def many_files():
    """A thousand connections have two thousand ends here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3 * CROWD
    if soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            pytest.skip(f"opens {wanted} files, {hard} are allowed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("unharmed", "many_files")
async def test_a_thousand_silent_connections_keep_nobody_out_and_are_all_closed(meshed, address):
    listener = listener_at(meshed, address)
    before = len(listener.connections)
    async with contextlib.AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(raw_peer(address)) for _ in range(CROWD)]
        assert len(listener._silent) <= LIMITS.unauthenticated
        client = await meshed.connect(address)
        assert await client.call("KV.incr", "late") == 1
        await client.close()
        words = await asyncio.gather(*(peer.last_words(10) for peer in crowd))
    await meshed.until(lambda: len(listener.connections) == before)
    assert not listener._silent
    reasons = {w.reason for w in words if isinstance(w, Refused)}
    assert len(words) == CROWD
    assert reasons == {
        "no hello within 0.5 s",
        "256 others wait without a hello, this one for longest",
    }, words


# -------------------------------------------------------------------- helpers


@contextlib.asynccontextmanager
async def greeted(address: str) -> AsyncIterator[RawPeer]:
    """A peer that said hello as a client does."""
    async with raw_peer(address) as peer:
        peer.send_hello()
        assert isinstance(unpack_message(await peer.frame(Kind.CONTROL)), Welcome)
        yield peer


def request(meshed: InProcess, counter: int, key: bytes, payload: bytes) -> bytes:
    """A frame for the owner of that key."""
    partition = partition_of(key, PARTITIONS)
    table = meshed.nodes["h-0"]._core.table
    epoch = table.owner(partition).epoch
    return pack_request(Request(9, counter, counter, partition, epoch, 9000, 0, 0, 0, payload))
