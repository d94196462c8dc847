"""An entity's bytes: only declared fields, nothing lost, nothing that cannot come back."""

from collections import OrderedDict
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mesh
from mesh.core.tenure import Slot
from mesh.entities import KV, spec_of


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
