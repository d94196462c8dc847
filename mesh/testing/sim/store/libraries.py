"""A node's function libraries: their sources are data, their functions are made anew at each start."""

from __future__ import annotations

from collections.abc import Sequence

from mesh.testing.sim.store.dataset import Dataset
from mesh.testing.sim.store.globs import is_match
from mesh.testing.sim.store.lua import Function, runtime
from mesh.testing.sim.store.replies import OK, SYNTAX, Fault, Reply, Status, shown


class Libraries:
    """The libraries of one start of a node."""

    def __init__(self, data: Dataset) -> None:
        self._sources = data.libraries
        self._functions: dict[bytes, dict[bytes, Function]] = {
            name: runtime().load(source) for name, source in self._sources.items()
        }

    def function(self, name: bytes) -> Function | None:
        """A function, by its own name."""
        for functions in self._functions.values():
            if name in functions:
                return functions[name]
        return None

    def change(self, args: Sequence[bytes]) -> Reply:
        """FUNCTION LOAD, DELETE and FLUSH, without the first word: a client's, or replayed.

        Raises:
            Fault: it cannot be done; nothing has changed.
        """
        match [args[0].upper(), *args[1:]]:
            case [b"LOAD", source]:
                return self._load(source, replace=False)
            case [b"LOAD", option, source] if option.upper() == b"REPLACE":
                return self._load(source, replace=True)
            case [b"DELETE", name]:
                if self._sources.pop(name, None) is None:
                    raise Fault("ERR Library not found")
                del self._functions[name]
                return OK
            case [b"FLUSH", *_]:
                self._sources.clear()
                self._functions.clear()
                return OK
        raise Fault(SYNTAX)

    def _load(self, source: bytes, *, replace: bool) -> Reply:
        name = _name(source)
        if name in self._sources and not replace:
            raise Fault(f"ERR Library '{shown(name)}' already exists")
        functions = runtime().load(source)
        for function in functions:
            if any(function in known for other, known in self._functions.items() if other != name):
                raise Fault(f"ERR Function {shown(function)} already exists")
        self._sources[name] = source
        self._functions[name] = functions
        return name

    def listed(self, pattern: bytes, *, with_code: bool) -> Reply:
        """FUNCTION LIST."""
        listed: list[Reply] = []
        for name, functions in self._functions.items():
            if not is_match(pattern, name):
                continue
            described: list[Reply] = [
                [
                    b"name",
                    function.name,
                    b"description",
                    None,
                    b"flags",
                    [Status(flag) for flag in sorted(function.flags)],
                ]
                for function in functions.values()
            ]
            fields: list[Reply] = [b"library_name", name, b"engine", b"LUA"]
            fields += [b"functions", described]
            listed.append([*fields, b"library_code", self._sources[name]] if with_code else fields)
        return listed


def _name(source: bytes) -> bytes:
    head, _, _ = source.partition(b"\n")
    words = head.split()
    if not words or not words[0].startswith(b"#!"):
        raise Fault("ERR Missing library metadata")
    if words[0].lower() != b"#!lua":
        raise Fault(f"ERR Engine '{shown(words[0][2:])}' not found")
    for word in words[1:]:
        if word.startswith(b"name="):
            return word.removeprefix(b"name=")
    raise Fault("ERR Library name was not given")
