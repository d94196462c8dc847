"""Values are found where msgpack itself would find them, in whatever bytes."""

from datetime import UTC, datetime
from decimal import Decimal

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mesh.codec import pack
from mesh.core.rows import end_of, value_at, values_of

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats()
    | st.text(st.characters(codec="utf-8"), max_size=40)
    | st.binary(max_size=300)
    | st.sampled_from(
        ["x" * 70_000, b"y" * 70_000, Decimal("1.50"), datetime(2026, 1, 2, tzinfo=UTC)]
    )
    | st.frozensets(st.integers(0, 300), max_size=120)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=20)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text("abc") | st.integers(), inner, max_size=20)
    ),
)


@given(values, st.binary(max_size=3), st.binary(max_size=3))
@example([0] * 70_000, b"", b"")
@example([[[0] * 60] * 3, {}], b"", b"")
def test_a_value_ends_where_its_last_byte_is(value, before, after):
    row = pack(value)
    assert end_of(before + row + after, len(before)) == len(before) + len(row)
    for cut_off in {0, len(row) // 2, len(row) - 1}:
        with pytest.raises(ValueError, match="no value at byte 0"):
            end_of(row[:cut_off], 0)


@given(
    st.binary(max_size=40) | st.builds(bytes.__add__, st.binary(max_size=2), st.binary(max_size=9))
)
def test_any_bytes_end_where_msgpack_says_or_nowhere(row):
    reader = msgpack.Unpacker(max_buffer_size=100)
    reader.feed(row)
    try:
        reader.skip()
        end = reader.tell()
    except (ValueError, msgpack.UnpackException):
        with pytest.raises(ValueError, match="no value"):
            end_of(row, 0)
    else:
        assert end_of(row, 0) == end


@given(st.dictionaries(st.text(max_size=40) | st.integers() | st.binary(), values, max_size=70))
def test_each_value_of_a_map_is_where_it_is_said_to_be(fields):
    row = b"\xc0" + pack(fields)
    found = [(name, row[start:end]) for name, start, end in values_of(row, 1)]
    assert found == [
        (value_at(pack(name), 0, len(pack(name))), pack(v)) for name, v in fields.items()
    ]


@given(st.binary(max_size=60))
def test_any_bytes_are_a_map_or_a_value_error(row):
    try:
        places = list(values_of(row, 0))
    except ValueError:
        return
    assert all(start < end <= len(row) for _, start, end in places)
