"""One effect for each call, and nothing is shown that is not acknowledged."""

from __future__ import annotations

import asyncio
import contextlib

import msgpack
import pytest
from mesh_in_process import PARTITIONS, InProcess, RawPeer, raw_peer

from mesh.core.keyspace import partition_of
from mesh.core.wire import Kind, Redirect, Request, Status, pack_request, unpack_reply

SESSION = 77


@pytest.fixture
async def meshed():
    async with InProcess(2) as running:
        yield running


@pytest.fixture
async def client(meshed):
    return await meshed.connect()


@contextlib.asynccontextmanager
async def caller(address: str):
    """A connection that writes its own requests."""
    async with raw_peer(address) as peer:
        peer.send_hello()
        yield peer


def request(epoch: int, key: str, *args: object, counter: int = 1, **changed: object) -> bytes:
    payload = msgpack.packb(["KV.incr", key.encode(), args])
    partition = partition_of(key.encode(), PARTITIONS)
    header = Request(SESSION, counter, counter, partition, epoch, 5000, 0, 0, 0, payload)
    return pack_request(header._replace(**changed))


async def reply(peer: RawPeer) -> tuple[int, object]:
    answer = unpack_reply(await peer.frame(Kind.REPLY))
    return answer.status, msgpack.unpackb(answer.payload)


async def key_and_epoch(meshed: InProcess, client, id_: str) -> tuple[str, int]:
    key = await meshed.key_of(id_)
    return key, client.table.owner(partition_of(key.encode(), PARTITIONS)).epoch


async def test_a_resend_after_a_broken_connection_has_one_effect(meshed, client):
    key = await meshed.key_of("h-0")
    with meshed.replicas_silent():
        calling = asyncio.create_task(client.call("KV.incr", key))
        await meshed.until_pending()
        assert meshed.break_connections("h-0") >= 1
        await meshed.until(lambda: "2 handlers" in repr(client))
    assert await calling == 1
    assert await client.call("KV.get", key) == 1


async def test_the_same_id_again_gets_the_recorded_reply(meshed, client):
    key, epoch = await key_and_epoch(meshed, client, "h-0")
    for _ in range(2):
        async with caller(meshed.address("h-0")) as peer:
            peer.send(request(epoch, key, 5))
            assert await reply(peer) == (Status.OK, 5)
            peer.send(request(epoch, key, 5))
            assert await reply(peer) == (Status.OK, 5)
    assert await client.call("KV.get", key) == 5


async def test_a_copy_that_arrives_while_the_first_one_runs_waits_for_it(meshed, client):
    key, epoch = await key_and_epoch(meshed, client, "h-0")
    async with caller(meshed.address("h-0")) as first, caller(meshed.address("h-0")) as second:
        with meshed.replicas_silent():
            for peer in (first, second):
                peer.send(request(epoch, key))
            await meshed.until_pending()
        assert await reply(first) == await reply(second) == (Status.OK, 1)
    assert await client.call("KV.get", key) == 1


async def test_the_next_owner_gives_the_recorded_reply_too(meshed, client):
    key, epoch = await key_and_epoch(meshed, client, "h-0")
    async with caller(meshed.address("h-0")) as peer:
        peer.send(request(epoch, key))
        assert await reply(peer) == (Status.OK, 1)
    process = await meshed.kill("h-0")
    await meshed.replaced("h-0", process)
    partition = partition_of(key.encode(), PARTITIONS)
    owner, epoch = meshed.supervisor.core.table.owner(partition)
    async with caller(owner.address) as peer:
        peer.send(request(epoch, key))
        assert await reply(peer) == (Status.OK, 1)
    assert await client.call("KV.get", key) == 1


async def test_an_error_is_recorded_like_a_reply(meshed, client):
    key, epoch = await key_and_epoch(meshed, client, "h-0")
    async with caller(meshed.address("h-0")) as peer:
        peer.send(request(epoch, key, "x"))
        status, error = await reply(peer)
        assert (status, error[0]) == (Status.ENTITY_ERROR, "TypeError")
        await client.call("KV.put", key, 10)
        peer.send(request(epoch, key, "x"))
        assert await reply(peer) == (status, error)


async def test_the_same_id_with_other_arguments_is_a_conflict(meshed, client):
    key, epoch = await key_and_epoch(meshed, client, "h-0")
    async with caller(meshed.address("h-0")) as peer:
        peer.send(request(epoch, key, 1))
        assert await reply(peer) == (Status.OK, 1)
        peer.send(request(epoch, key, 2))
        status, _ = await reply(peer)
    assert status == Status.CONFLICT
    assert await client.call("KV.get", key) == 1


async def test_an_id_below_the_callers_own_mark_is_never_run_again(meshed, client):
    key, epoch = await key_and_epoch(meshed, client, "h-0")
    async with caller(meshed.address("h-0")) as peer:
        peer.send(request(epoch, key, counter=5))
        assert await reply(peer) == (Status.OK, 1)
        peer.send(request(epoch, key, counter=4))
        status, _ = await reply(peer)
    assert status == Status.UNKNOWN
    assert await client.call("KV.get", key) == 1


async def test_who_does_not_own_the_partition_names_who_does(meshed, client):
    key, epoch = await key_and_epoch(meshed, client, "h-0")
    async with caller(meshed.address("h-1")) as peer:
        peer.send(request(epoch, key))
        answer = unpack_reply(await peer.frame(Kind.REPLY))
    assert answer.status == Status.REDIRECT
    redirect = Redirect.decode(answer.payload)
    assert (redirect.id, redirect.port) == ("h-0", meshed.nodes["h-0"].port)
    assert redirect.epoch == epoch


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"deadline_ms": 0}, Status.EXPIRED),
        ({"age_ms": 0xFFFFFFFF}, Status.UNKNOWN),
        ({"partition": 999}, Status.BAD_REQUEST),
        ({"payload": b"\x93\xa7KV.incr\xc4\x01x\x90"}, Status.BAD_REQUEST),
        ({"payload": b"\xde\xff\xff"}, Status.BAD_REQUEST),
        ({"payload": b"\x91" * 5000}, Status.BAD_REQUEST),
    ],
    ids=["expired", "too old", "no such partition", "another's key", "truncated", "nested"],
)
async def test_what_must_not_run_does_not(meshed, client, changed, status):
    key, epoch = await key_and_epoch(meshed, client, "h-0")
    async with caller(meshed.address("h-0")) as peer:
        peer.send(request(epoch, key, **changed))
        assert (await reply(peer))[0] == status
    assert await client.call("KV.get", key) is None


async def test_a_query_never_shows_what_is_not_acknowledged(meshed, client):
    key = await meshed.key_of("h-0")
    assert await client.call("KV.incr", key) == 1
    with meshed.replicas_silent():
        calling = asyncio.create_task(client.call("KV.incr", key))
        await meshed.until_pending()
        assert [await client.call("KV.get", key) for _ in range(10)] == [1] * 10
        assert not calling.done()
    assert await calling == 2
    assert await client.call("KV.get", key) == 2


async def test_another_client_sees_what_was_acknowledged(meshed, client):
    await client.call("KV.put", "shared", {"a": [1, 2.5, None, b"x", "ü"]})
    other = await meshed.connect()
    assert await other.call("KV.get", b"shared") == {"a": [1, 2.5, None, b"x", "ü"]}


async def test_increments_of_one_key_by_many_clients_are_exact(meshed):
    clients = [await meshed.connect() for _ in range(5)]
    calls = [client.call("KV.incr", "one") for client in clients for _ in range(200)]
    assert sorted(await asyncio.gather(*calls)) == list(range(1, 1001))


@pytest.mark.parametrize("carried_out", [True, False])
async def test_a_broken_store_connection_costs_time_and_nothing_else(meshed, client, carried_out):
    assert await client.call("KV.incr", "k") == 1
    meshed.server.break_connection(carried_out=carried_out)
    assert await client.call("KV.incr", "k") == 2
    assert await client.call("KV.get", "k") == 2


async def test_a_store_that_is_away_holds_calls_up_and_fails_none(meshed, client):
    assert await client.call("KV.incr", "k") == 1
    meshed.server.reachable = False
    calls = [asyncio.create_task(client.call("KV.incr", key)) for key in ("k", "never touched")]
    await meshed.until_pending(2)
    meshed.server.reachable = True
    assert await asyncio.gather(*calls) == [2, 1]
