"""What strangers and broken peers do to a port of the mesh: it costs them, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest
from bystander import bystander
from mesh_in_process import NAME, InProcess, raw_peer

import mesh
from mesh.core.keyspace import partition_of
from mesh.core.messages import Answer, Ask, Beat, Hello, Refused, Welcome, unpack_message
from mesh.core.wire import Kind, Limits, Request, pack_frame, pack_request
from mesh.errors import AuthenticationError, Unavailable

LIMITS = Limits(frame_bytes=1 << 20, hello_s=0.3, unauthenticated=4, write_buffer_bytes=1 << 20)
TOKEN = "right"


@pytest.fixture
async def meshed():
    async with InProcess(2, token=TOKEN, limits=LIMITS) as running:
        yield running


@pytest.fixture(params=["supervisor", "handler"])
def address(request, meshed):
    return meshed.endpoint if request.param == "supervisor" else meshed.address("h-0")


@pytest.fixture
async def unharmed(meshed):
    """Another client's calls, all through the test."""
    async with bystander(meshed):
        yield


STRANGERS = {
    "an oversize frame": (b"\x7f\xff\xff\xff\x01\x01\0\0", "over the limit"),
    "another protocol version": (b"\0\0\0\x08\x02\x01\0\0hello", "protocol version 2"),
    "a TLS client hello": (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", "speaks TLS"),
    "no hello first": (Ask(1, "status", []).frame(), "has to be a hello"),
    "a hello that is none": (pack_frame(Kind.HELLO, b"\xc1\xc1"), "malformed"),
    "a hello of other fields": (pack_frame(Kind.HELLO, b"\x92\xa5Hello\x01"), "malformed Hello"),
}


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("what", STRANGERS)
async def test_a_stranger_is_told_what_was_wrong_and_is_closed(what, address):
    sent, said = STRANGERS[what]
    async with raw_peer(address) as peer:
        peer.send(sent)
        refused = await peer.last_words()
    assert isinstance(refused, Refused)
    assert said in refused.reason
    assert not refused.auth


@pytest.mark.usefixtures("unharmed")
async def test_a_peer_that_said_hello_is_closed_for_an_oversize_frame_too(meshed, address):
    async with raw_peer(address) as peer:
        peer.send_hello(TOKEN)
        await peer.frame(Kind.CONTROL)
        peer.send((LIMITS.frame_bytes + 1).to_bytes(4, "big") + b"\x01\x02\0\0")
        refused = await peer.last_words()
    assert isinstance(refused, Refused)
    assert f"over the limit of {LIMITS.frame_bytes}" in refused.reason


@pytest.mark.usefixtures("unharmed")
async def test_a_frame_that_breaks_off_leaves_nothing_behind(meshed):
    listener = meshed.nodes["h-0"]._listener
    before = repr(listener)
    async with raw_peer(meshed.address("h-0")) as peer:
        peer.send_hello(TOKEN)
        await peer.frame(Kind.CONTROL)
        assert repr(listener) != before
        peer.send(pack_frame(Kind.REQUEST, b"x" * 1000)[:500])
    await meshed.until(lambda: repr(listener) == before)


async def test_frames_that_come_byte_by_byte_are_understood(meshed):
    async with raw_peer(meshed.endpoint) as peer:
        words = Hello(NAME, "tool", TOKEN).frame(Kind.HELLO) + Ask(7, "status", []).frame()
        for at in range(len(words)):
            peer.send(words[at : at + 1])
            await peer.writer.drain()
        assert isinstance(unpack_message(await peer.frame(Kind.CONTROL)), Welcome)
        assert isinstance(unpack_message(await peer.frame(Kind.CONTROL)), Answer)


@pytest.mark.usefixtures("unharmed")
async def test_a_wrong_token_is_an_authentication_error_at_the_client(meshed, address):
    with pytest.raises(AuthenticationError, match="wrong token") as caught:
        await mesh.connect(address, token="wrong")
    assert caught.value.executed is False
    with pytest.raises(AuthenticationError):
        await mesh.connect(address)


async def test_a_mesh_of_another_name_is_refused(meshed):
    with pytest.raises(Unavailable, match="this is mesh 'in-process', not 'other'"):
        await mesh.connect(meshed.endpoint, token=TOKEN, mesh="other", timeout=0.2)


@pytest.mark.usefixtures("unharmed")
async def test_silent_connections_are_few_and_short(address):
    async with contextlib.AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(raw_peer(address)) for _ in range(8)]
        words = await asyncio.gather(*(peer.last_words() for peer in silent))
    reasons = [w.reason for w in words if isinstance(w, Refused)]
    early = [reason for reason in reasons if reason.startswith("4 others wait without a hello")]
    assert len(early) == len(silent) - LIMITS.unauthenticated
    late = [reason for reason in reasons if reason == "no hello within 0.3 s"]
    assert len(late) == LIMITS.unauthenticated


async def test_a_hello_that_never_ends_counts_as_silence(address):
    async with raw_peer(address) as peer:
        peer.send(b"\0\0\0\x40\x01\x01")
        refused = await peer.last_words()
    assert isinstance(refused, Refused)
    assert "no hello within" in refused.reason


async def test_a_client_that_finds_every_place_taken_by_strangers_gets_in_before_they_are_closed():
    patient = replace(LIMITS, hello_s=600.0)
    async with InProcess(1, limits=patient) as meshed, contextlib.AsyncExitStack() as stack:
        listener = meshed.nodes["h-0"]._listener
        for _ in range(LIMITS.unauthenticated):
            await stack.enter_async_context(raw_peer(meshed.address("h-0")))
        await meshed.until(lambda: len(listener._silent) == LIMITS.unauthenticated)
        client = await meshed.connect(meshed.address("h-0"), timeout=5.0)
        assert await client.call("KV.incr", "late") == 1
        assert len(listener._silent) == LIMITS.unauthenticated - 1


@pytest.mark.usefixtures("unharmed")
async def test_a_peer_that_does_not_read_is_cut_off(meshed):
    client = await meshed.connect()
    key = await meshed.key_of("h-0", "large")
    await client.call("KV.put", key, b"x" * 500_000)
    partition = partition_of(key.encode(), 16)
    epoch = client.table.owner(partition).epoch
    listener = meshed.nodes["h-0"]._listener
    async with raw_peer(meshed.address("h-0")) as peer:
        peer.writer.transport.pause_reading()
        before = len(listener.connections)
        peer.send_hello(TOKEN)
        await meshed.until(lambda: len(listener.connections) == before + 1)
        get = b"\x93\xa6KV.get\xc4" + bytes([len(key)]) + key.encode() + b"\x90"
        for counter in range(1, 65):
            peer.send(
                pack_request(Request(99, counter, counter, partition, epoch, 9000, 0, 0, 0, get))
            )
        await meshed.until(lambda: len(listener.connections) == before)
        assert await client.call("KV.incr", "others") == 1


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize(
    "frame",
    [
        pack_frame(Kind.REQUEST, b"short"),
        pack_frame(Kind.CONTROL, b"\x91\xa7Unknown"),
        pack_frame(Kind.TABLE, b"\xc1"),
        Beat(b"", 0, 0, 0, 0, 0, 0).frame(),
    ],
    ids=["short request", "unknown message", "a table", "a handler's beat"],
)
async def test_a_client_that_says_what_clients_do_not_say_is_closed(meshed, frame):
    async with raw_peer(meshed.address("h-0")) as peer:
        peer.send_hello(TOKEN)
        await peer.frame(Kind.CONTROL)
        peer.send(frame)
        assert isinstance(await peer.last_words(), Refused)
