"""The ways to have a mesh pass `mypy --strict`, with `import mesh` alone. Checked, never run."""

from __future__ import annotations

from typing import Any, assert_type

import mesh


@mesh.entity
class Account:
    balance: int = 0

    @mesh.command
    def deposit(self, amount: int) -> int:
        self.balance += amount
        return self.balance


async def in_process() -> None:
    async with mesh.testing.mesh(Account, handlers=3) as m:
        assert_type(m, mesh.testing.InProcessMesh)
        assert_type(m.handlers, tuple[str, ...])
        assert_type(m.owner_of("alice"), str)
        assert_type(m.status()["ready"], Any)
        await m.clock.advance(10)
        await m.kill("h-0")
        await m.until_ready()
        client = await m.connect()
        assert_type(client, mesh.AsyncClient)
        assert_type(await client.call(Account.deposit, "alice", 5), int)
        async with m.connect() as other:
            assert_type(other, mesh.AsyncClient)


def in_process_blocking() -> None:
    with mesh.testing.mesh(Account) as m:
        assert_type(m, mesh.testing.BlockingMesh)
        m.clock.advance(10)
        m.kill("h-0")
        with m.client() as client:
            assert_type(client, mesh.Client)


async def local() -> None:
    async with mesh.local(Account, handlers=4, progress=print) as m:
        assert_type(m.endpoint, str)
        assert_type(m.kill("h-0"), int)
        async with m.connect() as client:
            assert_type(await client.call(Account.deposit, "alice", 5), int)


def local_blocking() -> None:
    with mesh.local(Account) as m, m.client() as client:
        assert_type(client, mesh.Client)
        assert_type(m.handlers, tuple[str, ...])


def up_and_down() -> None:
    m = mesh.up([Account], ray="auto", store="redis://10.0.0.1", name="shop", handlers=8)
    assert_type(m.endpoint, str)
    mesh.down("shop")
    mesh.up([Account], handlers="8")  # type: ignore[arg-type]
    mesh.up([Account], handler=8)  # type: ignore[call-arg]
    with mesh.up(app="shop:Account", detach=False) as tethered:
        tethered.client().close()
