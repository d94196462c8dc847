"""The entities that a mesh serves, by the names that requests bear."""

from __future__ import annotations

from collections.abc import Iterable

from mesh.builtin import BUILT_IN
from mesh.codec import pack
from mesh.errors import BadRequest, SetupError
from mesh.kv import KV
from mesh.methods import Method
from mesh.specs import EntitySpec, spec_of

_FIXSTR_END = 0xC0


class Registry:
    """The entities that a mesh serves, by name. Two of one name are refused."""

    def __init__(self, classes: Iterable[type]) -> None:
        self._specs: dict[str, EntitySpec] = {}
        self._methods: dict[str, tuple[EntitySpec, Method]] = {}
        self._packed: dict[bytes, tuple[EntitySpec, Method]] = {}
        for cls in dict.fromkeys((KV, *classes)):
            spec = spec_of(cls)
            other = self._specs.get(spec.name)
            if other is not None:
                raise SetupError(
                    f"two entities are named {spec.name!r}: {_path(other.cls)} and {_path(cls)}"
                )
            self._specs[spec.name] = spec
            spec.codec.resolve()
            # What every entity has is in no list of its methods: it has other ways to be called.
            for method_name, method in (*spec.methods.items(), *BUILT_IN.items()):
                name = f"{spec.name}.{method_name}"
                self._methods[name] = self._packed[pack(name)] = (spec, method)

    @property
    def specs(self) -> list[EntitySpec]:
        """All entities."""
        return list(self._specs.values())

    def spec(self, name: str) -> EntitySpec | None:
        """The entity of that name, if the mesh serves it."""
        return self._specs.get(name)

    def find(self, name: str) -> tuple[EntitySpec, Method]:
        """The method of that name.

        Raises:
            BadRequest: there is none; the message lists what there is.
        """
        found = self._methods.get(name)
        if found is not None:
            return found
        entity_name, _, method = name.partition(".")
        spec = self._specs.get(entity_name)
        if spec is None:
            raise BadRequest(
                f"no entity is named {entity_name!r:.80}; this mesh has {sorted(self._specs)}"
            )
        raise BadRequest(
            f"{entity_name} has no method {method!r:.80}; it has {sorted(spec.methods)}"
        )

    def at_front(self, payload: bytes) -> tuple[EntitySpec, Method] | None:
        """The method whose packed name is the first element of that list; None if that is not so."""
        if len(payload) < 3:
            return None
        # A string of up to 31 bytes has its length in its first byte, one of up to 255 in its second.
        size = payload[1]
        end = size - 0x9E if size < _FIXSTR_END else 3 + payload[2]
        return self._packed.get(payload[1:end])


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
