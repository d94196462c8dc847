"""What a user writes passes `mypy --strict`. Checked by `make typecheck`, never run."""

from __future__ import annotations

import asyncio
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


@mesh.entity(name="Ledger")
class LedgerOfVersionTwo:
    lines: dict[str, int] = {}  # noqa: RUF012 - a field's default, copied for each key

    @mesh.command
    def note(self, line: str, amount: int) -> None:
        self.lines[line] = amount


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
