"""States that older code stored are read by newer code, or refused and left as they are."""

from typing import Any

import msgpack
import pytest

import mesh
from mesh.core.tenure import Slot
from mesh.entities import spec_of
from mesh.errors import SetupError


@mesh.entity(name="Account")
class First:
    balance: int = 0


@mesh.entity(name="Account", version=3)
class Third:
    cents: int = 0
    history: list[int] = []  # noqa: RUF012 - defaults are copied for each key

    @mesh.migrate(1)
    @staticmethod
    def from_euros(fields: dict[str, Any]) -> dict[str, Any]:
        fields["cents"] = fields.pop("balance", 0) * 100
        return fields

    @mesh.migrate(2)
    @classmethod
    def with_history(cls, fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, "history": [fields["cents"]], "by": cls.__name__}


def stored(cls: type, **fields: Any) -> bytes:
    spec = spec_of(cls)
    one = spec.new()
    vars(one).update(fields)
    return spec.encode(one, {})


def test_a_state_of_version_one_pays_nothing_for_it():
    assert msgpack.unpackb(stored(First, balance=3)) == {"balance": 3}


def test_a_state_carries_its_version_from_two_on():
    assert msgpack.unpackb(stored(Third, cents=3)) == [3, {"cents": 3, "history": []}]
    one, extra = spec_of(Third).decode(stored(Third, cents=3, history=[1]))
    assert (one.cents, one.history, extra) == (3, [1], {})


def test_migrations_run_one_after_the_other():
    one, extra = spec_of(Third).decode(stored(First, balance=5))
    assert (one.cents, one.history, extra) == (500, [500], {"by": "Third"})
    blob = msgpack.packb([2, {"cents": 7}])
    assert spec_of(Third).decode(blob)[0].history == [7]


def test_what_a_migration_leaves_is_treated_like_any_stored_fields():
    @mesh.entity(version=2)
    class Account:
        a: int = 1
        b: list[int] = []  # noqa: RUF012 - defaults are copied for each key

        @mesh.migrate(1)
        def keep(fields):  # noqa: N805 - a plain function will do
            return fields

    spec = spec_of(Account)
    one, extra = spec.decode(msgpack.packb({"colour": "red"}))
    other, _ = spec.decode(msgpack.packb({"colour": "red"}))
    assert (one.a, one.b, extra) == (1, [], {"colour": "red"})
    assert one.b is not other.b
    assert msgpack.unpackb(spec.encode(one, extra)) == [2, {"colour": "red", "a": 1, "b": []}]


def test_reading_an_old_state_is_no_change_to_it():
    slot = Slot(spec_of(Third), stored(First, balance=5))
    assert slot.encode() == slot.blob == slot.acked


def test_a_state_of_a_newer_version_is_refused():
    with pytest.raises(ValueError, match="stored by version 3, this handler runs version 1"):
        spec_of(First).decode(stored(Third, cents=1))


def test_a_state_that_nothing_leads_on_from_is_refused():
    @mesh.entity(name="Account", version=2)
    class Second:
        cents: int = 0

    with pytest.raises(ValueError, match=r"nothing leads from 1 to 2; .*@mesh\.migrate\(1\)"):
        spec_of(Second).decode(stored(First, balance=1))


@pytest.mark.parametrize("version", [0, -1, True, None, "2", 1.0, [2]])
def test_a_version_that_is_none_is_refused(version):
    with pytest.raises(ValueError, match="not a state of Account"):
        spec_of(Third).decode(msgpack.packb([version, {"cents": 1}]))


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (lambda fields: fields["nothing"], r"failed: KeyError\('nothing'\)"),
        (lambda fields: None, "returned no dict of fields: None"),
        (lambda fields: {1: 2}, "returned no dict of fields: {1: 2}"),
    ],
)
def test_a_migration_that_goes_wrong_is_named(step, says):
    cls = type("Account", (), {"step": mesh.migrate(1)(step)})
    with pytest.raises(ValueError, match=f"migration .*lambda.* {says}"):
        spec_of(mesh.entity(version=2)(cls)).decode(msgpack.packb({"a": 1}))


def step(fields):
    return {"cents": fields["balance"]}


def class_step(cls, fields):
    return {"cents": fields["balance"], "by": cls.__name__}


@pytest.mark.parametrize(
    "attribute",
    [
        mesh.migrate(1)(step),
        mesh.migrate(1)(staticmethod(step)),
        staticmethod(mesh.migrate(1)(step)),
        mesh.migrate(1)(classmethod(class_step)),
        classmethod(mesh.migrate(1)(class_step)),
    ],
)
def test_functions_static_and_class_methods_can_migrate(attribute):
    body = {"__annotations__": {"cents": int}, "cents": 0, "step": attribute}
    spec = spec_of(mesh.entity(version=2)(type("Account", (), body)))
    one, extra = spec.decode(stored(First, balance=5))
    assert one.cents == 5 and extra in ({}, {"by": "Account"})


def test_a_subclass_inherits_the_migrations_that_its_version_needs():
    @mesh.entity(version=3)
    class Heir(Third):
        name: str = ""

    one, extra = spec_of(Heir).decode(stored(First, balance=5))
    assert (one.cents, one.name, extra) == (500, "", {"by": "Heir"})

    @mesh.entity
    class Young(Third): ...

    assert spec_of(Young).decode(msgpack.packb({"cents": 1}))[0].cents == 1


@pytest.mark.parametrize("version", [0, -1, True, "1", 1.5, None, step])
def test_a_migration_starts_from_a_version(version):
    with pytest.raises(SetupError, match="takes the version it starts from"):
        mesh.migrate(version)


async def later(fields): ...


@pytest.mark.parametrize(
    ("version", "body", "says"),
    [
        (1, {"a": mesh.migrate(1)(step)}, "leads from version 1 to 2, but Account is version 1"),
        (2, {"a": mesh.migrate(2)(step)}, "leads from version 2 to 3, but Account is version 2"),
        (3, {"a": mesh.migrate(1)(step)}, r"has migrations from \[1\].*the one from 2 is missing"),
        (
            2,
            {"a": mesh.migrate(1)(step), "b": mesh.migrate(1)(lambda fields: fields)},
            "two migrations from version 1: step and .*lambda",
        ),
        (2, {"a": mesh.migrate(1)(class_step)}, "class_step has to take one dict of fields"),
        (2, {"a": mesh.migrate(1)(later)}, "migration later is async"),
    ],
)
def test_migrations_that_cannot_work_are_refused_at_once(version, body, says):
    with pytest.raises(SetupError, match=says):
        mesh.entity(version=version)(type("Account", (), body))


def test_only_functions_migrate():
    with pytest.raises(SetupError, match="is for functions, not 3"):
        mesh.migrate(1)(3)
