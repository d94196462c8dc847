"""An entity's bytes: only declared fields, nothing lost, nothing that cannot come back."""

from collections import OrderedDict
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mesh
from mesh.core.tenure import Slot
from mesh.entities import KV, spec_of
from mesh.errors import SetupError


@mesh.entity
class Account:
    balance: int = 0
    tags: dict[Any, Any] = {}  # noqa: RUF012 - defaults are copied for each key


SPEC = spec_of(Account)

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc") | st.integers(0, 9), inner),
    max_leaves=10,
)


@given(plain)
def test_plain_values_come_back_as_they_were(value):
    one = SPEC.new()
    one.tags = value
    again, extra = SPEC.decode(SPEC.encode(one, {}))
    assert again.tags == value and extra == {}
    assert SPEC.encode(again, {}) == SPEC.encode(one, {})


@pytest.mark.parametrize(
    "value", [object(), [lambda: 0], "\ud800", OrderedDict(a=1), {"a": type("I", (int,), {})(1)}]
)
def test_a_value_that_cannot_be_stored_is_an_error_and_not_a_changed_value(value):
    one = SPEC.new()
    one.tags = value
    with pytest.raises((TypeError, ValueError)):
        SPEC.encode(one, {})


def test_a_field_that_is_not_declared_is_refused_by_name():
    one = SPEC.new()
    one.debt = 1
    with pytest.raises(TypeError, match=r"\['debt'\] are not annotated"):
        SPEC.encode(one, {})


def test_a_field_that_was_deleted_is_refused_by_name():
    one = SPEC.new()
    del one.balance
    with pytest.raises(TypeError, match=r"\['balance'\] were deleted"):
        SPEC.encode(one, {})


def test_an_undeclared_field_cannot_hide_behind_a_deleted_one():
    one = SPEC.new()
    del one.balance
    one.debt = 1
    with pytest.raises(TypeError, match=r"\['debt'\] are not annotated"):
        SPEC.encode(one, {})


def test_a_missing_field_takes_its_default():
    one, _ = SPEC.decode(msgpack.packb({"balance": 3}))
    assert (one.balance, one.tags) == (3, {})
    one.tags["x"] = 1
    assert SPEC.new().tags == {}


def test_stored_fields_that_the_class_does_not_know_are_kept():
    one, extra = SPEC.decode(msgpack.packb({"balance": 3, "colour": "red", "tags": {}}))
    assert not hasattr(one, "colour")
    one.balance = 4
    stored = msgpack.unpackb(SPEC.encode(one, extra))
    assert stored == {"colour": "red", "balance": 4, "tags": {}}


@pytest.mark.parametrize(
    "stored", [{"balance": 3}, {"tags": {}, "balance": 3}, {"balance": 3, "tags": {}, "old": 1}]
)
def test_what_another_version_of_the_class_wrote_does_not_look_like_a_change(stored):
    slot = Slot(SPEC, msgpack.packb(stored))
    assert slot.encode() == slot.blob == slot.acked
    assert SPEC.encode(slot.readable(), slot.extra) == slot.acked


def test_a_state_may_have_all_kinds_of_values():
    one = SPEC.new()
    one.tags = {(1, "a"): {1, 2}, 2: Decimal("1.0"), "when": datetime(2026, 1, 2, tzinfo=UTC)}
    one.balance = 1 << 100
    again, _ = SPEC.decode(SPEC.encode(one, {}))
    assert vars(again) == vars(one)


def test_fields_that_were_stored_in_another_order_have_the_bytes_of_this_version():
    one, extra = SPEC.decode(msgpack.packb({"tags": {}, "balance": 0}))
    assert SPEC.encode(one, extra) == SPEC.default_blob


def test_a_set_that_was_filled_in_another_order_is_no_change():
    one, other = SPEC.new(), SPEC.new()
    one.tags["s"] = {0, 8}
    other.tags["s"] = {8, 0}
    assert list(one.tags["s"]) != list(other.tags["s"])
    assert SPEC.encode(one, {}) == SPEC.encode(other, {})


def test_another_order_of_a_dict_is_a_change():
    one, other = SPEC.new(), SPEC.new()
    one.tags = {"a": 1, "b": 2}
    other.tags = {"b": 2, "a": 1}
    assert SPEC.encode(one, {}) != SPEC.encode(other, {})
    assert list(SPEC.decode(SPEC.encode(other, {}))[0].tags) == ["b", "a"]


def test_an_error_names_the_field_that_cannot_be_stored():
    one = SPEC.new()
    one.tags["lock"] = object()
    with pytest.raises(TypeError, match=r"Account\.tags cannot be stored: builtins\.object"):
        SPEC.encode(one, {})
    one.tags["lock"] = "\ud800"
    with pytest.raises(ValueError, match=r"Account\.tags cannot be stored"):
        SPEC.encode(one, {})


@pytest.mark.parametrize("value", [bytearray(), [{"a": [memoryview(b"")]}], {"a": bytearray(b"x")}])
def test_a_default_that_would_come_back_as_bytes_is_refused(value):
    with pytest.raises(SetupError, match="cannot be stored or sent; make it bytes"):
        mesh.entity(type("E", (), {"__annotations__": {"a": Any}, "a": value}))


@pytest.fixture
def kv():
    return spec_of(KV).new()


def test_kv_counts_from_zero(kv):
    assert kv.incr() == 1 and kv.incr(5) == 6 and kv.incr(-6) == 0


@pytest.mark.parametrize(("value", "by"), [("x", 1), (1, "x"), (1, 1.5), ([], 1)])
def test_kv_counts_whole_numbers_only(kv, value, by):
    kv.put(value)
    with pytest.raises(TypeError, match="incr needs whole numbers"):
        kv.incr(by)
    assert kv.get() == value


def test_kv_compares_before_it_sets(kv):
    assert kv.cas(None, "a") is True
    assert kv.cas(None, "b") is False
    assert kv.get() == "a"


def test_kv_appends_to_a_list_and_gives_a_copy_of_it(kv):
    assert kv.append("a") == 1 and kv.append("b") == 2
    kv.items().append("c")
    assert kv.items() == ["a", "b"]


def test_kv_does_not_take_another_value_for_a_list(kv):
    kv.put("text")
    with pytest.raises(TypeError, match="append needs a list"):
        kv.append("a")
    with pytest.raises(TypeError, match="items needs a list"):
        kv.items()


def test_a_deleted_kv_is_like_one_that_was_never_written(kv):
    kv.put(1)
    kv.delete()
    assert spec_of(KV).encode(kv, {}) == spec_of(KV).default_blob and kv.items() == []
