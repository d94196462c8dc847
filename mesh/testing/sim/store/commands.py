"""The table of commands: how many arguments, what they need, what keys they name, who may run them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mesh.testing.sim.store.data_commands import Data, DataCommand
from mesh.testing.sim.store.replies import shown


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        arity: number of arguments with the name; negative: at least so many.
        categories: of the access list, without @all.
        on_data: what it does to the data; None: the node itself carries it out.
        keys: places of the first key, the last (-1: of all arguments) and the step between; None: none.
        write: refused by a replica, and where too few replicas follow.
        denied_oom: refused where memory is full.
        stale: answered by a replica that lost its primary, whatever its configuration says.
        loading: answered while data are loaded.
        no_script: not for functions.
        no_auth: answered before any login.
    """

    name: str
    arity: int
    categories: frozenset[str]
    on_data: DataCommand | None = None
    keys: tuple[int, int, int] | None = None
    write: bool = False
    denied_oom: bool = False
    stale: bool = False
    loading: bool = False
    no_script: bool = False
    no_auth: bool = False

    def named_keys(self, args: Sequence[bytes]) -> Sequence[bytes]:
        """The keys among the arguments, the command's name included among these."""
        if self.keys is None:
            return ()
        first, last, step = self.keys
        return args[first : len(args) if last < 0 else last + 1 : step]

    def channels(self, args: Sequence[bytes]) -> Sequence[bytes]:
        """The channels among the arguments."""
        if self.name == "subscribe":
            return args[1:]
        return args[1:2] if self.name == "publish" else ()

    def full_name(self, args: Sequence[bytes]) -> str:
        """With its subcommand, where it has such."""
        if self.name in _CONTAINERS and len(args) > 1:
            return f"{self.name}|{shown(args[1]).lower()}"
        return self.name


_CONTAINERS = frozenset({"acl", "client", "config", "debug", "function", "memory"})
_ONE = (1, 1, 1)
_ALL = (1, -1, 1)


def _read(
    name: str,
    arity: int,
    run: DataCommand,
    of: str,
    keys: tuple[int, int, int] | None = _ONE,
) -> Command:
    return Command(name, arity, frozenset({"read", *of.split()}), run, keys)


def _write(
    name: str,
    arity: int,
    run: DataCommand,
    of: str,
    keys: tuple[int, int, int] | None = _ONE,
    *,
    denied_oom: bool = True,
) -> Command:
    return Command(
        name, arity, frozenset({"write", *of.split()}), run, keys, write=True, denied_oom=denied_oom
    )


def _server(name: str, arity: int, of: str, flags: str = "stale loading no_script") -> Command:
    return Command(
        name,
        arity,
        frozenset(of.split()),
        **dict.fromkeys(flags.split(), True),  # type: ignore[arg-type]
    )


_COMMANDS = (
    _read("get", 2, Data.get, "string fast"),
    _write("set", -3, Data.set_, "string slow"),
    _write("incr", 2, Data.incr, "string fast"),
    _write("del", -2, Data.delete, "keyspace slow", _ALL, denied_oom=False),
    _write("unlink", -2, Data.delete, "keyspace fast", _ALL, denied_oom=False),
    _read("exists", -2, Data.exists, "keyspace fast", _ALL),
    _read("type", 2, Data.type_, "keyspace fast"),
    _read("keys", 2, Data.keys, "keyspace slow dangerous", None),
    _read("scan", -2, Data.scan, "keyspace slow", None),
    _read("dbsize", 1, Data.dbsize, "keyspace fast", None),
    _write("flushall", -1, Data.flushall, "keyspace slow dangerous", None, denied_oom=False),
    _read("memory", -2, Data.memory, "slow", (2, 2, 1)),
    _write("hset", -4, Data.hset, "hash fast"),
    _read("hget", 3, Data.hget, "hash fast"),
    _read("hmget", -3, Data.hmget, "hash fast"),
    _write("hdel", -3, Data.hdel, "hash fast", denied_oom=False),
    _read("hgetall", 2, Data.hgetall, "hash slow"),
    _read("hkeys", 2, Data.hkeys, "hash slow"),
    _read("hlen", 2, Data.hlen, "hash fast"),
    _read("hexists", 3, Data.hexists, "hash fast"),
    _write("hincrby", 4, Data.hincrby, "hash fast"),
    _read("hscan", -3, Data.hscan, "hash slow"),
    _server("fcall", -3, "slow scripting", "stale no_script"),
    _server("fcall_ro", -3, "slow scripting", "stale no_script"),
    Command("function", -2, frozenset({"slow", "scripting", "write"}), stale=True, no_script=True),
    _server("publish", 3, "pubsub fast", "stale loading"),
    _server("subscribe", -2, "pubsub slow"),
    _server("unsubscribe", -1, "pubsub slow"),
    _server("multi", 1, "transaction fast"),
    _server("exec", 1, "transaction slow"),
    _server("discard", 1, "transaction fast"),
    _server("ping", -1, "fast connection", "stale"),
    _server("echo", 2, "fast connection", "stale loading"),
    _server("auth", -2, "fast connection", "stale loading no_script no_auth"),
    _server("hello", -1, "fast connection", "stale loading no_script no_auth"),
    _server("quit", -1, "fast connection", "stale loading no_script no_auth"),
    _server("select", 2, "fast connection", "stale loading"),
    _server("client", -2, "slow connection"),
    _server("acl", -2, "slow admin dangerous"),
    _server("role", 1, "fast admin dangerous"),
    _server("time", 1, "fast", "stale loading"),
    _server("info", -1, "slow dangerous", "stale loading"),
    _server("config", -2, "slow admin dangerous"),
    _server("wait", 3, "slow connection", ""),
    _server("waitaof", 4, "slow connection", ""),
    _server("replicaof", 3, "slow admin dangerous", "stale no_script"),
    _server("slaveof", 3, "slow admin dangerous", "stale no_script"),
    _server("psync", -3, "slow admin dangerous", "no_script"),
    _server("replconf", -1, "slow admin dangerous"),
    _server("debug", -2, "slow admin dangerous"),
    _server("shutdown", -1, "slow admin dangerous"),
)

BY_NAME = {command.name.encode(): command for command in _COMMANDS}
"""By the name in small letters."""
BY_WRITTEN_NAME = BY_NAME | {name.upper(): command for name, command in BY_NAME.items()}
"""As it is mostly written: looked up before anything is converted."""


def command_named(name: bytes) -> Command | None:
    """The command, however its name is written."""
    return BY_WRITTEN_NAME.get(name) or BY_NAME.get(name.lower())
