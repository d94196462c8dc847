"""Whatever can be packed comes back as it was; whatever comes in is a value or a ValueError."""

import dataclasses
import datetime as dt
import enum
import math
import random
import zoneinfo
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgpack
from hypothesis import example, given
from hypothesis import strategies as st

from mesh.codec import Codec, pack, unpack


class Colour(enum.Enum):
    RED = "r"
    BLUE = ("b", 1)
    CRIMSON = "r"  # noqa: PIE796 - an alias


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Word(enum.StrEnum):
    YES = "yes"


class Right(enum.Flag):
    READ = 1
    WRITE = 2
    RUN = 4


@dataclasses.dataclass(frozen=True)
class Point:
    x: Any
    y: Any = None


@dataclasses.dataclass(slots=True)
class Tree:
    value: Any
    children: list[Any] = dataclasses.field(default_factory=list)


CODEC = Codec([Colour, Size, Word, Right, Point, Tree])

zones = st.none() | st.sampled_from(
    [
        dt.UTC,
        dt.timezone(dt.timedelta(hours=-9, seconds=3, microseconds=7)),
        dt.timezone(dt.timedelta(hours=1), "CET"),
        dt.timezone(dt.timedelta(0), "Zulu"),
        zoneinfo.ZoneInfo("UTC"),
    ]
)
text = st.text(st.characters(exclude_categories=["Cs"]))
hashable_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**200), 2**200)
    | st.floats()
    | text
    | st.binary()
    | st.decimals()
    | st.decimals(allow_nan=False).map(lambda d: d.scaleb(3) if d.is_finite() else d)
    | st.datetimes(timezones=zones)
    | st.dates()
    | st.times(timezones=zones.filter(lambda z: not isinstance(z, zoneinfo.ZoneInfo)))
    | st.timedeltas()
    | st.uuids()
    | st.sampled_from([*Colour, *Size, *Word, *Right, Right.READ | Right.RUN, Right(0)])
)


def can_be_a_key(value: Any) -> bool:
    return not (isinstance(value, Decimal) and value.is_snan())


keys = st.recursive(
    hashable_scalars.filter(can_be_a_key),
    lambda inner: (
        st.tuples(inner, inner) | st.frozensets(inner, max_size=3) | st.builds(Point, inner)
    ),
    max_leaves=4,
)
values = st.recursive(
    hashable_scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.sets(keys, max_size=4)
        | st.frozensets(keys, max_size=4)
        | st.builds(Point, inner, inner)
        | st.builds(Tree, inner, st.lists(inner, max_size=2))
    ),
    max_leaves=8,
)


def same(one: Any, other: Any) -> bool:
    """Equal and of the same types all the way down, NaN and the order of a dict included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return repr(one) == repr(other)
    if isinstance(one, Decimal):
        return one.as_tuple() == other.as_tuple()
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, set | frozenset):
        return len(one) == len(other) and same(
            sorted(one, key=CODEC.pack), sorted(other, key=CODEC.pack)
        )
    if isinstance(one, dt.datetime | dt.time):
        zoned = (one.tzinfo is None) == (other.tzinfo is None)
        return zoned and repr(one) == repr(other) and one.tzname() == other.tzname()
    if dataclasses.is_dataclass(one):
        fields = [f.name for f in dataclasses.fields(one)]
        return all(same(getattr(one, f), getattr(other, f)) for f in fields)
    return one == other


@given(values)
@example(math.nan)
@example(-0.0)
@example(2**64)
@example(-(2**63) - 1)
@example(Decimal("-0E+3"))
@example(Decimal("sNaN12"))
@example({(1, "a"): {2**70}, 1.5: ()})
@example({1: "int", "1": "text", b"1": "bytes", (1,): "tuple"})
@example(dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=dt.UTC))
@example(Tree(Tree(1, [Point(Colour.CRIMSON, {Size.LARGE: Word.YES})])))
def test_a_value_comes_back_as_it_was_and_has_the_same_bytes_again(value):
    blob = CODEC.pack(value)
    again = CODEC.unpack(blob)
    assert same(value, again), (value, again)
    assert CODEC.pack(again) == blob


@given(st.sets(keys, max_size=8), st.randoms())
def test_the_order_in_which_a_set_was_filled_does_not_show(held, dice):
    shuffled = list(held)
    dice.shuffle(shuffled)
    # Many more come and go: the table of the set is another one then.
    other = set(range(1000, 1000 + dice.randrange(100)))
    other.update(shuffled)
    other -= set(range(1000, 1100)) - held
    assert CODEC.pack(other) == CODEC.pack(held)


@given(values, values)
def test_equal_bytes_mean_the_same_value(one, other):
    assert (CODEC.pack(one) == CODEC.pack(other)) == same(one, other)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | text | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(text, inner),
    max_leaves=10,
)


@given(plain)
def test_a_plain_value_is_plain_msgpack(value):
    assert pack(value) == msgpack.packb(value)


noise = st.recursive(
    plain,
    lambda inner: (
        st.builds(
            lambda code, parts: msgpack.ExtType(code, msgpack.packb(parts)),
            st.integers(0, 12) | st.sampled_from([32, 127]),
            inner | st.tuples(st.sampled_from(["Colour", "Point", "Tree", "Right", "no"]), inner),
        )
        | st.lists(inner, max_size=9)
        | st.dictionaries(st.sampled_from("xy"), inner, max_size=2)
    ),
    max_leaves=12,
)


@given(st.binary(max_size=64) | noise.map(msgpack.packb), st.none() | st.integers(0, 8))
@example(b"\xd6\xff\0\0\0\5", None)
@example(b"\xc7\x0c\xff" + b"\xff" * 12, None)
@example(b"\x81\x90\x01", None)
@example(b"\x91" * 5000, None)
@example(b"\xdd\xff\xff\xff\xff", None)
def test_any_bytes_give_a_value_or_a_value_error(blob, most):
    try:
        value = CODEC.unpack(blob, most)
    except ValueError:
        return
    assert same(CODEC.unpack(CODEC.pack(value)), value)


@given(values, st.randoms())
def test_bytes_that_were_damaged_give_a_value_or_a_value_error(value, dice):
    blob = bytearray(CODEC.pack(value))
    for _ in range(dice.randrange(1, 4)):
        blob[dice.randrange(len(blob))] = dice.randrange(256)
    try:
        CODEC.unpack(bytes(blob[: dice.randrange(len(blob) + 1)]))
    except ValueError:
        return


def test_a_uuid_keeps_all_its_bits():
    for seed in range(16):
        one = UUID(int=random.Random(seed).getrandbits(128))
        assert unpack(pack(one)) == one
