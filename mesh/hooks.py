"""What an entity class has beside its methods: `on_start`, `on_stop` and health checks.

They belong to the class, not to a key: each takes the class and `resources`, a dict that this entity has in
each handler process. What a method needs and must not build for every call (a pool, a model) is put
there by on_start, and reached by `mesh.context().resources`. Plain functions will do, classmethods too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

from mesh.errors import SetupError

F = TypeVar("F")
Hook = Callable[[dict[str, Any]], Any]
"""Takes the resources; what it returns is to be awaited where it is awaitable."""

_MARK = "__mesh_health__"


class Check(NamedTuple):
    """A health check: its name, "Entity.check"; what to call; whether that is async."""

    name: str
    hook: Hook
    is_async: bool


class Hooks(NamedTuple):
    """Those of one entity."""

    on_start: Hook | None
    on_stop: Hook | None
    checks: tuple[Check, ...]


def health(function: F) -> F:
    """Mark a health check: `(cls, resources)`, sync or async; it fails if it raises or returns False.

    Each handler calls it every second. While it fails, `mesh status` shows why.

    Args:
        function: of the entity class; a classmethod will do.

    Raises:
        SetupError: it is no function.
    """
    inner: Any = function.__func__ if isinstance(function, classmethod) else function
    if not inspect.isfunction(inner):
        raise SetupError(f"a health check is a function of the class, not {function!r:.80}")
    setattr(inner, _MARK, True)
    return function


def hooks_of(cls: type, entity: str) -> Hooks:
    """Find them in a class and its bases.

    Raises:
        SetupError: one of them is no function of (cls, resources).
    """
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            function = value.__func__ if isinstance(value, classmethod) else value
            if name in ("on_start", "on_stop") or getattr(function, _MARK, False):
                found[name] = function
            else:
                found.pop(name, None)
    hooks = {name: _bound(cls, entity, name, function) for name, function in found.items()}
    return Hooks(
        hooks.pop("on_start", None),
        hooks.pop("on_stop", None),
        tuple(
            Check(f"{entity}.{name}", hook, inspect.iscoroutinefunction(found[name]))
            for name, hook in hooks.items()
        ),
    )


def _bound(cls: type, entity: str, name: str, function: Any) -> Hook:
    if not inspect.isfunction(function):
        raise SetupError(
            f"{entity}.{name} is what a handler calls at its start or end, a function of (cls, resources), "
            f"not {function!r:.80}; name it otherwise"
        )
    try:
        inspect.signature(function).bind(None, None)
    except TypeError as error:
        raise SetupError(f"{entity}.{name} is called with (cls, resources): {error}") from None
    return partial(function, cls)
