"""What a class has to be to be an entity, and how its state is kept."""

from typing import Any, ClassVar

import msgpack
import pytest

import mesh
from mesh.entities import KV, Registry, spec_of
from mesh.errors import BadRequest, SetupError


@mesh.entity
class Cart:
    items: list[str] = []  # noqa: RUF012 - defaults are copied for each key
    total: float = 0.0
    limit: ClassVar[int] = 10

    @mesh.command
    def add(self, item: str, /, price: float, *more: str, gift: bool = False) -> int:
        self.items.append(item)
        self.total += price
        return len(self.items)

    @mesh.command
    def reset(self, *, sure: bool) -> None:
        self.items = []

    @mesh.query
    def count(self) -> int:
        return len(self.items)


def entity(**body: Any) -> type:
    """An entity made from a class body."""
    return mesh.entity(type("E", (), body))


def test_mutable_defaults_are_copied_for_each_key():
    spec = spec_of(Cart)
    one, other = spec.new(), spec.new()
    one.items.append("pen")
    assert other.items == [] and Cart.items == []


def test_class_variables_are_no_state():
    assert set(msgpack.unpackb(spec_of(Cart).default_blob)) == {"items", "total"}


@pytest.mark.parametrize(
    "annotation", [ClassVar, "ClassVar", "ClassVar[int]", "typing.ClassVar[int]"]
)
def test_a_class_variable_is_known_however_it_is_written(annotation):
    assert spec_of(entity(__annotations__={"a": annotation}, a=1)).default_blob == b"\x80"


def test_a_method_is_a_reference_on_the_class_and_a_function_on_an_instance():
    assert Cart.add.name == "Cart.add"
    cart = spec_of(Cart).new()
    assert cart.add("pen", 1.5) == 1 and cart.count() == 1


def test_an_entity_may_have_another_name_than_its_class():
    @mesh.entity(name="cart-v2")
    class Renamed(Cart):
        pass

    assert Renamed.add.name == "cart-v2.add"
    assert spec_of(Cart).name == "Cart"


@pytest.mark.parametrize("name", ["\0", "a.b"])
def test_a_name_that_would_be_ambiguous_on_the_wire_is_refused(name):
    with pytest.raises(SetupError, match="must not be empty or hold a dot or NUL"):
        mesh.entity(name=name)(type("E", (), {}))


def test_a_field_without_a_default_is_refused():
    with pytest.raises(SetupError, match=r"E\.owner has no default"):
        entity(__annotations__={"owner": str})


def test_defaults_that_cannot_be_stored_are_refused_at_once():
    with pytest.raises(SetupError, match="defaults of E cannot be stored"):
        entity(__annotations__={"lock": object}, lock=object())


def test_a_subclass_inherits_fields_and_methods_and_may_set_other_defaults():
    @mesh.entity
    class Vip(Cart):
        total = 5.0
        level: int = 1

    spec = spec_of(Vip)
    assert set(spec.methods) == {"add", "reset", "count"}
    assert msgpack.unpackb(spec.default_blob) == {"items": [], "total": 5.0, "level": 1}


def test_a_subclass_of_an_entity_is_none_until_it_is_marked():
    with pytest.raises(SetupError, match="Plain is not an entity"):
        spec_of(type("Plain", (Cart,), {}))


async def coroutine(self): ...


async def async_generator(self):
    yield


def generator(self):
    yield


@pytest.mark.parametrize("function", [coroutine, async_generator, generator])
@pytest.mark.parametrize("mark", [mesh.command, mesh.query])
def test_a_method_that_is_no_plain_function_is_refused_with_a_clear_error(mark, function):
    kind = "a generator" if function is generator else "async"
    with pytest.raises(SetupError, match=f"{function.__name__} is {kind}; entity methods have to"):
        mark(function)


@pytest.mark.parametrize("name", ["timeout", "idempotency_key", "priority", "metadata"])
def test_options_of_call_are_no_parameter_names(name):
    scope: dict[str, Any] = {}
    exec(f"def move(self, {name}): ...", scope)
    with pytest.raises(SetupError, match=f"parameter '{name}' is an option of call"):
        mesh.command(scope["move"])


@pytest.mark.parametrize(
    ("ref", "args", "kwargs"),
    [
        (Cart.add, ["pen", 1.0], {}),
        (Cart.add, ["pen", 1.0, "x", "y"], {"gift": True}),
        (Cart.add, ["pen"], {"price": 1.0}),
        (Cart.reset, [], {"sure": True}),
        (Cart.count, [], {}),
    ],
)
def test_arguments_that_fit_the_signature_are_taken(ref, args, kwargs):
    ref.method.check(args, kwargs)


@pytest.mark.parametrize(
    ("ref", "args", "kwargs", "says"),
    [
        (Cart.add, ["pen"], {}, "missing a required argument: 'price'"),
        (Cart.add, [], {"item": "pen", "price": 1.0}, "item"),
        (Cart.add, ["pen", 1.0], {"colour": 1}, "unexpected keyword argument 'colour'"),
        (Cart.add, ["pen", 1.0], {"price": 1.0}, "multiple values for argument 'price'"),
        (Cart.reset, [], {}, "missing a required argument: 'sure'"),
        (Cart.reset, [True], {}, "too many positional"),
        (Cart.count, [1], {}, "too many positional"),
    ],
)
def test_arguments_that_do_not_fit_are_the_callers_mistake(ref, args, kwargs, says):
    with pytest.raises(BadRequest, match=says) as caught:
        ref.method.check(args, kwargs)
    assert ref.method.function.__qualname__ in caught.value.message


def test_the_registry_always_has_kv_and_finds_methods_by_name():
    registry = Registry([Cart])
    assert registry.find("Cart.add") == (spec_of(Cart), spec_of(Cart).methods["add"])
    assert registry.find("KV.incr")[0] is spec_of(KV)
    assert registry.spec("Nobody") is None


def test_two_entities_of_one_name_are_refused_and_both_are_named():
    twin = mesh.entity(type("Cart", (), {}))
    with pytest.raises(SetupError, match=r"two entities are named 'Cart': .*Cart and .*Cart"):
        Registry([Cart, twin])
    with pytest.raises(SetupError, match="two entities are named 'KV'"):
        Registry([mesh.entity(type("KV", (), {}))])


def test_the_same_class_may_be_listed_twice():
    assert Registry([Cart, Cart, KV]).spec("Cart") is spec_of(Cart)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Basket.add", r"no entity is named 'Basket'; this mesh has \['Cart', 'KV'\]"),
        ("Cart.drop", r"Cart has no method 'drop'; it has \['add', 'count', 'reset'\]"),
        ("Cart", "Cart has no method ''"),
        ("Cart.items", "Cart has no method 'items'"),
        ("Cart.__init__", "Cart has no method"),
    ],
)
def test_an_unknown_method_is_answered_with_what_there_is(name, says):
    with pytest.raises(BadRequest, match=says):
        Registry([Cart]).find(name)
