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

from mesh.testing.sim.store.replies import Encoded, Fault, Reply, Status

LuaValue: TypeAlias = Any
"""bytes, int, float, bool, None, or a table or function of Lua's."""

_PRELUDE = rb"""
local call, pcall_, register, why, unpack_blob, pack_blob, pack_struct, unpack_struct = ...
local error, ipairs, pairs, setmetatable, tostring, type, xpcall =
  error, ipairs, pairs, setmetatable, tostring, type, xpcall
local getinfo, rawset, select = debug.getinfo, rawset, select
local string, table, unpack = string, table, unpack
local compile, globals, setfenv = loadstring, _G, setfenv
redis = { LOG_DEBUG = 0, LOG_VERBOSE = 1, LOG_NOTICE = 2, LOG_WARNING = 3 }
redis.call, redis.pcall = call, pcall_ -- no Lua in between: a tail call would lose the caller's line

function redis.status_reply(text) return { ok = text } end

function redis.error_reply(text)
  text = string.gsub(text, '^%-', '')
  if not string.find(text, ' ', 1, true) then text = 'ERR ' .. text end
  return { err = text }
end

function redis.log() end
function redis.setresp() end

local loading = { REDIS_VERSION = '7.2.4', log = redis.log } -- all there is while a library is loaded
for name, value in pairs(redis) do
  if string.find(name, '^LOG_') then loading[name] = value end
end

function loading.register_function(named, callback)
  if type(named) == 'table' then
    register(named.function_name, named.callback, unpack(named.flags or {}))
  else
    register(named, callback)
  end
end

local byte, sub, BEYOND = string.byte, string.sub, 2 ^ 40

-- The value at that place of a blob, and the place behind it; BEYOND: it is of a rarer kind, or cut off.
local function decoded(blob, at)
  local tag = byte(blob, at)
  if not tag then return nil, BEYOND end
  if tag < 0x80 then return tag, at + 1 end
  local count, kind = nil, tag
  if tag < 0x90 then return nil, BEYOND end
  if tag < 0xa0 then
    count, kind, at = tag - 0x90, 0xdc, at + 1
  elseif tag < 0xc0 then
    count, kind, at = tag - 0xa0, 0xda, at + 1
  elseif tag == 0xcc or tag == 0xd9 then
    count, kind, at = byte(blob, at + 1), tag + 1, at + 2
  elseif tag == 0xcd or tag == 0xda or tag == 0xdc then
    local high, low = byte(blob, at + 1, at + 2)
    count, at = low and high * 256 + low, at + 3
  elseif tag == 0xce then
    local a, b, c, d = byte(blob, at + 1, at + 4)
    return d and ((a * 256 + b) * 256 + c) * 256 + d, d and at + 5 or BEYOND
  elseif tag == 0xc0 then return nil, at + 1
  elseif tag == 0xc2 then return false, at + 1
  elseif tag == 0xc3 then return true, at + 1
  end
  if not count then return nil, BEYOND end
  if kind == 0xcd then return count, at end
  if kind == 0xda then return sub(blob, at, at + count - 1), at + count end
  local list = {}
  for i = 1, count do
    list[i], at = decoded(blob, at)
  end
  return list, at
end

cmsgpack = { pack = pack_blob }

-- Here what a mesh sends, which takes a third of the time of a way through Python and back; there the rest.
function cmsgpack.unpack(blob)
  if type(blob) == 'string' then
    local value, behind = decoded(blob, 1)
    if behind == #blob + 1 then return value end
  end
  local value = unpack_blob(blob)
  return value
end

struct = { pack = pack_struct }

function struct.unpack(format, data, ...)
  local size = format == '>I4I4' and 4 or format == '>I2I2' and 2
  if not size or select('#', ...) > 0 or #data < 2 * size then
    return unpack_struct(format, data, ...)
  end
  local a, b, c, d, e, f, g, h = byte(data, 1, 2 * size)
  if size == 2 then return a * 256 + b, c * 256 + d, 5 end
  return ((a * 256 + b) * 256 + c) * 256 + d, ((e * 256 + f) * 256 + g) * 256 + h, 9
end

local function encoded(value)
  local kind = type(value)
  if kind == 'string' then return '$' .. #value .. '\r\n' .. value .. '\r\n' end
  if kind == 'number' then return string.format(':%d\r\n', value) end
  if kind == 'table' then
    if value.err then return '-' .. string.gsub(value.err, '[\r\n]', ' ') .. '\r\n' end
    if value.ok then return '+' .. string.gsub(value.ok, '[\r\n]', ' ') .. '\r\n' end
    local pieces, count = { '' }, 0
    while value[count + 1] ~= nil do
      count = count + 1
      pieces[count + 1] = encoded(value[count])
    end
    pieces[1] = '*' .. count .. '\r\n'
    return table.concat(pieces)
  end
  return value == true and ':1\r\n' or '$-1\r\n'
end

local function explained(problem)
  local level, where = 2, nil
  repeat
    where = getinfo(level, 'Sl')
    level = level + 1
  until not where or where.source == '@user_function'
  if type(problem) ~= 'table' then
    problem = { err = why(problem) or 'ERR ' .. tostring(problem) }
  end
  if where then problem.source, problem.line = where.source, where.currentline end
  return problem
end

local function run(name, callback, keys, args)
  local fine, reply = xpcall(function() return callback(keys, args) end, explained)
  if fine then return encoded(reply) end
  local text = string.gsub(tostring(reply.err), '[\r\n]', ' ') .. ' script: ' .. name
  if reply.line then text = text .. ', on ' .. reply.source .. ':' .. reply.line .. '.' end
  return '-' .. text .. '\r\n'
end

local function run_few(name, callback, count, ...)
  local keys, args = { ... }, {}
  for i = count + 1, select('#', ...) do
    args[i - count], keys[i] = keys[i], nil
  end
  return run(name, callback, keys, args)
end

local protected = {
  __index = function(_, name)
    local said = "Script attempted to access nonexistent global variable '" .. tostring(name) .. "'"
    error(said, 2)
  end,
  __newindex = function() error('Attempt to modify a readonly table', 2) end,
}
setmetatable(loading, protected)

local api = {} -- what functions may use; the rest of Lua is nobody's
local names = 'redis string table math type pairs ipairs next tostring tonumber setmetatable '
  .. 'getmetatable unpack select error assert pcall xpcall rawget rawset rawequal cmsgpack struct '
  .. 'coroutine collectgarbage _VERSION'
for name in string.gmatch(names, '[%a_]+') do
  api[name] = globals[name]
end
local env = setmetatable({}, protected) -- what a library's code sees as its globals

local function compiled(source, name)
  local chunk, problem = compile(source, name)
  if not chunk then return nil, problem end
  return setfenv(chunk, env)
end

local function load(chunk)
  for name in pairs(api) do
    rawset(env, name, nil)
  end
  rawset(env, 'redis', loading)
  local fine, problem = xpcall(chunk, explained)
  for name, value in pairs(api) do
    rawset(env, name, value)
  end
  return not fine and tostring(problem.err) or nil
end

return run, run_few, load, compiled
"""


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
        prelude = self._lua.eval(b"loadstring")(_PRELUDE, b"@prelude")
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
