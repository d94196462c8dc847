"""One key of one entity as an object, for either client: its methods return what `client.call` returns."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from mesh.entities import EntitySpec, MethodRef


class Entity:
    """One key of one entity; its methods are the entity's commands and queries.

    Args:
        call: of the client that it belongs to.
        spec: the entity's.
        key: str or bytes.
        timeout: seconds for each call.
    """

    def __init__(
        self, call: Callable[..., Any], spec: EntitySpec, key: str | bytes, timeout: float
    ) -> None:
        self._call = call
        self._spec = spec
        self._key = key
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<{self._spec.name} {self._key!r}>"

    def with_options(self, *, timeout: float) -> Entity:
        """The same key, with other options for its calls."""
        return Entity(self._call, self._spec, self._key, timeout)

    def __getattr__(self, name: str) -> Any:
        method = self._spec.methods.get(name)
        if method is None:
            raise AttributeError(
                f"{self._spec.name} has no method {name!r}; it has {sorted(self._spec.methods)}"
            )
        ref: MethodRef[..., Any] = MethodRef(self._spec.cls, method)
        return partial(self._call, ref, self._key, timeout=self._timeout)
