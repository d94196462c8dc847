"""What a user of the client sees: replies, typed errors that say what to do, one end for each call."""

from __future__ import annotations

import asyncio
import enum
import math
import re
import socket

import pytest
from mesh_in_process import PARTITIONS, InProcess

import mesh
from mesh.client.aio import AsyncClient
from mesh.client.stats import ClientStats
from mesh.core.keyspace import partition_of
from mesh.core.messages import Welcome
from mesh.core.table import HandlerRow
from mesh.errors import (
    BadRequest,
    DeadlineExceeded,
    EntityError,
    OutcomeUnknown,
    ProtocolError,
    Unavailable,
)
from mesh.net.listener import free_port


class Colour(enum.Enum):
    RED = 1


@mesh.entity
class Account:
    balance: int = 0

    @mesh.command
    def deposit(self, amount: int, *, bonus: int = 0) -> int:
        if amount < 0:
            raise ValueError("amount must be positive", amount)
        self.balance += amount + bonus
        return self.balance

    @mesh.command
    def take_and_fail(self) -> None:
        self.balance = -1
        raise KeyError("nothing there")

    @mesh.command
    def paint(self, colour: Colour = Colour.RED) -> Colour:
        return colour

    @mesh.query
    def read(self) -> int:
        return self.balance

    @mesh.query
    def read_badly(self) -> int:
        self.balance += 1
        return self.balance


@pytest.fixture
async def meshed():
    async with InProcess(2, app=[Account], replaces=False) as running:
        yield running


@pytest.fixture
async def client(meshed):
    return await meshed.connect()


async def test_a_method_is_called_by_reference_by_name_and_through_its_entity(client):
    assert await client.call(Account.deposit, "alice", 5) == 5
    assert await client.call("Account.deposit", b"alice", 5, bonus=1) == 11
    alice = client.entity(Account, "alice")
    assert await alice.deposit(1) == 12
    assert await alice.with_options(timeout=1.0).read() == 12


@pytest.mark.parametrize(
    ("method", "args", "type_", "message", "details"),
    [
        ("Account.deposit", [-3], "ValueError", "('amount must be positive', -3)", None),
        ("Account.take_and_fail", [], "KeyError", "'nothing there'", ["nothing there"]),
        ("Account.read_badly", [], "TypeError", "query read_badly changed the state", None),
        ("KV.incr", ["x"], "TypeError", "incr needs whole numbers", None),
    ],
)
async def test_what_the_entity_raised_reaches_the_caller_and_changes_nothing(
    client, method, args, type_, message, details
):
    before = await client.call(Account.deposit, "alice", 7)
    with pytest.raises(EntityError) as caught:
        await client.call(method, "alice", *args)
    assert caught.value.type == type_
    assert message in caught.value.message
    assert details is None or caught.value.details == details
    assert caught.value.executed is True
    assert caught.value.handler in ("h-0", "h-1")
    assert caught.value.partition == partition_of(b"alice", PARTITIONS)
    assert await client.call(Account.read, "alice") == before


@pytest.mark.parametrize(
    ("method", "key", "args", "says"),
    [
        ("KV.nope", "a", [], "KV has no method 'nope'; it has ["),
        ("Nope.get", "a", [], "no entity is named 'Nope'; this mesh has ['Account', 'KV']"),
        ("incr", "a", [], "method must be Entity.method or \"Entity.method\", not 'incr'"),
        ("KV.incr", "a", [1, 2], "too many positional arguments"),
        ("KV.put", "a", [], "missing a required argument: 'value'"),
        (mesh.KV.put, "a", [], "missing a required argument: 'value'"),
        ("KV.get", "", [], "key must be 1 to 512 bytes long, this one has 0"),
        ("KV.get", "x" * 513, [], "key must be 1 to 512 bytes long, this one has 513"),
        ("KV.get", 7, [], "key must be str or bytes, not int: 7"),
        ("KV.put", "a", [object()], "arguments of KV.put cannot be sent"),
        ("KV.put", "a", [Colour.RED], "call through the class"),
        (mesh.KV.put, "a", [Colour.RED], "arguments of KV.put cannot be sent"),
        ("KV.put", "a", [b"x" * (3 << 20)], "the limit is 2097152"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else None,
)
async def test_a_callers_mistake_is_named_with_its_value(client, method, key, args, says):
    with pytest.raises(BadRequest) as caught:
        await client.call(method, key, *args)
    assert says in str(caught.value)
    assert caught.value.executed is False


async def test_a_state_over_the_limit_is_refused_and_the_old_one_stays(client):
    await client.call("KV.put", "a", "small")
    with pytest.raises(EntityError, match="over the limit of 1048576"):
        await client.call("KV.put", "a", b"x" * (1 << 20))
    assert await client.call("KV.get", "a") == "small"


@pytest.mark.parametrize(
    "timeout", [0, -1.0, math.nan, math.inf, -math.inf, 86_401, 1e300, 10**400]
)
async def test_a_timeout_that_is_no_time_is_refused(client, timeout):
    says = f"timeout must be above 0 seconds and up to 86400, not {timeout!r}"
    with pytest.raises(BadRequest, match=re.escape(says)):
        await client.call("KV.get", "a", timeout=timeout)
    assert await client.call("KV.get", "a", timeout=86_400) is None


async def test_a_reply_that_cannot_be_decoded_is_told_as_executed(client):
    with pytest.raises(ProtocolError, match="was executed, its reply cannot be decoded") as caught:
        await client.call("Account.paint", "alice")
    assert caught.value.executed is True
    assert "call through the class rather than by name" in caught.value.message
    assert await client.call(Account.paint, "alice") is Colour.RED


async def test_an_address_that_cannot_be_dialed_is_tried_again_and_given_up_with_the_table(client):
    row = HandlerRow("h-9", b"nonce", "127.0.0.1", "none")  # as a redirect may say
    links = client._links
    links.connect(row)
    await asyncio.sleep(0.1)
    assert not links._dialing[row.nonce].done()
    links.disconnect(row.nonce)
    assert row.nonce not in links._dialing


async def test_a_peer_is_dialed_anew_whatever_the_last_attempt_ended_of(
    client, monkeypatch, caplog
):
    async def fail(*_: object) -> None:
        raise RuntimeError("nobody thought of this")

    row = HandlerRow("h-9", b"nonce", "127.0.0.1", free_port())
    links = client._links
    monkeypatch.setattr(links, "_reach", fail)
    links.connect(row)
    for _ in range(3):
        await asyncio.sleep(0)
    assert row.nonce not in links._dialing
    assert "nobody thought of this" in caplog.text


async def test_a_connect_that_is_cancelled_leaves_nothing_running():
    before = asyncio.all_tasks()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connecting = asyncio.create_task(mesh.connect(f"127.0.0.1:{silent.getsockname()[1]}"))
        await asyncio.sleep(0.05)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize(
    "endpoint", ["", "localhost", "127.0.0.1:", ":7400", "127.0.0.1:0", "127.0.0.1:65536"]
)
async def test_an_endpoint_that_is_none_is_refused_before_anything_is_dialed(endpoint):
    with pytest.raises(BadRequest, match=r"host:port|at least one endpoint"):
        await mesh.connect(endpoint)


async def test_a_handlers_address_is_enough_to_bootstrap(meshed):
    client = await meshed.connect(meshed.address("h-1"))
    assert {await client.call("KV.incr", f"k{i}") for i in range(32)} == {1}


async def test_one_endpoint_of_several_has_to_be_alive(meshed):
    dead = f"127.0.0.1:{free_port()}"
    client = await meshed.connect(f"{dead}, {meshed.endpoint}", dead)
    assert await client.call("KV.incr", "k") == 1


async def test_nobody_at_any_endpoint_is_unavailable_and_names_them(meshed):
    dead = f"127.0.0.1:{free_port()}"
    with pytest.raises(Unavailable, match=f"no table from {dead} within 0.2 s: cannot connect"):
        await mesh.connect(dead, timeout=0.2)


async def test_a_port_that_accepts_and_stays_silent_is_no_mesh(meshed):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = await meshed.connect(f"127.0.0.1:{silent.getsockname()[1]}", meshed.endpoint)
        assert await client.call("KV.incr", "k") == 1
        await client.close()


async def test_a_peer_that_welcomes_and_hangs_up_is_not_dialed_in_a_tight_loop():
    dialed = 0

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal dialed
        dialed += 1
        writer.write(Welcome("m", "handler", "h-0", b"nonce", PARTITIONS).frame())
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(Unavailable, match="the mesh has no table yet"):
        await mesh.connect(f"127.0.0.1:{port}", timeout=0.4)
    server.close()
    await server.wait_closed()
    assert 2 <= dialed <= 25


async def test_without_an_owner_a_call_ends_at_its_deadline_as_not_executed(meshed, client):
    key = await meshed.key_of("h-0")
    for id_ in ("h-0", "h-1"):
        await meshed.kill(id_)
    await meshed.until(lambda: "0 handlers" in repr(client))
    with pytest.raises(DeadlineExceeded, match=r"not executed within 0\.1 s") as caught:
        await client.call("KV.incr", key, timeout=0.1)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.executed is False


async def test_sent_and_never_answered_is_unknown_and_says_so(meshed, client):
    with meshed.replicas_silent():
        calling = asyncio.create_task(
            client.call("KV.incr", await meshed.key_of("h-0"), timeout=0.5)
        )
        await meshed.until_pending()
        for id_ in ("h-0", "h-1"):
            await meshed.kill(id_)
        with pytest.raises(OutcomeUnknown, match="the call may have been executed") as caught:
            await calling
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.executed is None


async def test_close_ends_every_call_with_what_is_known_of_it(meshed, client):
    on_h0, on_h1 = await meshed.key_of("h-0"), await meshed.key_of("h-1")
    with meshed.replicas_silent():
        sent = asyncio.create_task(client.call("KV.incr", on_h0))
        await meshed.until_pending()
        node = meshed.nodes.pop("h-1")
        await node.stop()  # dead, and nobody has the proof: the route stays
        await meshed.until(lambda: "1 handlers" in repr(client))
        parked = asyncio.create_task(client.call("KV.incr", on_h1))
        await asyncio.sleep(0)
        await client.close()
        results = await asyncio.gather(sent, parked, return_exceptions=True)
    assert [type(r) for r in results] == [OutcomeUnknown, Unavailable]
    assert {str(r) for r in results} == {"the client was closed"}
    with pytest.raises(Unavailable, match="this client is closed"):
        await client.call("KV.get", on_h0)
    await client.close()


async def test_a_cancelled_call_leaves_the_client_as_it_was(meshed, client):
    key = await meshed.key_of("h-0")
    with meshed.replicas_silent():
        calling = asyncio.create_task(client.call("KV.incr", key))
        await meshed.until_pending()
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
    assert await client.call("KV.incr", key) == 2


async def test_connect_is_awaited_entered_or_made_a_task(meshed):
    async with mesh.connect(meshed.endpoint) as client:
        assert await client.call("KV.incr", "k") == 1
    assert repr(client) == f"<AsyncClient {meshed.endpoint}, closed>"
    async with asyncio.TaskGroup() as group:
        connecting = group.create_task(mesh.connect(meshed.endpoint))
    async with connecting.result() as client:
        assert await client.call("KV.incr", "k") == 2


async def test_every_call_is_counted_once_by_what_its_caller_was_told(meshed, client):
    on_h0, on_h1 = await meshed.key_of("h-0"), await meshed.key_of("h-1")
    await client.call(Account.deposit, on_h0, 5)
    with pytest.raises(EntityError):
        await client.call(Account.deposit, on_h0, -5)
    with pytest.raises(BadRequest):
        await client.call("Nope.get", on_h0)  # the handler's refusal
    with pytest.raises(BadRequest):
        await client.call(mesh.KV.put, on_h0)  # the client's own: never began
    assert client.stats() == ClientStats(3, 1, 1, 1, 0, 0, 0)
    with meshed.replicas_silent():
        cancelled = asyncio.create_task(client.call("KV.incr", on_h0))
        unknown = asyncio.create_task(client.call("KV.incr", on_h1, timeout=0.3))
        await meshed.until_pending(2)
        assert client.stats() == ClientStats(5, 1, 1, 1, 0, 0, 2)
        cancelled.cancel()
        with pytest.raises(OutcomeUnknown):
            await unknown
        assert cancelled.cancelled()
    assert client.stats() == ClientStats(5, 1, 1, 1, 1, 1, 0)


async def test_a_call_that_is_cancelled_as_its_reply_arrives_is_counted_once(meshed, client):
    calls = [asyncio.create_task(client.call("KV.incr", "k")) for _ in range(3)]
    for call in calls:
        # In the turn of the loop in which the reply wakes it.
        call.add_done_callback(lambda _: [other.cancel() for other in calls])
    await asyncio.gather(*calls, return_exceptions=True)
    stats = client.stats()
    assert stats.ok == sum(not call.cancelled() for call in calls)
    assert (stats.started, stats.cancelled, stats.running) == (3, 3 - stats.ok, 0)


async def test_a_client_that_is_closed_while_it_starts_says_so_at_once():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = AsyncClient([f"127.0.0.1:{silent.getsockname()[1]}"])
        starting = asyncio.create_task(client.start(timeout_s=30))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(Unavailable, match="this client is closed"):
            await starting


async def test_an_endpoint_of_another_mesh_among_several_does_not_end_the_connect():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ours = f"127.0.0.1:{silent.getsockname()[1]}"
        async with InProcess(1, token="theirs", replaces=False) as theirs:
            client = AsyncClient([theirs.endpoint, ours], token="ours")
            starting = asyncio.create_task(client.start(timeout_s=30))
            await theirs.until(lambda: theirs.endpoint in client._refused)
            for _ in range(3):
                await asyncio.sleep(0)
            assert not starting.done()
            await client.close()
            await asyncio.gather(starting, return_exceptions=True)


async def test_closing_does_not_wait_for_a_peer_that_reads_nothing(client):
    taken: list[asyncio.StreamWriter] = []

    async def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(writer)
        writer.transport.pause_reading()
        writer.write(Welcome("m", "handler", "h-9", b"nonce", PARTITIONS).frame())

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    row = HandlerRow("h-9", b"nonce", "127.0.0.1", server.sockets[0].getsockname()[1])
    client._links.connect(row)
    async with asyncio.timeout(5):
        while b"nonce" not in client._links._handlers:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.005)
    conn = client._links._handlers[b"nonce"]
    while conn._transport.get_write_buffer_size() == 0:
        conn.send(b"\0" * (1 << 20))
        conn.flush()
    async with asyncio.timeout(5):
        await client.close()
        while not conn.is_closed:  # noqa: ASYNC110 - aborted a turn ago
            await asyncio.sleep(0)
    taken[0].transport.abort()
    server.close()
    await server.wait_closed()
