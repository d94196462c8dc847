"""mesh.context(): what a method knows of its call, and its calls to other entities."""

from __future__ import annotations

import asyncio
import time

import pytest
from mesh_in_process import PARTITIONS, InProcess

import mesh
from mesh.core.keyspace import partition_of
from mesh.errors import BadRequest, EntityError

gates: dict[str, asyncio.Event] = {}
seen: list[str] = []


@mesh.entity
class Wallet:
    cents: int = 0

    @mesh.command
    def add(self, cents: int) -> int:
        seen.append(mesh.context().idempotency_key)
        self.cents += cents
        return self.cents

    @mesh.query
    def read(self) -> int:
        return self.cents

    @mesh.command
    async def wait(self, gate: str) -> None:
        await gates[gate].wait()

    @mesh.command
    async def slow(self, other: str) -> int:
        return await mesh.context().call(Till.pay_back, other, mesh.context().key)


def told() -> dict:
    c = mesh.context()
    return {
        "idempotency_key": c.idempotency_key,
        "key": c.key,
        "key_bytes": c.key_bytes,
        "entity": c.entity,
        "method": c.method,
        "partition": c.partition,
        "epoch": c.epoch,
        "attempt": c.attempt,
        "seconds_left": c.seconds_left,
        "deadline": c.deadline,
        "metadata": dict(c.metadata),
        "resources": dict(c.resources),
    }


@mesh.entity
class Till:
    paid: list[str] = []  # noqa: RUF012 - defaults are copied for each key

    @classmethod
    def on_start(cls, resources):
        resources["drawer"] = "open"

    @mesh.command
    def tell(self) -> dict:
        return told()

    @mesh.query
    def tell_by_query(self) -> dict:
        return told()

    @mesh.command
    async def tell_async(self) -> dict:
        await asyncio.sleep(0)
        return await asyncio.create_task(_told())

    @mesh.command(blocking=True)
    def tell_blocking(self) -> dict:
        return told()

    @mesh.command
    async def pay(self, *wallets: str) -> list[int]:
        call = mesh.context().call
        return [await call(Wallet.add, wallet, 5) for wallet in wallets]

    @mesh.command(blocking=True)
    def pay_blocking(self, wallet: str) -> int:
        return mesh.context().call(Wallet.add, wallet, 5)

    @mesh.command
    def pay_plainly(self, wallet: str) -> int:
        return mesh.context().call(Wallet.add, wallet, 5)

    @mesh.command
    async def pay_and_wait(self, wallet: str, gate: str) -> int:
        paid = await mesh.context().call(Wallet.add, wallet, 5)
        self.paid.append(wallet)
        await gates[gate].wait()
        return paid

    @mesh.command
    async def pay_itself(self) -> None:
        await mesh.context().call("Till.pay", mesh.context().key)

    @mesh.command
    async def start_circle(self, wallet: str) -> None:
        await mesh.context().call(Wallet.slow, wallet, mesh.context().key)

    @mesh.command
    async def pay_back(self, wallet: str) -> int:
        return await mesh.context().call(Wallet.add, wallet, 1)

    @mesh.command(blocking=True, limit_s=0.2)
    def wait_for_a_slow_one(self, wallet: str, gate: str) -> None:
        try:
            mesh.context().call(Wallet.wait, wallet, gate)
        except BaseException as error:
            seen.append(type(error).__name__)
            raise

    @mesh.command(limit_s=0.05)
    async def go_on_too_long(self, wallet: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            try:
                await mesh.context().call(Wallet.add, wallet, 5)
            except mesh.Unavailable as error:
                seen.append(error.message)

    @mesh.query
    def read(self) -> list[str]:
        return self.paid


async def _told() -> dict:
    return told()


@pytest.fixture(autouse=True)
def fresh():
    gates.clear()
    seen.clear()


@pytest.fixture
async def meshed():
    async with InProcess(2, app=[Wallet, Till]) as running:
        yield running


@pytest.fixture
async def client(meshed):
    return await meshed.connect()


@pytest.mark.parametrize(
    "method",
    [Till.tell, Till.tell_by_query, Till.tell_async, Till.tell_blocking],
    ids=lambda m: m.name,
)
async def test_a_method_of_any_form_knows_its_call(client, method):
    begin = time.monotonic()
    told = await client.call(method, "tïll", timeout=5.0)
    partition = partition_of("tïll".encode(), PARTITIONS)
    assert told.pop("idempotency_key")
    assert 4 < told.pop("seconds_left") <= 5
    assert begin + 4 < told.pop("deadline") <= time.monotonic() + 5
    assert told == {
        "key": "tïll",
        "key_bytes": "tïll".encode(),
        "entity": "Till",
        "method": method.name,
        "partition": partition,
        "epoch": client.table.owner(partition).epoch,
        "attempt": 1,
        "metadata": {},
        "resources": {"drawer": "open"},
    }


@pytest.mark.parametrize("method", [Till.tell, Till.tell_async, Till.tell_blocking])
async def test_what_the_caller_gives_along_reaches_the_method(client, method):
    given = {"trace": "00-ab-01", "n": 5}
    told = await client.call(method, "t", idempotency_key="order-17", metadata=given)
    assert (told["idempotency_key"], told["metadata"]) == ("order-17", given)


async def test_each_call_has_a_key_of_its_own(client):
    keys = [(await client.call(Till.tell, "t"))["idempotency_key"] for _ in range(3)]
    assert len(set(keys)) == 3


async def test_outside_a_method_there_is_no_context(client):
    await client.call(Till.tell, "t")
    await client.call(Till.tell_async, "t")
    with pytest.raises(BadRequest, match="while a handler runs them"):
        mesh.context()


async def test_an_async_method_awaits_its_calls_and_a_blocking_one_waits_for_them(client):
    assert await client.call(Till.pay, "t", "a", "b", "a") == [5, 5, 10]
    assert await client.call(Till.pay_blocking, "t", "b") == 10
    assert len(set(seen)) == 4


async def test_a_plain_method_cannot_wait_for_others_and_is_told_what_to_do(client):
    with pytest.raises(EntityError, match=r"make it async, or @mesh\.command") as caught:
        await client.call(Till.pay_plainly, "t", "a")
    assert caught.value.type == "BadRequest"
    assert await client.call(Wallet.read, "a") == 0


async def test_who_would_wait_for_its_own_end_is_refused(client):
    with pytest.raises(EntityError, match="would wait for ever for its own end: Till b't'"):
        await client.call(Till.pay_itself, "t")


async def test_a_circle_of_calls_is_refused_where_it_closes(client):
    with pytest.raises(EntityError) as caught:
        await client.call(Till.start_circle, "t", "w", timeout=5)
    assert "Till b't' -> Wallet b'w' -> Till b't'" in caught.value.message


async def test_a_method_that_runs_again_makes_the_same_calls_with_one_effect(meshed, client):
    gates["g"] = asyncio.Event()
    key = await meshed.key_of("h-0")
    wallet = await meshed.key_of("h-1", "w")
    calling = asyncio.create_task(client.call(Till.pay_and_wait, key, wallet, "g"))
    await meshed.until(lambda: len(seen) == 1)
    await meshed.kill("h-0")
    owner = meshed.nodes["h-1"]
    await meshed.until(lambda: bool(owner._runner._tasks))
    gates["g"].set()
    assert await calling == 5
    assert await client.call(Wallet.read, wallet) == 5
    assert await client.call(Till.read, key) == [wallet]
    assert len(seen) == 1, "recognised, not run again"


async def test_a_call_made_by_a_method_has_no_more_time_than_its_own_caller(meshed, client):
    with meshed.replicas_silent(), pytest.raises(mesh.OutcomeUnknown):
        await client.call(Till.pay, "t", "a", timeout=0.3)
    await meshed.until(lambda: all(n._core.is_idle for n in meshed.nodes.values()))
    assert await client.call(Wallet.read, "a") in (0, 5)


async def test_a_blocking_method_past_its_limit_is_woken_where_it_waits_for_another(meshed, client):
    gates["g"] = asyncio.Event()
    with pytest.raises(EntityError, match="took longer than its limit"):
        await client.call(Till.wait_for_a_slow_one, "t", "w", "g")
    await meshed.until(lambda: seen == ["CancelledError"])
    await meshed.until(lambda: not any(n._runner.stuck for n in meshed.nodes.values()))
    gates["g"].set()


async def test_a_method_that_is_over_calls_nobody_any_more(meshed, client):
    with pytest.raises(EntityError, match="took longer than its limit"):
        await client.call(Till.go_on_too_long, "t", "a")
    await meshed.until(lambda: bool(seen))
    assert seen == ["Till.go_on_too_long is over; it calls nobody any more"]
    assert await client.call(Wallet.read, "a") == 0
