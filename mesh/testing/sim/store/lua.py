"""Running function libraries: Lua 5.1, as in the real server, with what the server puts into it.

One Lua runtime serves the whole process. A library's source is compiled once (0.5 ms for raymesh's); a
node that starts runs the compiled chunk anew, which takes some microseconds and gives it fresh local
variables: what a library keeps between calls (its own run id) lasts exactly as long as a server process
does. Strings are bytes on both sides.

Which node a call concerns is a variable for the length of that call: a function is atomic, and a node
that nobody refers to any more is not held by the runtime.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol, TypeAlias

import msgpack
from lupa import lua51  # type: ignore[import-untyped]

from mesh.testing.sim.store.prelude import PRELUDE
from mesh.testing.sim.store.replies import Encoded, Fault, Reply, Status

LuaValue: TypeAlias = Any
"""bytes, int, float, bool, None, or a table or function of Lua's."""

_BYTES = {bytes}
_MOST_ARGUMENTS = 200
"""Of one call into Lua, whose stack is finite."""


class Caller(Protocol):
    """A node, while one of its functions runs."""

    def command_from_function(self, args: tuple[bytes, ...]) -> Reply:
        """Carry out one redis.call.

        Raises:
            Fault: it is refused.
        """
        ...


class Function:
    """A function of a library, in one node."""

    __slots__ = ("callback", "flags", "name")

    def __init__(self, name: bytes, callback: LuaValue, flags: Sequence[bytes]) -> None:
        self.name = name
        self.callback = callback
        self.flags = frozenset(flags)


class _Runtime:
    """Lua, the compiled chunks, and whose call is under way."""

    def __init__(self) -> None:
        self._lua = lua51.LuaRuntime(encoding=None, unpack_returned_tuples=True)
        self.table: Callable[..., LuaValue] = self._lua.table_from
        self._table_of: Callable[..., LuaValue] = self._lua.eval(b"function(...) return {...} end")
        self._caller: Caller | None = None
        self._loading: dict[bytes, Function] | None = None
        self._bug: BaseException | None = None
        self._chunks: dict[bytes, LuaValue] = {}
        shims = (
            *(self._call, self._pcall, self._register, _why),
            *(self._unpack, _pack, _pack_struct, _unpack_struct),
        )
        prelude = self._lua.eval(b"loadstring")(PRELUDE, b"@prelude")
        self._run, self._run_few, self._load, self._compile = prelude(*shims)

    def load(self, source: bytes) -> dict[bytes, Function]:
        """The functions of a library, as one node has them.

        Raises:
            Fault: it does not compile, or not load.
        """
        chunk = self._chunks.get(source)
        if chunk is None:
            # The first line, which names the library, stays as an empty one: errors name lines.
            _, newline, body = source.partition(b"\n")
            compiled = self._compile(newline + body, b"@user_function")
            if isinstance(compiled, tuple):
                raise Fault(f"ERR Error compiling function: {compiled[1].decode()}")
            chunk = self._chunks[source] = compiled
        functions: dict[bytes, Function] = {}
        self._loading = functions
        try:
            problem = self._load(chunk)
        finally:
            self._loading = None
        self._raise_bug()
        if problem:
            raise Fault(f"ERR Error registering functions: {problem.decode()}")
        if not functions:
            raise Fault("ERR No functions registered")
        return functions

    def call(
        self, caller: Caller, function: Function, keys: list[bytes], args: list[bytes]
    ) -> Encoded:
        """One FCALL; what it writes it writes by `command_from_function`."""
        filled, name, callback = self._filled, function.name, function.callback
        self._caller = caller
        try:
            if len(keys) + len(args) <= _MOST_ARGUMENTS:
                reply = self._run_few(name, callback, len(keys), *keys, *args)
            else:
                reply = self._run(name, callback, filled(keys), filled(args))
        finally:
            self._caller = None
        self._raise_bug()
        return Encoded(reply)

    def _raise_bug(self) -> None:
        """An exception of this model's own is no business of Lua's, which would make a reply of it."""
        bug, self._bug = self._bug, None
        if bug is not None:
            raise bug

    def _call(self, *args: LuaValue) -> LuaValue:
        try:
            return self._answered(args)
        except Fault:
            raise  # what it is, `explained` asks `_why`
        except BaseException as bug:
            self._bug = bug
            raise

    def _pcall(self, *args: LuaValue) -> LuaValue:
        try:
            return self._answered(args)
        except Fault as fault:
            return self.table({b"err": _why(fault)})
        except BaseException as bug:
            self._bug = bug
            raise

    def _answered(self, args: tuple[LuaValue, ...]) -> LuaValue:
        if self._caller is None:
            raise Fault("ERR redis.call can only be called inside a script invocation")
        if {*map(type, args)} != _BYTES:
            args = tuple([arg if type(arg) is bytes else _text(arg) for arg in args])
        reply = self._caller.command_from_function(args)
        kind = type(reply)
        if kind is list:
            return self._listed(reply)  # type: ignore[arg-type]
        if kind is Status:
            return self.table({b"ok": bytes(reply)})  # type: ignore[arg-type]
        return False if reply is None else reply

    def _listed(self, items: list[Reply]) -> LuaValue:
        return self._filled(
            [
                False if item is None else self._listed(item) if type(item) is list else item
                for item in items
            ]
        )

    def _filled(self, items: list[LuaValue]) -> LuaValue:
        """A table of these. Lua's own constructor takes a third of the time of lupa's `table_from`, but
        leaves the length of a table with holes to chance.
        """
        if len(items) <= _MOST_ARGUMENTS and None not in items:
            return self._table_of(*items)
        return self.table(items)

    def _register(self, name: bytes, callback: LuaValue, *flags: bytes) -> None:
        assert self._loading is not None
        self._loading[name] = Function(name, callback, flags)

    def _unpack(self, blob: bytes) -> LuaValue:
        try:
            # The server's msgpack is older than the types for bytes and extensions.
            return msgpack.unpackb(
                blob,
                raw=True,
                strict_map_key=False,
                max_bin_len=0,
                max_ext_len=0,
                list_hook=self._filled,
                object_hook=self.table,
            )
        except ValueError as error:
            raise ValueError("Bad data format in input.") from error


@cache
def runtime() -> _Runtime:
    """The process's one Lua runtime, made when it is first needed."""
    return _Runtime()


def _why(problem: object) -> bytes | None:
    """The text of an error reply; None: it is none."""
    if isinstance(problem, Fault):
        return str(problem).encode(errors="surrogateescape")
    return None


def _text(argument: LuaValue) -> bytes:
    """A number as the server writes it into a command."""
    match argument:
        case bool():
            raise Fault("ERR Lua redis lib command arguments must be strings or integers")
        case int():
            return b"%d" % argument
        case float():
            return f"{argument:.17g}".encode()
    raise Fault("ERR Lua redis lib command arguments must be strings or integers")


def _pack(value: LuaValue) -> bytes:
    """cmsgpack.pack: strings as the older "raw" that has no marker for text or bytes."""
    match value:
        case bytes():
            return _head(len(value), 0xA0, 31, (0xD9, 0xDA, 0xDB)) + value
        case bool() | None | int():
            packed: bytes = msgpack.packb(value)
            return packed
        case float():
            single = struct.unpack(">f", struct.pack(">f", value))[0] == value
            return struct.pack(">Bf", 0xCA, value) if single else struct.pack(">Bd", 0xCB, value)
    items = dict(value.items())
    if all(type(key) is int and 1 <= key <= len(items) for key in items):
        body = b"".join(_pack(items[i]) for i in range(1, len(items) + 1))
        return _head(len(items), 0x90, 15, (None, 0xDC, 0xDD)) + body
    body = b"".join(_pack(key) + _pack(item) for key, item in items.items())
    return _head(len(items), 0x80, 15, (None, 0xDE, 0xDF)) + body


def _head(length: int, short: int, most: int, longer: tuple[int | None, int, int]) -> bytes:
    if length <= most:
        return bytes((short | length,))
    if length <= 0xFF and longer[0] is not None:
        return bytes((longer[0], length))
    if length <= 0xFFFF:
        return struct.pack(">BH", longer[1], length)
    return struct.pack(">BI", longer[2], length)


_SIZES = {1: "b", 2: "h", 4: "i", 8: "q"}


@cache
def _struct(pattern: bytes) -> struct.Struct:
    """Python's name for a format of Lua's: iN and IN are integers of N bytes."""
    order, out, at = "<", [], 0
    while at < len(pattern):
        letter = chr(pattern[at])
        at += 1
        if letter in "<>":
            order = letter
        elif letter in "iI":
            digits = ""
            while at < len(pattern) and chr(pattern[at]).isdigit():
                digits += chr(pattern[at])
                at += 1
            size = _SIZES[int(digits or 4)]
            out.append(size.upper() if letter == "I" else size)
        elif letter in "bBhHdf":
            out.append(letter)
        elif letter in "lLT":
            out.append("q" if letter == "l" else "Q")
        else:
            raise ValueError(f"struct format {pattern!r}: {letter!r} is not modelled")
    return struct.Struct(order + "".join(out))


def _pack_struct(pattern: bytes, *values: LuaValue) -> bytes:
    return _struct(pattern).pack(*values)


def _unpack_struct(pattern: bytes, data: bytes, position: int = 1) -> tuple[LuaValue, ...]:
    layout = _struct(pattern)
    if len(data) - position + 1 < layout.size:
        raise ValueError("data string too short")
    return (*layout.unpack_from(data, position - 1), position + layout.size)
