"""Entity classes that no other process can import: out of a script, a notebook, a function.

They travel by value, as Ray itself carries functions (cloudpickle), once, when a mesh is brought up: from
whoever brings it up to its own processes, never over the mesh's wire or into its store. What @mesh.entity
has found out about a class is not carried but found out anew in the copy.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

from ray import cloudpickle

from mesh.entities import EntitySpec, entity
from mesh.errors import SetupError


def pack(classes: Sequence[type]) -> bytes:
    """Classes as bytes, together with what they use of their own modules.

    Raises:
        SetupError: one of them uses what cannot be carried.
    """
    # Modules that are installed are installed there, too; whatever else they are found in may not be.
    modules = {cls.__module__.partition(".")[0] for cls in classes} - {"__main__"}
    by_value = [sys.modules[name] for name in modules if name in sys.modules]
    with _ByValue(by_value):
        packed = []
        for cls in classes:
            try:
                packed.append(_dumps(cls))
            except Exception as error:
                # Whatever a user's globals raise when they are pickled.
                raise SetupError(
                    f"entity {cls.__qualname__} of {cls.__module__} cannot be carried to other "
                    f"processes: {type(error).__name__}: {error}. It uses something of its module "
                    f"that belongs to this process (a lock, a connection, an open file); move the "
                    f'class into a module that can be imported, and name it with app="module:Class"'
                ) from error
        return _dumps(tuple(classes)) if packed else b""


def unpack(blob: bytes) -> tuple[type, ...]:
    """The classes of those bytes.

    Raises:
        SetupError: they use a module that this process cannot import.
    """
    if not blob:
        return ()
    try:
        classes: tuple[type, ...] = cloudpickle.loads(blob)
    except ImportError as error:
        raise SetupError(f"the entities cannot be brought to life here: {error}") from error
    for mark in _marks:
        mark.apply()
    _marks.clear()
    return classes


class _Mark:
    """In the place of a spec: what it takes to make it anew, once its class is whole."""

    def __init__(self, cls: type, options: dict[str, Any]) -> None:
        self._cls = cls
        self._options = options
        _marks.append(self)

    def apply(self) -> None:
        entity(**self._options)(self._cls)


_marks: list[_Mark] = []


class _Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, EntitySpec):
            return _Mark, (obj.cls, obj.options())
        return super().reducer_override(obj)


def _dumps(value: object) -> bytes:
    file = io.BytesIO()
    _Pickler(file).dump(value)
    return file.getvalue()


class _ByValue:
    """As long as it is entered, what these modules define is pickled, and not only its name."""

    def __init__(self, modules: Iterable[ModuleType]) -> None:
        self._modules = [m for m in modules if m.__name__ not in ("mesh", "actors")]

    def __enter__(self) -> None:
        for module in self._modules:
            cloudpickle.register_pickle_by_value(module)

    def __exit__(self, *_: object) -> None:
        for module in self._modules:
            cloudpickle.unregister_pickle_by_value(module)
