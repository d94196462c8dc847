"""Callers' keys, outcomes, and the end of sessions, as users of a client meet them."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any

import pytest
from mesh_in_process import PARTITIONS, InProcess, raw_peer
from mesh_in_thread import mesh_in_thread

import mesh
from mesh.client.stats import ClientStats
from mesh.core.keyspace import partition_of
from mesh.core.messages import Refused, Stop
from mesh.core.retention import Retention
from mesh.core.wire import Status
from mesh.errors import (
    BadRequest,
    EntityError,
    IdempotencyConflict,
    MeshError,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
)


@mesh.entity(priority=7)
class Account:
    balance: int = 0

    @mesh.command
    def deposit(self, amount: int) -> int:
        if amount < 0:
            raise ValueError("amount must be positive", amount)
        self.balance += amount
        return self.balance

    @mesh.command
    async def deposit_slowly(self, amount: int) -> int:
        await mesh.context().resources["gate"].wait()
        self.balance += amount
        return self.balance

    @mesh.command
    def told(self) -> list[Any]:
        context = mesh.context()
        return [context.idempotency_key, dict(context.metadata)]

    @mesh.query
    def read(self) -> int:
        return self.balance


@pytest.fixture
async def meshed():
    async with InProcess(2, app=[Account], replaces=False) as running:
        yield running


@pytest.fixture
async def client(meshed):
    return await meshed.connect()


@pytest.fixture
async def other(meshed):
    return await meshed.connect()


def records(meshed: InProcess) -> int:
    """Fields in the store that are no state."""
    return sum(name[:1] != b"s" for fields in meshed.server.partitions.values() for name in fields)


# ------------------------------------------------------------------------ callers' keys


async def test_a_key_stands_for_one_call_whichever_client_bears_it(client, other):
    deposit = {"idempotency_key": "order-17"}
    assert await client.call(Account.deposit, "alice", 5, **deposit) == 5
    assert await other.call(Account.deposit, "alice", 5, **deposit) == 5
    assert await other.call("Account.deposit", "alice", 5, **deposit) == 5
    assert await client.call(Account.deposit, "bob", 5, **deposit) == 5, "another key, another call"
    assert await client.call(Account.read, "alice") == 5


async def test_racing_calls_under_one_key_get_one_reply(meshed, client, other):
    with meshed.replicas_silent():
        racing = [
            asyncio.create_task(c.call(Account.deposit, "alice", 5, idempotency_key="a"))
            for c in (client, other, client, other)
        ]
        await meshed.until_pending()
        await asyncio.sleep(0.02)
        assert not any(call.done() for call in racing)
    assert await asyncio.gather(*racing) == [5, 5, 5, 5]


async def test_calls_and_questions_join_an_async_command_that_is_under_way(meshed, client, other):
    gate = asyncio.Event()
    for node in meshed.nodes.values():
        node._core.home.resources.setdefault("Account", {})["gate"] = gate
    slow, key = Account.deposit_slowly, {"idempotency_key": "a"}
    racing = [asyncio.create_task(c.call(slow, "alice", 5, **key)) for c in (client, other, other)]
    await meshed.until(lambda: any(node._core.runs.is_any for node in meshed.nodes.values()))
    asked = asyncio.create_task(other.outcome(slow, "alice", "a"))
    with pytest.raises(IdempotencyConflict):
        await other.call(slow, "alice", 6, **key)
    assert not asked.done()
    gate.set()
    assert await asyncio.gather(*racing) == [5, 5, 5]
    assert (await asked).result() == 5
    assert await client.call(Account.read, "alice") == 5


async def test_errors_replay_and_bear_the_key(client, other):
    seen = []
    for c in (client, other):
        with pytest.raises(EntityError, match="amount must be positive") as caught:
            await c.call(Account.deposit, "alice", -5, idempotency_key="a")
        seen.append((caught.value.details, caught.value.idempotency_key))
    assert seen == [(["amount must be positive", -5], "a")] * 2


async def test_the_key_with_other_arguments_is_a_conflict_that_names_it(client, other):
    await client.call(Account.deposit, "alice", 5, idempotency_key="order-17")
    with pytest.raises(IdempotencyConflict, match="'order-17' was used before") as caught:
        await other.call(Account.deposit, "alice", 6, idempotency_key="order-17")
    error = caught.value
    assert (error.executed, error.idempotency_key) == (False, "order-17")
    assert error.handler in ("h-0", "h-1") and error.epoch is not None
    assert error.partition == partition_of(b"alice", PARTITIONS)


async def test_a_retry_from_another_client_after_its_handler_died_gets_the_recorded_reply(
    meshed, client, other
):
    key = await meshed.key_of("h-0")
    assert await client.call(Account.deposit, key, 5, idempotency_key="a") == 5
    await meshed.kill("h-0")
    assert await other.call(Account.deposit, key, 5, idempotency_key="a") == 5
    assert (await other.outcome(Account.deposit, key, "a")).result() == 5
    assert await other.call(Account.read, key) == 5


@pytest.mark.parametrize("key", ["", "x" * 257, "ä" * 129, 17, b"order", "\ud800"])
async def test_what_can_be_no_key_is_refused_before_anything_is_sent(client, key):
    says = re.escape("an idempotency key is text of 1 to 256 bytes in UTF-8, not ")
    for calling in (
        lambda: client.call(Account.deposit, "alice", 5, idempotency_key=key),
        lambda: client.outcome(Account.deposit, "alice", key),
    ):
        with pytest.raises(BadRequest, match=says):
            await calling()
    assert client.stats().started == 0
    assert await client.call(Account.deposit, "alice", 5, idempotency_key="ä" * 128) == 5


async def test_when_there_is_no_room_for_keys_calls_without_one_go_on(meshed, client):
    for node in meshed.nodes.values():
        node._core.retention.caller_bytes = 300
    for number in range(10):
        with contextlib.suppress(Overloaded):
            await client.call(Account.deposit, "alice", 1, idempotency_key=str(number))
    with pytest.raises(Overloaded, match="as many calls with a key") as caught:
        await client.call(Account.deposit, "alice", 1, idempotency_key="new")
    assert caught.value.executed is False
    assert 80_000 < caught.value.retry_after <= 86_400 * 25 / 24
    assert await client.call(Account.deposit, "alice", 1) > 1


# ------------------------------------------------------------------------- the outcome


async def test_an_outcome_is_what_the_call_ended_in(client, other):
    await client.call(Account.deposit, "alice", 5, idempotency_key="good")
    with pytest.raises(EntityError):
        await client.call(Account.deposit, "alice", -5, idempotency_key="bad")
    good = await other.outcome(Account.deposit, "alice", "good")
    bad = await other.outcome("Account.deposit", "alice", "bad")
    assert good == mesh.Outcome(True, 5) and good.result() == 5
    assert bad.executed
    with pytest.raises(EntityError, match="amount must be positive"):
        bad.result()
    assert other.stats() == ClientStats(2, 2, 0, 0, 0, 0, 0)


async def test_an_unknown_call_is_settled_by_its_key(meshed, client, other):
    key = await meshed.key_of("h-0")
    with meshed.replicas_silent():
        with pytest.raises(OutcomeUnknown) as caught:
            await client.call(Account.deposit, key, 5, idempotency_key="a", timeout=0.1)
        asking = asyncio.create_task(other.outcome(Account.deposit, key, "a"))
        await asyncio.sleep(0.05)
        assert not asking.done(), "it is under way"
    assert caught.value.idempotency_key == "a"
    assert (await asking).result() == 5


async def test_a_call_that_never_ran_never_will(client, other):
    settled = await client.outcome(Account.deposit, "alice", "a")
    assert not settled.executed and "executed=False" in repr(settled)
    for attempt in (
        lambda: other.call(Account.deposit, "alice", 5, idempotency_key="a"),
        lambda: asyncio.to_thread(settled.result),
    ):
        with pytest.raises(IdempotencyConflict, match="'a' was ruled out") as caught:
            await attempt()
        assert caught.value.executed is False and caught.value.idempotency_key == "a"
    assert not (await other.outcome(Account.deposit, "alice", "a")).executed
    assert await client.call(Account.read, "alice") == 0


async def test_the_outcome_of_a_query_or_under_another_method_is_refused(client):
    await client.call(Account.deposit, "alice", 5, idempotency_key="a")
    with pytest.raises(BadRequest, match="nothing is recorded"):
        await client.outcome(Account.read, "alice", "a")
    with pytest.raises(IdempotencyConflict, match="another method"):
        await client.outcome(Account.told, "alice", "a")


# --------------------------------------------------------------------------- options


async def test_options_reach_the_method_and_the_header(meshed, client):
    seen: list[int] = []
    for node in meshed.nodes.values():
        take = node._core.on_request

        def look(conn: Any, request: Any, now: float, take: Any = take) -> None:
            seen.append(request.priority)
            take(conn, request, now)

        node._core.on_request = look
    metadata = {"trace": "t-1", "user": 7, "raw": b"\0", "none": None, "x": 0.5, "yes": True}
    told = await client.call(Account.told, "a", idempotency_key="k", metadata=metadata, priority=9)
    assert told == ["k", metadata]
    await client.call(Account.read, "a")
    await client.call("Account.read", "a")
    await client.call(Account.read, "a", priority=0)
    alice = client.entity(Account, "a").with_options(priority=200, metadata={"a": 1})
    assert (await alice.told())[1] == {"a": 1}
    assert (await alice.with_options(idempotency_key="z").call(Account.told))[0] == "z"
    assert seen == [9, 7, 128, 0, 200, 200]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"priority": 256}, "priority is a whole number from 0 to 255, not 256"),
        ({"priority": -1}, "priority is a whole number"),
        ({"priority": True}, "priority is a whole number"),
        ({"priority": "high"}, "priority is a whole number"),
        ({"metadata": {str(n): 1 for n in range(17)}}, "up to 16 entries"),
        ({"metadata": {"a": "x" * 4096}}, "the limit is 4096"),
        ({"metadata": {"a": [1]}}, "metadata holds None, bool"),
        ({"metadata": {1: "a"}}, "metadata holds None, bool"),
        ({"metadata": ["a"]}, "metadata is a dict"),
        ({"timeout": "2 s"}, "timeout must be above 0"),
    ],
    ids=lambda value: str(value)[:24],
)
async def test_an_option_that_makes_no_sense_is_refused_with_its_value_and_the_key(
    client, options, says
):
    with pytest.raises(BadRequest, match=says) as caught:
        await client.call(Account.deposit, "alice", 5, idempotency_key="k", **options)
    assert caught.value.idempotency_key == "k" and client.stats().started == 0


async def test_a_closed_client_refuses_with_the_key(client):
    await client.close()
    with pytest.raises(Unavailable) as caught:
        await client.call(Account.deposit, "alice", 5, idempotency_key="k")
    assert caught.value.idempotency_key == "k"


async def test_an_entitys_object_calls_its_own_methods_only(client):
    alice = client.entity(Account, "alice")
    assert await alice.call(Account.deposit, 5) == 5
    assert await alice.with_options(idempotency_key="a").call(Account.deposit, amount=5) == 10
    assert (await alice.outcome(Account.deposit, "a")).result() == 10
    with pytest.raises(BadRequest, match="is no method of Account"):
        await alice.call(mesh.KV.incr)
    with pytest.raises(AttributeError, match="Account has no method 'withdraw'; it has"):
        alice.withdraw  # noqa: B018 - asking for it is the test


def test_the_blocking_client_has_the_same_options_and_outcomes():
    with mesh_in_thread(app=[Account], replaces=False) as meshed, meshed.connect() as client:
        assert client.call(Account.deposit, "alice", 5, idempotency_key="a") == 5
        again = client.submit(Account.deposit, "alice", 5, idempotency_key="a", priority=1)
        assert again.result() == 5
        assert client.outcome(Account.deposit, "alice", "a") == mesh.Outcome(True, 5)
        assert not client.outcome(Account.deposit, "alice", "b").executed
        told = client.call(Account.told, "alice", metadata={"x": 1}, timeout=5.0)
        assert told[1] == {"x": 1}
        alice = client.entity(Account, "alice").with_options(idempotency_key="c", timeout=1.0)
        assert alice.call(Account.deposit, 1) == 6 and alice.deposit(1) == 6
        assert alice.outcome(Account.deposit, "c").result() == 6
        for call in (client.call, client.submit):
            with pytest.raises(BadRequest, match="priority") as caught:
                call(Account.deposit, "alice", 1, idempotency_key="k", priority=256)
            assert caught.value.idempotency_key == "k"
        client.close()
        with pytest.raises(Unavailable) as closed:
            client.call(Account.deposit, "alice", 5, idempotency_key="k")
        assert closed.value.idempotency_key == "k"


# ------------------------------------------------------------------- the end of a session


async def test_a_client_that_closes_in_order_leaves_no_record_behind(meshed):
    for _ in range(3):
        client = await meshed.connect()
        await asyncio.gather(*(client.call("KV.incr", f"k{n}") for n in range(200)))
        assert records(meshed) > 0
        await client.close()
        await meshed.until(lambda: records(meshed) == 0)
    for node in meshed.nodes.values():
        assert not any(list(t.log.numbers()) for t in node._core._tenures.in_memory.values())


async def test_a_client_whose_last_call_is_unknown_is_not_forgotten(meshed, client):
    await client.call("KV.incr", "k")
    with meshed.replicas_silent():
        calling = asyncio.create_task(client.call("KV.incr", "k"))
        await meshed.until_pending()
        await client.close()
        with pytest.raises(OutcomeUnknown):
            await calling
    await meshed.until(lambda: all(node._core.is_idle for node in meshed.nodes.values()))
    assert records(meshed) > 0, "a copy of it may still be under way"


async def test_records_of_clients_that_never_said_goodbye_go_with_time(meshed, client):
    await asyncio.gather(*(client.call("KV.incr", f"k{n}") for n in range(200)))
    for conn in list(client._links._sockets):
        conn.abort()
    client._core._unsettled.in_doubt = True
    await client.close()
    assert records(meshed) > 0
    for node in meshed.nodes.values():
        # As for a process whose host's clock is a day further on.
        node._core._forgetting._rests_until = 0.0
        node._clock = Ahead(node._clock, 90_001.0)
    await meshed.until(lambda: records(meshed) == 0)


class Ahead:
    """A clock whose wall time is ahead of another's."""

    def __init__(self, clock: Any, by_s: float) -> None:
        self._clock = clock
        self._by_s = by_s

    def wall(self) -> float:
        return self._clock.wall() + self._by_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clock, name)


async def test_what_arrives_after_a_long_silence_is_not_read_but_sent_anew_with_its_true_age(
    meshed, client, monkeypatch
):
    """A client that is stopped between writing down a call's age and sending it, until it is too old."""
    key = await meshed.key_of("h-0")
    await client.call("KV.incr", key)
    node = meshed.nodes["h-0"]
    ages: list[int] = []
    take = node._core.on_request
    monkeypatch.setattr(
        node._core, "on_request", lambda c, r, now: (ages.append(r.age_ms), take(c, r, now))
    )
    asleep = [0.0]
    client._asleep = lambda: asleep[0] + client._slept_before
    client._slept_before = client._slept
    calling = asyncio.create_task(client.call("KV.incr", key))
    await asyncio.sleep(0)  # written down, and still in this process
    node._clock = Ahead(node._clock, 50_000.0)
    asleep[0] = 50_000.0
    with pytest.raises(OutcomeUnknown, match="first sent too long ago"):
        await calling
    assert ages and min(ages) >= 50_000_000, "the first copy was never read"
    assert await client.call("KV.get", key) == 1


async def test_a_client_that_is_merely_idle_is_connected_anew_and_notices_nothing(meshed, client):
    await client.call("KV.incr", "k")
    connections = dict(client._links._handlers)
    for node in meshed.nodes.values():
        node._clock = Ahead(node._clock, Retention().silence_s * 0.6)
    await meshed.until(
        lambda: all(client._links._handlers.get(n) not in (None, c) for n, c in connections.items())
    )
    assert await client.call("KV.incr", "k") == 2
    assert client.stats().unknown == 0


async def test_a_client_says_nothing_else_to_a_handler(meshed):
    async with raw_peer(meshed.address("h-0")) as peer:
        peer.send_hello()
        peer.send(Stop(1).frame())
        last = await peer.last_words()
    assert isinstance(last, Refused) and "a client does not send Stop" in last.reason


def test_every_error_is_made_with_what_is_known():
    kinds: list[type[MeshError]] = [MeshError]
    for kind in kinds:
        kinds += kind.__subclasses__()
        extra: dict[str, Any] = {"type": "E", "details": []} if kind is EntityError else {}
        if kind.__module__ != "mesh.errors":
            continue
        error = kind("m", handler="h", partition=1, epoch=2, idempotency_key="k", **extra)
        assert (error.handler, error.partition, error.epoch, error.idempotency_key) == (
            "h",
            1,
            2,
            "k",
        )
    assert Status.RULED_OUT < 16 and len(kinds) > 10
