"""What a request says beside its header: found by its name, read by its entity's codec, within limits."""

import dataclasses
import enum
import tracemalloc
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import msgpack
import pytest

import mesh
from mesh.codec import PLAIN_CODEC, pack
from mesh.core.payload import MAX_CHAIN, Meta, pack_call, unpack_call
from mesh.entities import Registry, spec_of
from mesh.errors import BadRequest

MOST = 1000


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass(frozen=True)
class Money:
    cents: int


@mesh.entity
class Shelf:
    last: Colour | None = None

    @mesh.command
    def put(self, *things: Money, colour: Colour = Colour.RED) -> None: ...

    @mesh.query
    def look(self) -> None: ...


@mesh.entity(name="S" * 40)
class LongName:
    @mesh.command
    def put(self) -> None: ...


@mesh.entity(name="T" * 300)
class VeryLongName:
    @mesh.command
    def put(self) -> None: ...


REGISTRY = Registry([Shelf, LongName, VeryLongName])
CODEC = spec_of(Shelf).codec


def read(payload):
    names = ("spec", "method", "key", "args", "kwargs", "meta", "digest")
    return dict(zip(names, unpack_call(payload, REGISTRY, MOST), strict=True))


def call(*args, meta=None, name="Shelf.put", codec=CODEC, **kwargs):
    return pack_call(codec, name, b"k", args, kwargs, meta.encode() if meta else b"")


@pytest.mark.parametrize(
    "value",
    [
        (1, (2, 3)),
        {1, 2},
        Decimal("1.10"),
        datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
        date(2026, 1, 2),
        UUID(int=5),
        1 << 90,
        -(1 << 64),
        Colour.RED,
        Money(5),
        [Money(5), {"a": (Colour.RED, b"x")}],
        {(1, 2): "a tuple as a key"},
    ],
    ids=repr,
)
def test_an_argument_arrives_as_what_it_was(value):
    found = read(call(value, colour=value))
    assert found["args"] == [value] and type(found["args"][0]) is type(value)
    assert found["kwargs"] == {"colour": value}


@pytest.mark.parametrize("name", ["Shelf.put", "S" * 40 + ".put", "T" * 300 + ".put"])
def test_a_method_is_found_by_its_name_whatever_its_length(name):
    found = read(pack_call(PLAIN_CODEC, name, b"k", [], {}))
    assert f"{found['spec'].name}.{found['method'].name}" == name


def test_a_name_in_a_longer_form_than_it_needs_is_found_too():
    payload = b"\x93\xda\x00\x09Shelf.put" + pack(b"k") + pack([])
    assert read(payload)["method"].name == "put"


def test_the_digest_tells_calls_apart_and_leaves_out_what_goes_along():
    plain = read(call(1))["digest"]
    assert plain == read(call(1, meta=Meta(metadata={"trace": "x"})))["digest"]
    assert plain == read(call(1, meta=Meta(metadata={"trace": "y" * 300})))["digest"]
    assert plain != read(call(2))["digest"]
    with_kwargs = read(call(1, colour=2))["digest"]
    assert with_kwargs == read(call(1, colour=2, meta=Meta(chain=(("E", b"k"),))))["digest"]
    assert with_kwargs not in (plain, read(call(1, colour=3))["digest"])


def test_what_goes_along_arrives():
    meta = Meta("own", metadata={"n": 1, "b": b"x", "none": None}, chain=(("Shelf", b"a"),))
    assert read(call(meta=meta))["meta"] == meta


def test_what_a_later_version_sends_along_is_passed_over():
    blob = pack({"metadata": {"a": 1}, "future": [1, 2]})
    assert Meta.decode(blob) == Meta(metadata={"a": 1})


@pytest.mark.parametrize(
    "parts",
    [
        {"chain": [("E", b"k")] * (MAX_CHAIN + 1)},
        {"chain": [["E"]]},
        {"chain": [["E", "text"]]},
        {"chain": 5},
        {"metadata": {"a": []}},
        {"metadata": {1: "a"}},
        {"metadata": [1]},
        {"k": 5},
        {"k": "x" * 5000},
        {"metadata": {"a": "x" * 100_000}},
        [],
    ],
    ids=lambda parts: str(parts)[:30],
)
def test_what_goes_along_has_limits(parts):
    payload = CODEC.pack(["Shelf.put", b"k", [], {}, pack(parts)])
    with pytest.raises(BadRequest):
        read(payload)


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "cannot be decoded"),
        (b"\x93", "cannot be decoded"),
        (b"\x93\xd9", "cannot be decoded"),
        (b"\x93\xa9Shelf.put", "cannot be decoded"),
        (call()[:-1], "cannot be decoded"),
        (call() + b"x", "cannot be decoded"),
        (b"\xa9Shelf.put", "a request is"),
        (msgpack.packb(["Shelf.put", b"k"]), "a request is"),
        (msgpack.packb(["Shelf.put", b"k", {}]), "a request is"),
        (msgpack.packb(["Shelf.put", b"k", [], []]), "a request is"),
        (msgpack.packb(["Shelf.put", b"k", [], {}, {}]), "a request is"),
        (pack(["Shelf.put", 1 << 20_000, []]), "a key is 1 to 512 bytes, not"),
        (pack(["Nobody.put", 1 << 20_000, []]), "no entity is named 'Nobody'"),
        (pack([1 << 20_000, 1, 1]), "a request is"),
        (pack_call(CODEC, "KV.put", b"k", [Money(5)], {}), "no type is declared as 'Money'"),
        (pack_call(CODEC, "KV.put", b"k", [5], {1: 2}), "put(value: 'Any')"),
    ],
)
def test_what_is_no_call_is_refused_in_words(payload, says):
    with pytest.raises(BadRequest) as caught:
        read(payload)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "args",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\x00\x00\xff\xff" + b"\xc0" * 100,
        b"\x91" * 5000,
        b"\xc9\xff\xff\xff\xff\x01",
        b"\xc6\xff\xff\xff\xff",
        b"\x91\xc7\x05\x02\xdd\xff\xff\xff\xff",
        b"\x91\xc7\x03\x02\x91\xc1\xc1",
    ],
    ids=["list", "map", "long list", "nested", "ext", "bin", "set", "ext in ext"],
)
def test_hostile_arguments_reserve_no_memory(args):
    payload = b"\x93\xa9Shelf.put" + pack(b"k") + args
    tracemalloc.start()
    try:
        with pytest.raises(BadRequest):
            read(payload)
        assert tracemalloc.get_traced_memory()[1] < 512 * 1024
    finally:
        tracemalloc.stop()
