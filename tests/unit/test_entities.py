"""What a class has to be to be an entity, and how its state is kept."""

import dataclasses
from datetime import timedelta
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


async def async_generator(self):
    yield


def generator(self):
    yield


@pytest.mark.parametrize("function", [async_generator, generator])
@pytest.mark.parametrize("mark", [mesh.command, mesh.query])
def test_a_generator_is_refused_with_a_clear_error(mark, function):
    with pytest.raises(SetupError, match=f"{function.__name__} is a generator; a method has to"):
        mark(function)


@pytest.mark.parametrize("target", [3, len, staticmethod(len), type("T", (), {}), None.__class__])
def test_only_functions_are_methods(target):
    with pytest.raises(SetupError, match="has to be a function of the class"):
        mesh.command(target)


def test_a_method_has_to_take_self():
    def bare(): ...
    def named(*, amount): ...

    for function in (bare, named):
        with pytest.raises(SetupError, match="has to take self"):
            mesh.query(function)


@pytest.mark.parametrize("mark", [mesh.command, mesh.query])
def test_options_of_a_method_are_kept_with_and_without_parentheses(mark):
    def read(self, line: int) -> str: ...

    async def later(self): ...

    for method in (mark(read), mark()(read)):
        assert (method.blocking, method.limit_s, method.is_async) == (False, None, False)
        assert method.query is (mark is mesh.query) and method.function is read
    method = mark(blocking=True, limit_s=5)(read)
    assert (method.blocking, method.limit_s) == (True, 5.0)
    assert str(method.signature) == "(line: int) -> str"
    assert mark(limit_s=0.5)(later).is_async


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"blocking": 1}, "blocking is True or False, not 1"),
        ({"limit_s": 0}, "limit_s is seconds above 0, not 0"),
        ({"limit_s": float("inf")}, "limit_s is seconds above 0, not inf"),
        ({"limit_s": float("nan")}, "limit_s is seconds above 0, not nan"),
        ({"limit_s": True}, "limit_s is seconds above 0, not True"),
        ({"limit_s": "5"}, "limit_s is seconds above 0, not '5'"),
    ],
)
def test_options_of_a_method_that_make_no_sense_are_refused(options, says):
    def read(self): ...

    with pytest.raises(SetupError, match=f"read: {says}"):
        mesh.command(**options)(read)


def test_a_method_is_not_both_async_and_blocking():
    async def read(self): ...

    with pytest.raises(SetupError, match="is async and blocking"):
        mesh.query(blocking=True)(read)


def test_options_of_an_entity_have_defaults():
    spec = spec_of(Cart)
    assert (spec.version, spec.ttl_s, spec.priority) == (1, None, None)
    assert spec.durability == "replicated"


@pytest.mark.parametrize("ttl", [90, 90.0, timedelta(minutes=1, seconds=30)])
def test_options_of_an_entity_are_kept(ttl):
    @mesh.entity(name="Bag", version=3, ttl=ttl, durability="fsynced", priority=7)
    class Sack: ...

    spec = spec_of(Sack)
    assert (spec.name, spec.version, spec.durability, spec.priority) == ("Bag", 3, "fsynced", 7)
    assert spec.ttl_s == 90.0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"version": 0}, "version is a whole number from 1 on, not 0"),
        ({"version": True}, "version is a whole number from 1 on, not True"),
        ({"version": "2"}, "version is a whole number from 1 on, not '2'"),
        ({"ttl": 0}, "ttl is seconds above 0 or a timedelta, not 0"),
        ({"ttl": timedelta(0)}, "ttl is seconds above 0 or a timedelta, not datetime"),
        ({"ttl": float("inf")}, "ttl is seconds above 0 or a timedelta, not inf"),
        ({"ttl": "1h"}, "ttl is seconds above 0 or a timedelta, not '1h'"),
        ({"durability": "fast"}, r"durability is one of \['replicated', 'fsynced', 'async'\], not"),
        ({"priority": 256}, "priority is a whole number from 0 to 255, not 256"),
        ({"priority": -1}, "priority is a whole number from 0 to 255, not -1"),
        ({"priority": 1.5}, "priority is a whole number from 0 to 255, not 1.5"),
    ],
)
def test_options_of_an_entity_that_make_no_sense_are_refused(options, says):
    with pytest.raises(SetupError, match=says):
        mesh.entity(**options)(type("E", (), {}))


def test_an_entity_is_a_class_that_keeps_its_state_in_a_dict():
    with pytest.raises(SetupError, match="is for classes"):
        mesh.entity(lambda: None)
    with pytest.raises(SetupError, match="has __slots__"):
        entity(__slots__=())


def test_an_entity_can_be_made_with_its_fields_as_a_dataclass_is():
    cart = Cart(["pen"], total=2.0)
    assert (cart.items, cart.total) == (["pen"], 2.0)
    Cart().items.append("pen")
    assert Cart().items == []
    for wrong, says in (
        (lambda: Cart([], 1.0, 2), "has 2 fields, 3 values"),
        (lambda: Cart([], items=[]), "'items' is given twice"),
        (lambda: Cart(colour=1), r"'colour' is no field; the fields are \['items', 'total'\]"),
    ):
        with pytest.raises(TypeError, match=says):
            wrong()


def test_an_init_that_the_user_wrote_stays():
    class Own:
        n: int = 0

        def __init__(self, n):
            self.n = n + 1

    assert mesh.entity(Own)(1).n == 2


def test_dataclass_fields_are_fields_with_their_factories():
    @dataclasses.dataclass
    class Base:
        tags: list[str] = dataclasses.field(default_factory=list)
        size: int = dataclasses.field(default=3)

    @mesh.entity
    class Box(Base):
        lid: bool = False
        marks: set[int] = dataclasses.field(default_factory=set)

    spec = spec_of(Box)
    one, other = spec.new(), spec.new()
    one.tags.append("x")
    one.marks.add(1)
    assert vars(other) == {"tags": [], "size": 3, "lid": False, "marks": set()}
    again, _ = spec.decode(spec.encode(one, {}))
    assert vars(again) == {"tags": ["x"], "size": 3, "lid": False, "marks": {1}}


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
