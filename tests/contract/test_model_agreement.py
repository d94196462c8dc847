"""The simulator's model of a server and a real one give the same replies, byte for byte, errors included."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack

import pytest

from mesh.ids import new_nonce
from mesh.store.refusal import ServerError
from mesh.store.resp import Connection, connect, pack

SOURCE = b"""#!lua name=%b
local function echo(keys, args)
  return { #keys, keys[1] or false, args[1] or false, true, false, 'behind the end' }
end
local function run(keys, args) return redis.call(unpack(args)) end
local function attempt(keys, args)
  local reply = redis.pcall(unpack(args))
  if type(reply) == 'table' and reply.err then return { 'failed', reply.err } end
  return { 'fine', reply }
end
local function numbers(keys, args)
  return { 1.9, -1.9, 2^31, redis.call('HINCRBY', keys[1], 'n', 3), redis.status_reply('GOOD') }
end
local function fails(keys, args) return nil .. 'x' end
local function refuses(keys, args) return redis.error_reply(args[1]) end
local function raises(keys, args) error({ err = 'MINE and mine' }) end
local function packed(keys, args)
  local plain = cmsgpack.unpack(args[1])
  return { cmsgpack.pack(plain), cmsgpack.pack({ 1, -1, 200, 70000, 1.5, 'a', { a = 'b' }, {}, true }) }
end
local function long(keys, args)
  return cmsgpack.pack({ string.rep('a', 31), string.rep('b', 32), string.rep('c', 256), 2^40, -2^40 })
end
local function bytes(keys, args)
  local high, low, at = struct.unpack('>I4I4', args[1])
  return { tostring(high), tostring(low), at, struct.pack('>I2I2', 1, 65535) }
end
redis.register_function('%b_run', run)
redis.register_function('%b_attempt', attempt)
redis.register_function('%b_numbers', numbers)
redis.register_function('%b_raises', raises)
redis.register_function('%b_refuses', refuses)
redis.register_function('%b_long', long)
redis.register_function('%b_fails', fails)
redis.register_function{ function_name = '%b_echo', callback = echo, flags = { 'no-writes' } }
redis.register_function{ function_name = '%b_read', callback = run, flags = { 'no-writes' } }
redis.register_function{ function_name = '%b_packed', callback = packed, flags = { 'no-writes' } }
redis.register_function{ function_name = '%b_bytes', callback = bytes, flags = { 'no-writes' } }
"""


class Pair:
    """The same commands to both."""

    def __init__(self, real: Connection, model: Connection, name: bytes) -> None:
        self.real, self.model = real, model
        self.name = name

    async def ask(self, *args: bytes | str | int) -> object:
        command = pack(*args)
        replies = [
            (await connection.execute(command, within_s=10.0))[0]
            for connection in (self.real, self.model)
        ]
        real, model = (sorted_reply(args, plain(reply)) for reply in replies)
        assert model == real, args
        return real


def plain(reply: object) -> object:
    """Errors compare by their text."""
    if isinstance(reply, list):
        return [plain(item) for item in reply]
    return f"error: {reply}" if isinstance(reply, ServerError) else reply


def sorted_reply(args: Sequence[bytes | str | int], reply: object) -> object:
    """The order of keys, and of fields in a large hash, is the server's own business."""
    return sorted(map(repr, leaves(reply))) if {b"KEYS", b"HSCAN"} & {*args} else reply


def leaves(reply: object) -> Iterator[object]:
    if isinstance(reply, list):
        for item in reply:
            yield from leaves(item)
    else:
        yield reply


@pytest.fixture
async def connected(
    on_server, on_model
) -> AsyncIterator[Callable[[str], Awaitable[list[Connection]]]]:
    """Connections to a real node of that role, and to one of the model."""
    async with AsyncExitStack() as stack:

        async def connections(role: str) -> list[Connection]:
            real = next(n for n in await on_server.embedded.nodes() if n.role == role)
            model = next(n for n in on_model.nodes if n.is_primary == (role == "primary"))
            made = []
            for mesh, node in ((on_server, real), (on_model, model)):
                password = mesh.address.password
                made.append(await connect(node.host, node.port, password=password, within_s=5.0))
                stack.push_async_callback(made[-1].close)
            return made

        yield connections


@pytest.fixture
async def pair(connected) -> AsyncIterator[Pair]:
    name = b"d" + new_nonce().hex().encode()
    pair = Pair(*await connected("primary"), name)
    await pair.ask("FUNCTION", "LOAD", SOURCE.replace(b"%b", name))
    await pair.ask("ACL", "SETUSER", "default", b">" + name)  # a login that is the same in both
    yield pair
    await pair.ask("ACL", "SETUSER", "default", b"<" + name)
    await pair.ask("FUNCTION", "DELETE", name)


class Script:
    """Commands on few keys and fields: right ones, wrong types, wrong numbers of arguments, nonsense."""

    def __init__(self, dice: random.Random, prefix: bytes) -> None:
        self.dice = dice
        self.prefix = prefix

    def key(self) -> bytes:
        return self.prefix + self.dice.choice([b":a", b":b", b":c"])

    def field(self) -> bytes:
        return self.dice.choice([b"f", b"g", b"\x00\xff\r\n", b"7", b""])

    def value(self) -> bytes:
        return self.dice.choice(
            [b"", b"1", b"-5", b"007", b"text", b"\xff\x00", b"x" * 70, b"9" * 20]
        )

    def command(self) -> list[bytes]:
        key, field, value = self.key(), self.field(), self.value()
        commands = [
            [b"GET", key],
            [b"SET", key, value],
            [b"INCR", key],
            [b"DEL", key, self.key()],
            [b"EXISTS", key, key],
            [b"TYPE", key],
            [b"HSET", key, field, value],
            [b"HSET", key, field, value, self.field(), self.value()],
            [b"HSET", key, field, value, field],
            [b"HGET", key, field],
            [b"HMGET", key, field, self.field(), b"absent"],
            [b"HDEL", key, field, self.field()],
            [b"HLEN", key],
            [b"HEXISTS", key, field],
            [b"HINCRBY", key, field, value],
            [b"HSCAN", key, b"0", b"COUNT", b"100"],
            [b"HSCAN", key, value],
            [b"hget", key, field],
            [b"HGET", key],
            [b"NOSUCH", key, value],
            [b"ECHO", value],
            [b"SELECT", self.dice.choice([b"0", b"0", b"1", b"99", b"x"])],
            [b"WAIT", b"2", b"10000"],
            [b"WAIT", b"x", b"10"],
            [b"WAIT", b"1", b"-1"],
            [b"PING"],
            [b"CLIENT", b"SETNAME", self.dice.choice([b"ok", b"not ok"])],
            [b"CLIENT", b"GETNAME"],
            [b"CONFIG", b"GET", b"min-replicas-to-write"],
            [b"CONFIG", b"SET", b"no-such-setting", b"1"],
            [b"AUTH", b"nobody", b"wrong"],
            [b"KEYS", self.prefix + b":[ab]*"],
        ]
        return self.dice.choice(commands)

    def inner(self) -> list[bytes]:
        """What a function calls; WAIT returns at once there, with as many as happen to have confirmed."""
        command = self.command()
        return command if command[0] != b"WAIT" else self.inner()

    def call(self, name: bytes) -> list[bytes]:
        def function(suffix: bytes, *args: bytes, keys: int = 1) -> list[bytes]:
            named = [self.key() for _ in range(keys)]
            return [b"FCALL", name + suffix, b"%d" % keys, *named, *args]

        read = [b"HGET", self.key(), self.field()]
        return self.dice.choice(
            [
                function(b"_run", *self.inner()),
                function(b"_run", *self.inner()),
                function(b"_attempt", *self.inner()),
                function(b"_read", *self.inner()),
                function(b"_echo", self.value(), keys=self.dice.randrange(3)),
                function(b"_numbers"),
                function(b"_raises"),
                function(b"_fails"),
                function(b"_refuses", self.dice.choice([b"ERR some", b"one", b"-CODE text here"])),
                function(b"_long"),
                function(b"_packed", b"\x94\x01\xc0\xa3abc\x92\x01\x02"),
                function(b"_bytes", b"\x00\x01\x02\x03\xff\xff\xff\xff"),
                [b"FCALL_RO", name + b"_run", b"0", *read],
                [b"FCALL_RO", name + b"_read", b"0", *read],
                [b"FCALL", name + b"_nosuch", b"0"],
                [b"FCALL", name + b"_echo", b"x"],
                [b"FCALL", name + b"_echo", b"-1"],
                [b"FCALL", name + b"_echo", b"5", b"a"],
            ]
        )


@pytest.mark.parametrize("seed", range(6))
async def test_model_and_server_answer_alike(pair, seed):
    dice = random.Random(seed)
    script = Script(dice, b"t:%b" % pair.name)
    for _ in range(700):
        args = script.call(pair.name) if dice.random() < 0.4 else script.command()
        await pair.ask(*args)
    for number in (0, 1):
        await pair.ask("SELECT", number)
        for suffix in (b":a", b":b", b":c"):
            await pair.ask("DEL", script.prefix + suffix)


async def test_libraries_are_refused_and_listed_alike(pair):
    name = pair.name + b"x"
    good = b"#!lua name=%b\nredis.register_function('%b', function() return 1 end)" % (name, name)
    for source in (
        b"return 1",
        b"#!lua\nreturn 1",
        b"#!wasm name=%b\nreturn 1" % name,
        b"#!lua name=%b\nreturn 1" % name,
        b"#!lua name=%b\nthis is no Lua" % name,
        b"#!lua name=%b\nnil_value.x = 1" % name,
        b"#!lua name=%b\nredis.register_function('%b_run', function() end)" % (name, pair.name),
        b"#!lua name=%b\nlocal upper = string.upper" % name,
        b"#!lua name=%b\nlocal call = redis.call" % name,
        b"#!lua name=%b\nx = 1" % name,
        good,
        good,
    ):
        await pair.ask("FUNCTION", "LOAD", source)
    await pair.ask("FUNCTION", "LIST", "LIBRARYNAME", name, "WITHCODE")
    await pair.ask("FUNCTION", "LIST", "LIBRARYNAME", b"none-of-that-name")
    await pair.ask("FUNCTION", "LOAD", "REPLACE", good.replace(b"return 1", b"return 2"))
    assert await pair.ask("FCALL", name, "0") == 2
    await pair.ask("FUNCTION", "DELETE", name)
    await pair.ask("FUNCTION", "DELETE", name)
    await pair.ask("FCALL", name, "0")


@pytest.mark.parametrize(
    "rules",
    [
        "+@all",
        "~* +@read",
        "~* +@write +@scripting",
        "~other:* +@all",
        "~* +@all -hset",
        "~* +@all -@hash",
        "~* &other:* +@all",
        "~* +hget +fcall",
        "~* +@connection +role +info",
    ],
)
async def test_users_may_do_the_same(pair, rules):
    """Whether they may; texts differ in a detail that depends on who is asked."""
    user, key = b"u" + pair.name, b"t:%b:a" % pair.name
    await pair.ask("ACL", "SETUSER", user, "reset", "on", ">pw", *rules.split())
    try:
        await pair.ask("AUTH", user, "pw")
        for args in (
            ["HSET", key, "f", "1"],
            ["HGET", key, "f"],
            ["HGETALL", key],
            ["DEL", key],
            ["EXISTS", key],
            ["PING"],
            ["PUBLISH", key, ""],
            ["WAIT", "2", "10000"],
            ["CONFIG", "GET", "maxmemory"],
            ["CLIENT", "SETNAME", "x"],
            ["SELECT", "0"],
            ["FCALL", pair.name + b"_echo", "1", key],
            ["FCALL", pair.name + b"_run", "0", "HSET", key, "f", "1"],
            ["FCALL", pair.name + b"_attempt", "0", "HGET", key, "f"],
            ["FUNCTION", "LIST", "LIBRARYNAME", "none"],
        ):
            await pair.ask(*args)
    finally:
        await pair.ask("AUTH", "default", pair.name)
        await pair.ask("ACL", "DELUSER", user)
        await pair.ask("DEL", key)


async def test_replicas_refuse_and_answer_alike(pair, connected):
    replica = Pair(*await connected("replica"), pair.name)
    key = b"t:%b:a" % pair.name
    await pair.ask("HSET", key, "f", "1")
    assert await pair.ask("WAIT", "2", "10000") == 2
    assert await replica.ask("HGET", key, "f") == b"1"
    for args in (
        ["HSET", key, "f", "2"],
        ["DEL", key],
        ["WAIT", "0", "1"],
        ["FUNCTION", "DELETE", pair.name],
        ["FCALL", pair.name + b"_run", "1", key, "HGET", key, "f"],
        ["FCALL", pair.name + b"_read", "1", key, "HGET", key, "f"],
        ["FCALL_RO", pair.name + b"_read", "1", key, "HGET", key, "f"],
        ["FCALL_RO", pair.name + b"_run", "1", key, "HGET", key, "f"],
    ):
        await replica.ask(*args)
    for connection in (replica.real, replica.model):
        (role,) = await connection.execute(pack("ROLE"), within_s=5.0)
        word, host, port, state, offset = role
        assert (word, host, state) == (b"slave", b"127.0.0.1", b"connected")
        assert (type(port), type(offset)) == (int, int)
    await pair.ask("DEL", key)


@pytest.mark.parametrize(
    ("setting", "value"), [("maxmemory", "1mb"), ("min-replicas-to-write", "9")]
)
async def test_a_server_that_takes_no_writes_refuses_alike(pair, setting, value):
    key = b"t:%b:a" % pair.name
    await pair.ask("HSET", key, "f", "1")
    before = await pair.ask("CONFIG", "GET", setting)
    await pair.ask("CONFIG", "SET", setting, value)
    try:
        for args in (
            ["HSET", key, "f", "2"],
            ["HGET", key, "f"],
            ["HDEL", key, "g"],
            ["FCALL", pair.name + b"_run", "1", key, "HSET", key, "f", "2"],
            ["FCALL", pair.name + b"_read", "1", key, "HGET", key, "f"],
            ["PUBLISH", key, ""],
            ["FUNCTION", "LOAD", b"#!lua name=x%b\n" % pair.name],
        ):
            await pair.ask(*args)
    finally:
        await pair.ask("CONFIG", "SET", *before)
        await pair.ask("DEL", key)
