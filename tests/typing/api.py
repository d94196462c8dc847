"""What a user writes passes `mypy --strict`. Checked by `make typecheck`, never run."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, assert_type

import mesh


@mesh.entity
class Account:
    balance: int = 0
    owners: list[str] = []  # noqa: RUF012 - a field's default, copied for each key

    @mesh.command
    def deposit(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    @mesh.command
    def transfer_out(self, amount: int, *, fee: int = 0) -> int:
        self.balance -= amount + fee
        return self.balance

    @mesh.query
    def read(self) -> int:
        return self.balance


class Kind(enum.Enum):
    ENTRY = 1
    CORRECTION = 2


@dataclasses.dataclass(frozen=True)
class Amount:
    cents: int
    kind: Kind = Kind.ENTRY


class Polygon:
    """A type of somebody else's, that the mesh knows nothing of."""

    corners: tuple[int, ...] = ()


def polygon(corners: Any) -> Polygon:
    made = Polygon()
    made.corners = tuple(corners)
    return made


@mesh.entity(
    name="Ledger",
    version=2,
    ttl=timedelta(days=30),
    durability="fsynced",
    priority=3,
    codecs=[Kind, mesh.TypeCodec(Polygon, encode=lambda p: p.corners, decode=polygon)],
)
class LedgerOfVersionTwo:
    lines: dict[str, int] = dataclasses.field(default_factory=dict)
    last: Amount | None = None

    @mesh.migrate(1)
    @staticmethod
    def from_text(fields: dict[str, Any]) -> dict[str, Any]:
        return {"lines": fields.pop("text")}

    @mesh.command(blocking=True, limit_s=5)
    def book(self, amount: Amount, *more: Amount) -> list[Amount]:
        return [amount, *more]

    @mesh.command
    async def fetch(self, url: str) -> bytes:
        return url.encode()

    @mesh.query()
    async def peek(self) -> Amount | None:
        return self.last

    @mesh.command
    def note(self, line: str, amount: int) -> None:
        self.lines[line] = amount


@mesh.entity
class Order:
    paid: bool = False

    @classmethod
    async def on_start(cls, resources: dict[str, Any]) -> None:
        resources["bank"] = object()

    @classmethod
    def on_stop(cls, resources: dict[str, Any]) -> None:
        resources.clear()

    @mesh.health
    @classmethod
    async def bank_answers(cls, resources: dict[str, Any]) -> bool:
        return "bank" in resources

    @mesh.command
    async def pay(self, account: str, amount: int) -> bool:
        context = mesh.context()
        assert_type(context, mesh.Context)
        assert_type(context.idempotency_key, str)
        assert_type(context.key, str)
        assert_type(context.key_bytes, bytes)
        assert_type(context.seconds_left, float)
        assert_type(context.attempt, int)
        assert_type(context.resources, dict[str, Any])
        await context.call(Account.deposit, account, amount, timeout=1.0)
        self.paid = True
        return self.paid

    @mesh.command(blocking=True)
    def pay_slowly(self, account: str) -> int:
        left: int = mesh.context().call("Account.deposit", account, amount=-5)
        return left


async def main() -> None:
    client = await mesh.connect("127.0.0.1:7400", "127.0.0.1:7401", token="secret", timeout=1.0)
    assert_type(client, mesh.AsyncClient)
    async with client:
        by_reference = await client.call(Account.deposit, "alice", 5, timeout=2.0)
        by_name = await client.call("Account.deposit", b"alice", 5)
        assert_type(by_name, Any)
        total: int = by_reference + by_name
        await client.call(LedgerOfVersionTwo.note, "2026", line="rent", amount=total)
        await client.call(mesh.KV.incr, "k", 1)
        alice = client.entity(Account, "alice")
        await alice.deposit(5)
        await alice.with_options(timeout=1.0).transfer_out(5, fee=1)


def the_class_keeps_its_type() -> None:
    account = Account(balance=5)
    assert_type(account, Account)
    assert_type(account.balance, int)
    assert_type(account.deposit(5), int)
    assert_type(LedgerOfVersionTwo().last, Amount | None)
    Account(balance="5")  # type: ignore[arg-type]
    account.colour = "red"  # type: ignore[attr-defined]
    account.deposit("5")  # type: ignore[arg-type]
    mesh.entity(durability="fast")  # type: ignore[call-overload]
    mesh.command(limit_s="5")  # type: ignore[call-overload]


def methods_are_references_on_the_class_and_bound_on_an_instance() -> None:
    ledger = LedgerOfVersionTwo()
    fetch: mesh.MethodRef[[str], bytes] = LedgerOfVersionTwo.fetch
    bound: Callable[[str], Coroutine[Any, Any, bytes]] = ledger.fetch
    book: Callable[[Amount], list[Amount]] = ledger.book
    wrong: mesh.MethodRef[[int], bytes] = LedgerOfVersionTwo.fetch  # type: ignore[assignment]
    assert_type(fetch.name, str)
    del bound, book, wrong


async def calls_are_checked_against_the_signature() -> None:
    async with await mesh.connect() as client:
        assert_type(await client.call(Account.deposit, "alice", 5), int)
        assert_type(await client.call(Account.deposit, b"alice", amount=5), int)
        assert_type(await client.call(Account.transfer_out, "alice", 5, fee=1), int)
        assert_type(await client.call(LedgerOfVersionTwo.book, "l", Amount(1)), list[Amount])
        assert_type(await client.call(LedgerOfVersionTwo.fetch, "l", "https://x"), bytes)
        assert_type(await client.call(LedgerOfVersionTwo.peek, "l"), Amount | None)
        assert_type(await client.call(mesh.KV.cas, "k", None, [1]), bool)
        assert_type(await client.call(mesh.KV.items, "k"), list[Any])

        await client.call(Account.deposit, "alice", "five")  # type: ignore[call-overload]
        await client.call(Account.deposit, "alice")  # type: ignore[call-overload]
        await client.call(Account.deposit, "alice", 5, 6)  # type: ignore[call-overload]
        await client.call(Account.deposit, "alice", 5, colour=1)  # type: ignore[call-arg]
        await client.call(Account.deposit, 7, 5)  # type: ignore[call-overload]
        await client.call(Account, "alice", 5)  # type: ignore[call-overload]
        await client.call(LedgerOfVersionTwo.fetch, "l", 5)  # type: ignore[call-overload]


async def with_an_option_the_result_is_checked() -> None:
    async with await mesh.connect() as client:
        assert_type(await client.call(Account.deposit, "alice", 5, timeout=2.0), int)
        assert_type(await client.call(LedgerOfVersionTwo.peek, "l", timeout=2), Amount | None)
        assert_type(await client.call("Account.deposit", "alice", 5, timeout=2.0), Any)
        assert_type(await client.call(Account.deposit, "alice", 5, idempotency_key="a"), int)
        assert_type(await client.call(LedgerOfVersionTwo.peek, "l", priority=200), Amount | None)
        assert_type(await client.call(Account.deposit, "alice", 5, metadata={"trace": "x"}), int)
        assert_type(
            await client.call(
                Account.deposit,
                "alice",
                amount=5,
                timeout=1,
                idempotency_key=None,
                priority=None,
                metadata={"n": 1, "raw": b""},
            ),
            int,
        )
        by_name = await client.call("Account.deposit", "alice", 5, priority=1, idempotency_key="a")
        assert_type(by_name, Any)

        await client.call(Account.deposit, "alice", 5, timeout="2 s")  # type: ignore[call-arg]
        await client.call(Account.deposit, "alice", 5, priority="high")  # type: ignore[call-arg]
        await client.call(Account.deposit, "alice", 5, idempotency_key=7)  # type: ignore[call-arg]
        await client.call(Account.deposit, "alice", 5, metadata=["x"])  # type: ignore[call-arg]


async def an_outcome_has_the_type_of_the_methods_reply() -> None:
    async with await mesh.connect() as client:
        settled = await client.outcome(LedgerOfVersionTwo.fetch, "l", "order-17")
        assert_type(settled, mesh.Outcome[bytes])
        assert_type(settled.executed, bool)
        assert_type(settled.result(), bytes)
        by_name = await client.outcome("Ledger.fetch", "l", "order-17", timeout=1.0)
        assert_type(by_name.result(), Any)
        await client.outcome(LedgerOfVersionTwo.fetch, "l")  # type: ignore[call-overload]
        await client.outcome(LedgerOfVersionTwo.fetch, "l", 17)  # type: ignore[call-overload]
        settled.executed = True  # type: ignore[misc]


async def keys_are_deleted_asked_after_and_listed() -> None:
    async with await mesh.connect() as client:
        assert_type(await client.delete(Account, "alice"), bool)
        options = {"trace": "x"}
        gone = await client.delete(
            "Account", b"a", timeout=1, idempotency_key="a", priority=1, metadata=options
        )
        assert_type(gone, bool)
        assert_type(await client.exists(mesh.KV, "k", timeout=1.0), bool)
        page = await client.keys(Account, prefix="a", cursor="", limit=10, timeout=1.0)
        assert_type(page, mesh.KeyPage)
        assert_type(page.keys, list[str | bytes])
        assert_type(page.cursor, str)
        async for key in client.iterate_keys(Account, prefix=b"a"):
            assert_type(key, str | bytes)
        await client.delete(Account.deposit, "alice")  # type: ignore[arg-type]
        await client.exists(Account)  # type: ignore[call-arg]
        await client.keys(Account, prefix=5)  # type: ignore[arg-type]
        page.cursor = ""  # type: ignore[misc]


async def an_entitys_object_is_checked_through_call() -> None:
    async with await mesh.connect() as client:
        alice = client.entity(Account, "alice")
        assert_type(await alice.call(Account.deposit, 5), int)
        assert_type(await alice.call(Account.transfer_out, amount=5, fee=1), int)
        assert_type(await alice.deposit(5), Any)
        hasty = alice.with_options(timeout=1, idempotency_key="a", priority=9, metadata={"x": 1})
        assert_type(await hasty.call(Account.deposit, 5), int)
        assert_type((await hasty.outcome(Account.deposit, "a")).result(), int)
        await alice.call(Account.deposit, "five")  # type: ignore[arg-type]
        await alice.call(Account.deposit)  # type: ignore[call-arg]
        await alice.call("Account.deposit", 5)  # type: ignore[arg-type]
        alice.with_options(colour="red")  # type: ignore[call-arg]
        alice.with_options(priority="high")  # type: ignore[arg-type]


def the_blocking_client_is_checked_the_same_way() -> None:
    with mesh.Client("127.0.0.1:7400") as client:
        assert_type(client.call(Account.deposit, "alice", 5), int)
        assert_type(client.call(LedgerOfVersionTwo.fetch, "l", "https://x"), bytes)
        assert_type(client.call(Account.deposit, "alice", 5, timeout=1.0, idempotency_key="a"), int)
        assert_type(client.call("Account.deposit", "alice", 5, metadata={"x": 1}), Any)
        assert_type(client.submit(LedgerOfVersionTwo.peek, "l"), Future[Amount | None])
        assert_type(client.submit(Account.deposit, "alice", 5, priority=1), Future[int])
        assert_type(client.submit("Account.deposit", "alice", 5), Future[Any])
        assert_type(client.outcome(Account.deposit, "alice", "a").result(), int)
        assert_type(client.delete(Account, "alice", idempotency_key="a"), bool)
        assert_type(client.exists("Account", "alice"), bool)
        assert_type(client.keys(Account), mesh.KeyPage)
        assert_type(list(client.iterate_keys(Account)), list[str | bytes])
        alice = client.entity(Account, "alice")
        assert_type(alice.call(Account.deposit, 5), int)
        assert_type(alice.outcome(Account.deposit, "a"), mesh.Outcome[int])

        client.call(Account.deposit, "alice", "five")  # type: ignore[call-overload]
        client.call(Account.deposit, "alice")  # type: ignore[call-overload]
        client.submit(Account.deposit, "alice", 5, 6)  # type: ignore[call-overload]
        client.call(Account.deposit, "alice", 5, priority="high")  # type: ignore[call-arg]
        alice.call(Account.deposit, "five")  # type: ignore[arg-type]


async def errors() -> None:
    async with await mesh.connect("127.0.0.1:7400") as client:
        try:
            await client.call(Account.read, "alice")
        except mesh.EntityError as error:
            assert_type(error.type, str)
            assert_type(error.details, list[Any])
        except mesh.Overloaded as error:
            assert_type(error.retry_after, float)
        except (mesh.DeadlineExceeded, mesh.OutcomeUnknown, mesh.Unavailable) as error:
            assert_type(error.executed, bool | None)
            assert_type(error.idempotency_key, str | None)
        except mesh.MeshError as error:
            assert_type(error.message, str)


async def built_in_families(error: mesh.MeshError) -> None:
    """Code that knows nothing of a mesh still catches what it is used to."""
    timeouts: tuple[type[TimeoutError], ...] = (mesh.DeadlineExceeded, mesh.OutcomeUnknown)
    connections: type[ConnectionError] = mesh.Unavailable
    assert isinstance(error, (*timeouts, connections))


if __name__ == "__main__":
    asyncio.run(main())
