"""What callers ask for and cannot have: a typed error that names the value, and nobody else is harmed."""

from __future__ import annotations

from typing import Any

import pytest
from bystander import bystander
from mesh_in_process import InProcess

import mesh
from mesh.errors import BadRequest, EntityError


@mesh.entity
class Shelf:
    books: list[str] = []  # noqa: RUF012 - an entity's defaults are copied for each key
    label: str = ""

    @mesh.command
    def add(self, book: str) -> int:
        self.books.append(book)
        return len(self.books)

    @mesh.command
    def name_it(self, size: int) -> None:
        self.books.append("changed before the limit was noticed")
        self.label = "x" * size

    @mesh.command
    def hoard(self, size: int) -> bytes:
        self.books.append("changed before the limit was noticed")
        return b"x" * size

    @mesh.query
    def read(self) -> list[str]:
        return self.books

    @mesh.query
    def odd(self) -> Any:
        return object()

    @mesh.query
    def deep(self) -> Any:
        return nested(5000)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.fixture
async def meshed():
    async with InProcess(2, app=[Shelf], replaces=False) as running, bystander(running):
        yield running


@pytest.fixture
async def client(meshed):
    return await meshed.connect()


MISTAKES = {
    "an unknown entity": (("Nope.get", "k"), {}, "no entity is named 'Nope'; this mesh has ["),
    "an unknown method": (("KV.nope", "k"), {}, "KV has no method 'nope'; it has ["),
    "no method": (("KV", "k"), {}, "method must be Entity.method"),
    "a number for a method": ((7, "k"), {}, "method must be Entity.method or"),
    "a class for a method": ((Shelf, "k"), {}, "method must be Entity.method or"),
    "nothing for a method": ((None, "k"), {}, 'or "Entity.method", not None'),
    "an unknown argument": (
        (Shelf.add, "k", "x"),
        {"colour": "red"},
        "got an unexpected keyword argument 'colour'",
    ),
    "an argument too many": ((Shelf.add, "k", "x", "y"), {}, "too many positional arguments"),
    "an argument too few": ((Shelf.add, "k"), {}, "missing a required argument: 'book'"),
    "an empty key": ((Shelf.read, ""), {}, "key must be 1 to 512 bytes long, this one has 0"),
    "a long key": ((Shelf.read, "é" * 257), {}, "1 to 512 bytes long, this one has 514"),
    "no key": ((Shelf.read, None), {}, "key must be str or bytes, not NoneType: None"),
    "a number for a key": ((Shelf.read, 7), {}, "key must be str or bytes, not int: 7"),
    "a lone surrogate in a key": ((Shelf.read, "\ud800"), {}, "holds a lone surrogate"),
    "a lone surrogate": ((Shelf.add, "k", "\ud800"), {}, "arguments of Shelf.add cannot be sent"),
    "an object": ((Shelf.add, "k", object()), {}, "cannot be sent: builtins.object"),
    "what holds itself": ((Shelf.add, "k", endless()), {}, "arguments of Shelf.add cannot be sent"),
    "what is nested deeply": ((Shelf.add, "k", nested(5000)), {}, "cannot be sent"),
    "more than fits": ((Shelf.add, "k", "x" * (3 << 20)), {}, "the limit is 2097152"),
    "a list too long": ((Shelf.add, "k", [0] * 65_537), {}, "65537 exceeds max_array_len(65536)"),
    "text for a time-out": ((Shelf.read, "k"), {"timeout": "2"}, "above 0 seconds and up to"),
    "no time-out": ((Shelf.read, "k"), {"timeout": None}, "up to 86400, not None"),
}


@pytest.mark.parametrize("what", MISTAKES)
async def test_a_callers_mistake_is_told_and_nothing_ran(meshed, client, what):
    args, options, said = MISTAKES[what]
    await client.call(Shelf.add, "k", "first")
    with pytest.raises(BadRequest) as caught:
        await client.call(*args, **options)
    assert said in str(caught.value)
    assert caught.value.executed is False
    assert await client.call(Shelf.read, "k") == ["first"]


@pytest.mark.parametrize(
    ("method", "args", "said"),
    [
        ("Shelf.name_it", [1 << 20], "is over the limit of 1048576"),
        ("Shelf.hoard", [1 << 20], "is over the limit of 1048576"),
        ("Shelf.name_it", ["x"], "can't multiply sequence by non-int"),
        ("KV.incr", ["x"], "incr needs whole numbers"),
        ("KV.append", [1], "append"),
    ],
)
async def test_what_a_method_cannot_do_leaves_the_state_as_it_was(
    meshed, client, method, args, said
):
    await client.call(Shelf.add, "k", "first")
    await client.call("KV.put", "k", "no number, no list")
    with pytest.raises(EntityError) as caught:
        await client.call(method, "k", *args)
    assert said in str(caught.value)
    assert caught.value.executed is True
    assert await client.call(Shelf.read, "k") == ["first"]
    assert await client.call("KV.get", "k") == "no number, no list"


@pytest.mark.parametrize("method", [Shelf.odd, Shelf.deep])
async def test_a_reply_that_cannot_be_sent_is_told_as_the_entitys(client, method):
    with pytest.raises(EntityError):
        await client.call(method, "k")
    assert await client.call(Shelf.add, "k", "still here") == 1


@pytest.mark.parametrize("endpoint", [7, None, b"127.0.0.1:7400", ["127.0.0.1:7400"]])
async def test_an_endpoint_of_another_type_is_told_as_that(endpoint):
    with pytest.raises(BadRequest, match=r'endpoint .* is not "host:port"'):
        await mesh.connect(endpoint)


async def test_mistakes_leave_nothing_in_a_handlers_memory(meshed, client):
    """Not even the keys that they named: a handler would fill up with the mistakes of one caller."""
    await client.call(Shelf.add, "k", "first")

    def kept() -> int:
        nodes = meshed.nodes.values()
        return sum(len(t.slots) for node in nodes for t in node._core._tenures.in_memory.values())

    before = kept()
    for number in range(100):
        with pytest.raises(BadRequest):
            await client.call("Shelf.nope", f"m{number}")
        with pytest.raises(BadRequest):
            await client.call("Shelf.add", f"m{number}")
    assert kept() == before
