"""What can be stored and sent, what is refused, and what an error says."""

import dataclasses
import datetime as dt
import decimal
import enum
import functools
import io
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, namedtuple
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NewType, Optional

import msgpack
import pytest

import mesh
from mesh.codec import MAX_NESTING, Codec, pack, unpack
from mesh.entities import Registry, spec_of
from mesh.errors import SetupError
from mesh.exttypes import BY_TYPE, NAMED


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Address:
    street: str
    floor: int = 0
    tags: list[str] = dataclasses.field(default_factory=list)


class Text(str):
    __slots__ = ()


class Zone(dt.tzinfo):
    def utcoffset(self, when: Any) -> dt.timedelta:
        return dt.timedelta(0)


Pair = namedtuple("Pair", "a b")


def test_codes_of_extension_types_are_stored_and_stay_what_they_are():
    codes = {cls.__name__: ext.code for cls, ext in BY_TYPE.items()}
    assert codes == {
        "tuple": 1,
        "set": 2,
        "frozenset": 3,
        "int": 4,
        "Decimal": 5,
        "datetime": 6,
        "date": 7,
        "time": 8,
        "timedelta": 9,
        "UUID": 10,
    }
    assert NAMED == 32


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ((1, "a"), "d601 9201a161"),
        ({3, 1, 2}, "d602 93010203"),
        (1 << 64, "c70b04 c409010000000000000000"),
        (decimal.Decimal("1.50"), "c70505 a4312e3530"),
        (dt.date(1, 1, 1), "d407 01"),
    ],
)
def test_stored_bytes_of_today_are_readable_for_ever(value, stored):
    blob = bytes.fromhex(stored)
    assert pack(value) == blob
    assert unpack(blob) == value and type(unpack(blob)) is type(value)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (Text("a"), "Text cannot be stored or sent: it would come back as str"),
        (OrderedDict(), "OrderedDict cannot be stored or sent: it would come back as dict"),
        (defaultdict(list), "defaultdict cannot be stored or sent: it would come back as dict"),
        (Counter(), "Counter cannot be stored or sent: it would come back as dict"),
        (Pair(1, 2), "Pair cannot be stored or sent: it would come back as tuple"),
        (
            Colour.RED,
            "Colour cannot be stored or sent. Enums and dataclasses can when an annotation",
        ),
        (Address("x"), "Address cannot be stored or sent. Enums and dataclasses can when"),
        (object(), r"builtins\.object cannot be stored or sent"),
        (1j, r"builtins\.complex cannot be stored or sent"),
        (dt.datetime(2026, 1, 1, tzinfo=Zone()), "time zone .*Zone.* cannot be stored"),
    ],
)
def test_a_type_that_nobody_declared_is_refused_wherever_it_is(value, says):
    for held in (value, [value], {"a": value}, (value,), {"a": [(1, {"b": value})]}):
        with pytest.raises(TypeError, match=says):
            pack(held)


def test_a_codec_goes_on_after_a_value_that_it_refused():
    codec = Codec([Address])
    before = codec.pack([Address("x"), (1,)])
    for bad in ([1, object()], [Address("x"), (1, object())], "\ud800", (1, "\ud800")):
        with pytest.raises((TypeError, ValueError)):
            codec.pack(bad)
        assert codec.pack([Address("x"), (1,)]) == before


def nested(depth: int) -> Any:
    return functools.reduce(lambda inner, _: (inner,), range(depth), 1)


def test_nesting_has_a_limit_in_both_directions():
    deepest = nested(MAX_NESTING)
    assert unpack(pack(deepest)) == deepest
    with pytest.raises(ValueError, match=f"nested more than {MAX_NESTING} deep"):
        pack(nested(MAX_NESTING + 1))
    hostile = b"\x01"
    for _ in range(MAX_NESTING + 1):
        hostile = msgpack.packb(msgpack.ExtType(1, b"\x91" + hostile))
    with pytest.raises(ValueError, match=f"nested more than {MAX_NESTING} deep"):
        unpack(hostile)


@pytest.mark.parametrize("depth", [1024, 1025, 3000])
def test_lists_are_packed_as_deep_as_they_can_be_unpacked(depth):
    value = functools.reduce(lambda inner, _: [inner], range(depth), 1)
    try:
        blob = pack(value)
    except ValueError:
        assert depth > 1024
    else:
        assert pack(unpack(blob)) == blob


def test_a_value_that_holds_itself_is_refused():
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="recursion limit"):
        pack(loop)


@pytest.mark.parametrize(
    "value", [list(range(9)), tuple(range(9)), {"a": {i: i for i in range(9)}}]
)
def test_the_number_of_elements_can_be_limited_at_every_depth(value):
    assert unpack(pack(value), most=9) == value
    with pytest.raises(ValueError, match="exceeds max"):
        unpack(pack(value), most=8)


@pytest.mark.parametrize(
    ("blob", "says"),
    [
        (b"", "Unpack failed: incomplete input"),
        (b"\x01\x02", "received extra data"),
        (b"\x81\x90\x01", "unhashable type"),
        (msgpack.packb(msgpack.ExtType(99, b"\xc0")), "extension type 99 is not known"),
        (msgpack.packb(msgpack.ExtType(1, b"\xc0")), "a list is needed, not None"),
        (msgpack.packb(msgpack.ExtType(7, b"\x00")), "ordinal must be >= 1"),
        (msgpack.packb(msgpack.ExtType(5, b"\xa1x")), "InvalidOperation"),
        (msgpack.packb(msgpack.ExtType(32, b"\x91\x01")), r"is \[name, parts\], not \[1\]"),
        (msgpack.packb(msgpack.ExtType(32, b"\x92\x01\x01")), "the name of a type is text, not 1"),
        (
            msgpack.packb(msgpack.ExtType(32, b"\x92\xa2os\xa6system")),
            "no type is declared as 'os'",
        ),
    ],
)
def test_bytes_that_are_no_value_are_refused_with_a_reason(blob, says):
    with pytest.raises(ValueError, match=says):
        unpack(blob)


@pytest.mark.parametrize("key", ["../../etc/passwd", "No/Where", "", "a" * 300, "America", "\0"])
def test_a_time_zone_that_this_machine_does_not_know_is_a_value_error(key):
    parts = msgpack.packb([2026, 1, 1, 0, 0, 0, 0, 0, key])
    with pytest.raises(ValueError, match=r"time zone|ZoneInfo|null byte"):
        unpack(msgpack.packb(msgpack.ExtType(6, parts)))


def test_a_time_zone_without_a_key_is_refused():
    head = b"TZif" + bytes(16) + bytes.fromhex("000000000000000000000000000000000000000100000004")
    nameless = zoneinfo.ZoneInfo.from_file(io.BytesIO(head + bytes(6) + b"UTC\0"))
    with pytest.raises(TypeError, match="cannot be stored"):
        pack(dt.datetime(2026, 1, 1, tzinfo=nameless))


def test_a_timestamp_of_another_implementation_is_a_point_in_time():
    assert unpack(msgpack.packb(msgpack.Timestamp(5))) == dt.datetime.fromtimestamp(5, dt.UTC)


def test_the_decimal_context_of_a_thread_does_not_change_the_bytes():
    value = decimal.Decimal("1E+50")
    blob = pack(value)
    with decimal.localcontext(decimal.Context(capitals=0, prec=2)):
        assert pack(value) == blob
        exact = decimal.Decimal("1.23456789")
        assert unpack(pack(exact)) == exact


def test_threads_share_a_codec():
    codec = Codec([Address])

    def work(n: int) -> bool:
        value = [(n, {n: Address("x" * n)}, {n, n + 1}) for _ in range(20)]
        return all(codec.unpack(codec.pack(value)) == value for _ in range(20))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(32)))


# --------------------------------------------------------------------------- declared types


def test_a_dataclass_comes_back_without_a_call_of_its_own_code():
    @dataclasses.dataclass(frozen=True)
    class Percent:
        value: int

        def __post_init__(self) -> None:
            if self.value > limit:
                raise ValueError("too much")

    limit = 100
    codec = Codec([Percent])
    blob = codec.pack(Percent(90))
    limit = 50
    assert vars(codec.unpack(blob)) == {"value": 90}


def stored_address(fields: Any) -> bytes:
    return msgpack.packb(msgpack.ExtType(NAMED, msgpack.packb(["Address", fields])))


def test_a_field_that_a_dataclass_gained_takes_its_default():
    codec = Codec([Address])
    one, other = (codec.unpack(stored_address({"street": "x", "floor": 3})) for _ in range(2))
    assert one == Address("x", 3, []) and one.tags is not other.tags


def test_fields_that_do_not_fit_a_dataclass_are_named():
    codec = Codec([Address])
    with pytest.raises(ValueError, match="Address has no field 'zip': another version"):
        codec.unpack(stored_address({"street": "x", "zip": 1}))
    with pytest.raises(ValueError, match="field 'street' of Address is not stored"):
        codec.unpack(stored_address({"floor": 1}))
    with pytest.raises(ValueError, match="not the fields of Address"):
        codec.unpack(stored_address([1]))


def test_a_codec_of_the_same_name_reads_what_a_dataclass_left():
    blob = Codec([Address]).pack(Address("x", 3))

    @dataclasses.dataclass
    class House:
        line: str

    new = mesh.TypeCodec(
        House, "Address", lambda h: {"street": h.line}, lambda fields: House(fields["street"])
    )
    assert Codec([new]).unpack(blob) == House("x")


def test_what_a_dataclass_would_lose_is_refused():
    codec = Codec([Address])
    address = Address("x")
    address.cache = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"\['cache'\] would be lost"):
        codec.pack(address)
    del address.cache  # type: ignore[attr-defined]
    del address.street
    with pytest.raises(TypeError, match="a field of Address was deleted"):
        codec.pack(address)


def test_a_subclass_of_a_declared_dataclass_needs_a_declaration_of_its_own():
    @dataclasses.dataclass
    class Office(Address): ...

    with pytest.raises(TypeError, match="Office cannot be stored"):
        Codec([Address]).pack(Office("x"))


def test_members_that_an_enum_lost_are_named():
    codec = Codec([Colour])
    blob = codec.pack(Colour.RED).replace(b"RED", b"TAN")
    with pytest.raises(ValueError, match="Colour has no member 'TAN'"):
        codec.unpack(blob)


def test_a_flag_with_bits_that_it_does_not_have_is_refused():
    class Right(enum.Flag):
        READ = 1

    class Loose(enum.Flag, boundary=enum.EJECT):
        READ = 1

    for cls in (Right, Loose):
        codec = Codec([cls])
        blob = codec.pack(cls.READ)
        assert codec.unpack(blob) is cls.READ
        with pytest.raises(ValueError):
            codec.unpack(blob[:-1] + b"\x40")
        with pytest.raises(ValueError, match="has no value None"):
            codec.unpack(blob[:-1] + b"\xc0")


def test_a_type_of_any_kind_can_be_declared():
    codec = Codec(
        [mesh.TypeCodec(complex, encode=lambda c: (c.real, c.imag), decode=lambda p: complex(*p))]
    )
    assert codec.unpack(codec.pack({"z": [1 + 2j]})) == {"z": [1 + 2j]}
    with pytest.raises(ValueError, match="no type is declared as 'complex'"):
        unpack(codec.pack(1j))


def test_what_a_users_codec_raises_is_told_with_the_types_name():
    codec = Codec([mesh.TypeCodec(complex, "z", lambda c: 1 / c.real, lambda p: p["x"])])
    with pytest.raises(TypeError, match="encode of z failed: ZeroDivisionError"):
        codec.pack(0j)
    with pytest.raises(ValueError, match="decode of z failed: TypeError"):
        codec.unpack(codec.pack(1 + 0j))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: mesh.TypeCodec(int), "a codec is for a class of its own, not <class 'int'>"),
        (lambda: mesh.TypeCodec(3), "a codec is for a class of its own, not 3"),
        (lambda: mesh.TypeCodec(Colour, 3), "the name of a codec is text, not 3"),
        (lambda: mesh.TypeCodec(complex), "complex is neither an enum nor a dataclass"),
        (lambda: mesh.TypeCodec(complex, encode=str), "give both encode and decode"),
        (lambda: Codec(["Colour"]), "codecs= takes classes and mesh.TypeCodec, not 'Colour'"),
        (lambda: Codec([complex]), "complex is neither an enum nor a dataclass"),
        (
            lambda: Codec([Colour, mesh.TypeCodec(Address, "Colour")]),
            "two types are named 'Colour'",
        ),
    ],
)
def test_a_declaration_that_says_too_little_is_refused(make, says):
    with pytest.raises(SetupError, match=says):
        make()


# ------------------------------------------------------------------- found in annotations


def test_types_that_annotations_name_need_no_declaration():
    class A(enum.Enum):
        X = 1

    class B(enum.Enum):
        X = 1

    class C(enum.Enum):
        X = 1

    class D(enum.Enum):
        X = 1

    class E(enum.Enum):
        X = 1

    @dataclasses.dataclass
    class Outer:
        inner: dict[str, list[A]]

    alias = NewType("alias", C)

    @mesh.entity
    class Holder:
        outer: Outer | None = None
        either: Optional[dict[str, tuple[alias, ...]]] = None  # noqa: UP045 - as older code has it

        @mesh.command
        def take(self, kind: Literal[B.X]) -> D: ...

    codec = spec_of(Holder).codec
    for value in (Outer({"a": [A.X]}), A.X, B.X, C.X, D.X):
        assert codec.unpack(codec.pack(value)) == value
    with pytest.raises(TypeError, match="E cannot be stored"):
        codec.pack(E.X)


def test_an_annotation_may_name_what_is_defined_further_down():
    class Holder:
        later: "Later | None" = None

    Holder.__module__ = "somewhere.else"
    spec = spec_of(mesh.entity(Holder))
    with pytest.raises(TypeError, match="Later cannot be stored"):
        spec.codec.pack(Later.NEVER)

    class Here:
        later: "Later | None" = None

    codec = spec_of(mesh.entity(Here)).codec
    assert codec.unpack(codec.pack(Later.NEVER)) is Later.NEVER


class Later(enum.Enum):
    NEVER = 0


def test_an_annotation_is_looked_up_again_until_what_it_names_exists(monkeypatch):
    class Holder:
        born: "Unborn | None" = None  # noqa: F821 - below

    codec = spec_of(mesh.entity(Holder)).codec
    with pytest.raises(TypeError, match="Colour cannot be stored"):
        codec.pack(Colour.RED)
    unborn = enum.Enum("Unborn", "X")
    monkeypatch.setitem(globals(), "Unborn", unborn)
    assert codec.unpack(codec.pack(unborn.X)) is unborn.X


def test_a_default_declares_its_own_type():
    class Local(enum.Enum):
        X = 1

    @mesh.entity
    class Holder:
        kind: "Local" = Local.X

    spec = spec_of(Holder)
    assert spec.decode(spec.default_blob)[0].kind is Local.X


def test_two_types_of_one_name_in_one_entity_are_refused_when_a_mesh_comes_up():
    first = Colour
    second = enum.Enum("Colour", "RED")

    class Holder:
        one: first | None = None
        two: second | None = None

    with pytest.raises(SetupError, match=r"two types are named 'Colour'.*another name"):
        Registry([mesh.entity(Holder)])
    named = mesh.entity(codecs=[mesh.TypeCodec(second, name="second.Colour")])(Holder)
    Registry([named])
    codec = spec_of(named).codec
    both = [first.RED, second.RED]
    assert codec.unpack(codec.pack(both)) == both
