"""An entity with fields that may be large, and handlers of it that are driven step by step."""

from __future__ import annotations

from typing import Any, ClassVar

from unit.rigs import KEYS, PARTITIONS, Caller, Handler, Leader, lease_for_good

import mesh
from mesh.core.handling import HandlerCore, HandlingConfig
from mesh.core.parts import PART_PREFIX, names_in, part_field, split_part_field
from mesh.core.tenure import STATE_PREFIX, state_field
from mesh.entities import Registry
from mesh.store.memory import MemoryServer

K = KEYS[0]
FIELD = state_field("Page", K.encode())
TEXT = part_field(FIELD, "text")
NOTES = part_field(FIELD, "notes")
LONG = "x" * 100 * 1024
OTHER = "y" * 100 * 1024
SMALL_CACHE = HandlingConfig(cache_bytes=20_000)


class Methods:
    """What every version of a page can do."""

    count: ClassVar[int]

    @mesh.command
    def incr(self) -> int:
        self.count += 1
        return self.count

    @mesh.command
    def write(self, fields: dict[str, Any]) -> None:
        vars(self).update(fields)

    @mesh.command
    def write_and_fail(self, fields: dict[str, Any]) -> None:
        for value in vars(self).values():
            if isinstance(value, list):
                value.append("a change in place")
        vars(self).update(fields)
        raise ValueError("no")

    @mesh.command
    async def write_apart(self, fields: dict[str, Any]) -> None:
        vars(self).update(fields)

    @mesh.query
    def read(self) -> dict[str, Any]:
        return dict(vars(self))


@mesh.entity
class Page(Methods):
    """A counter beside what may be large."""

    count: int = 0  # type: ignore[misc]
    text: str = ""
    notes: list[Any] = []  # noqa: RUF012 - defaults are copied for each key


@mesh.entity(name="Page")
class Younger(Methods):
    """Knows less of what is stored, and one field more."""

    count: int = 0  # type: ignore[misc]
    colour: str = "red"


class Pages(Handler):
    """A handler that serves nothing but pages, of whatever version the class is."""

    def __init__(
        self,
        server: MemoryServer,
        nonce: bytes = b"h-1",
        config: HandlingConfig | None = None,
        entity: type = Page,
    ) -> None:
        super().__init__(server, nonce, config)
        self.core = lease_for_good(HandlerCore(nonce, PARTITIONS, Registry([entity]), config))

    def owns_all(self, leader: Leader, *, instead_of: Pages | None = None) -> Pages:
        """It has every partition from now on, with nothing in memory."""
        revoked = [instead_of.nonce] if instead_of else []
        self.counter = instead_of.counter if instead_of else 0
        everything = dict.fromkeys(range(PARTITIONS), self.nonce)
        leader.takeover(everything, enroll=[self.nonce], revoke=revoked)
        self.core.on_grant(leader.grant(self.nonce), self.now)
        return self

    def does(self, method: str, key: str, *args: Any) -> Caller:
        """The call, and all that it takes to answer it."""
        caller = self.call(f"Page.{method}", key, *args)
        self.flush()
        return caller

    def carry_out(self, *, fails: bool = False) -> None:
        """Have the runs that are due come to their end."""
        for run in self.core.take_runs(self.now):
            coroutine = run.work()()
            error: BaseException | None = None
            try:
                coroutine.send(None)
            except StopIteration:
                pass
            except TypeError as raised:
                error = raised
            self.core.on_ran(run, None, ValueError("no") if fails else error, self.now)

    def shown(self, key: str) -> dict[str, Any]:
        """What a query shows."""
        answer = self.does("read", key).answer
        assert answer is not None and isinstance(answer.value, dict), answer
        return answer.value


def pieces(server: MemoryServer, partition: int = 0) -> dict[bytes, bytes]:
    """What is stored there of states, by the names of the fields."""
    fields = server.partitions.get(partition, {})
    return {n: v for n, v in fields.items() if n[:1] in (STATE_PREFIX, PART_PREFIX)}


def check_pieces(server: MemoryServer) -> None:
    """Every state has the large values that it names, and there are no others."""
    for partition in server.partitions:
        stored = pieces(server, partition)
        named = {
            part_field(field, name)
            for field, head in stored.items()
            if field.startswith(STATE_PREFIX)
            for name in names_in(head)
        }
        parts = {name for name in stored if name.startswith(PART_PREFIX)}
        assert named == parts, [split_part_field(n) for n in named ^ parts]


def heir_of(handler: Pages, server: MemoryServer, leader: Leader, **options: Any) -> Pages:
    """It takes over everything, with nothing in memory."""
    return Pages(server, handler.nonce + b"+", **options).owns_all(leader, instead_of=handler)


def written(handler: Pages) -> tuple[dict[bytes, bytes], list[bytes]]:
    """What the next batch writes and deletes of states; it is delivered."""
    handler.load()
    batch = handler.send()
    assert batch is not None
    fields: dict[bytes, bytes] = {}
    deleted: list[bytes] = []
    for entry in batch.entries:
        fields |= {n: v for n, v in entry.fields.items() if n[:1] in b"sp"}
        deleted += [n for n in entry.deleted if n[:1] in b"sp"]
    assert handler.deliver(batch)
    handler.flush()
    return fields, deleted
