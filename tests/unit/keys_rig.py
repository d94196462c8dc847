"""Handlers with an entity that has a ttl, driven step by step by a clock that the test moves."""

from __future__ import annotations

from typing import Any

from unit.rigs import PARTITIONS, Account, Caller, Handler, Leader, lease_for_good, run

import mesh
from mesh.core.handling import HandlerCore, HandlingConfig
from mesh.core.parts import PART_PREFIX
from mesh.core.tenure import STATE_PREFIX
from mesh.entities import Registry
from mesh.store.memory import MemoryServer

TTL_S = 60


@mesh.entity(ttl=TTL_S)
class Cart:
    """What expires."""

    items: int = 0
    note: str = ""

    @mesh.command
    def add(self, count: int = 1) -> int:
        self.items += count
        return self.items

    @mesh.command
    def write(self, note: str) -> None:
        self.note = note

    @mesh.command
    async def add_slowly(self) -> int:
        self.items += 1
        return self.items

    @mesh.query
    def read(self) -> int:
        return self.items

    @mesh.query
    def read_note(self) -> str:
        return self.note


@mesh.entity(name="Cart")
class CartForGood:
    """The same before it had a ttl, or after."""

    items: int = 0
    note: str = ""

    @mesh.command
    def add(self, count: int = 1) -> int:
        self.items += count
        return self.items

    @mesh.query
    def read(self) -> int:
        return self.items


class Clock:
    """Unix time, the same for all handlers unless a test says otherwise."""

    def __init__(self) -> None:
        self.wall = 1_000_000.0


class Carts(Handler):
    """A handler that serves carts and accounts."""

    def __init__(
        self,
        server: MemoryServer,
        clock: Clock,
        nonce: bytes = b"h-1",
        config: HandlingConfig | None = None,
        cart: type = Cart,
    ) -> None:
        super().__init__(server, nonce, config)
        self.core = lease_for_good(
            HandlerCore(nonce, PARTITIONS, Registry([Account, cart]), config)
        )
        self.core.home.wall = lambda: clock.wall

    def owns_all(self, leader: Leader, *, instead_of: Handler | None = None) -> Carts:
        """It has every partition from now on, with nothing in memory."""
        revoked = [instead_of.nonce] if instead_of else []
        self.counter = instead_of.counter if instead_of else 0
        everything = dict.fromkeys(range(PARTITIONS), self.nonce)
        leader.takeover(everything, enroll=[self.nonce], revoke=revoked)
        self.core.on_grant(leader.grant(self.nonce), self.now)
        return self

    def does(self, method: str, key: str, *args: Any, **header: Any) -> Any:
        """The reply to a call, with all that it takes to answer it."""
        caller = self.call(method, key, *args, **header)
        self.flush()
        return answer(caller)

    def tick(self) -> None:
        """The timer, and what it has to be committed."""
        self.core.on_timer(self.now)
        self.flush()

    def list_once(self) -> bool:
        """One page of the store for a listing that needs it."""
        listing = self.core.next_listing()
        if listing is None:
            return False
        tenure = listing.pending.tenure
        place = self.core.grant, tenure.partition, tenure.epoch, listing.cursor
        self.core.on_listed(listing, run(self.store.scan(*place)))
        return True


def answer(caller: Caller) -> Any:
    """What the caller got."""
    assert caller.answer is not None
    return caller.answer.value


def stored(server: MemoryServer, partition: int = 0) -> dict[bytes, bytes]:
    """What is stored there of states."""
    fields = server.partitions.get(partition, {})
    return {n: v for n, v in fields.items() if n[:1] in (STATE_PREFIX, PART_PREFIX)}
