"""The commands on data: strings, hashes and keys, as far as a mesh and its tests use them.

Each gets the database chosen and the arguments behind its name, and returns a reply. One that changes
something makes `dirty` grow: only then is it replicated.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from mesh.testing.sim.store.dataset import (
    Database,
    Dataset,
    hash_at,
    memory_of,
    string_at,
)
from mesh.testing.sim.store.globs import is_match
from mesh.testing.sim.store.replies import (
    OK,
    SYNTAX,
    WRONG_TYPE,
    Fault,
    Reply,
    Status,
    integer,
)

_LISTPACK_FIELDS = 128
_LISTPACK_BYTES = 64
"""A hash within these limits is scanned whole by one call, whatever its COUNT (listpack)."""


class Data(Dataset):
    """A node's data, and what can be done to them."""

    __slots__ = ()

    def get(self, db: Database, args: Sequence[bytes]) -> Reply:
        return string_at(db, args[0])

    def set_(self, db: Database, args: Sequence[bytes]) -> Reply:
        if len(args) > 2:
            raise Fault(SYNTAX)  # no options: a mesh's keys never expire
        db[args[0]] = args[1]
        self.dirty += 1
        return OK

    def incr(self, db: Database, args: Sequence[bytes]) -> Reply:
        held = string_at(db, args[0])
        number = integer(b"0" if held is None else held) + 1
        db[args[0]] = b"%d" % number
        self.dirty += 1
        return number

    def delete(self, db: Database, args: Sequence[bytes]) -> Reply:
        count = sum(db.pop(key, None) is not None for key in args)
        self.dirty += count
        return count

    def exists(self, db: Database, args: Sequence[bytes]) -> Reply:
        return sum(key in db for key in args)

    def type_(self, db: Database, args: Sequence[bytes]) -> Reply:
        value = db.get(args[0])
        if value is None:
            return Status(b"none")
        return Status(b"string" if isinstance(value, bytes) else b"hash")

    def keys(self, db: Database, args: Sequence[bytes]) -> Reply:
        return [key for key in db if is_match(args[0], key)]

    def dbsize(self, db: Database, args: Sequence[bytes]) -> Reply:
        return len(db)

    def flushall(self, db: Database, args: Sequence[bytes]) -> Reply:
        for database in self.databases:
            database.clear()
        self.dirty += 1
        return OK

    def hset(self, db: Database, args: Sequence[bytes]) -> Reply:
        if len(args) % 2 == 0:
            raise Fault("ERR wrong number of arguments for 'hset' command")
        held = db.get(args[0])
        if held is None:
            held = db[args[0]] = {}
        elif type(held) is not dict:
            raise Fault(WRONG_TYPE)
        before = len(held)
        items = iter(args)
        next(items)
        held.update(zip(items, items, strict=True))
        self.dirty += 1
        return len(held) - before

    def hget(self, db: Database, args: Sequence[bytes]) -> Reply:
        return (hash_at(db, args[0]) or {}).get(args[1])

    def hmget(self, db: Database, args: Sequence[bytes]) -> Reply:
        held = db.get(args[0])
        if type(held) is dict:
            return [*map(held.get, args[1:])]
        if held is not None:
            raise Fault(WRONG_TYPE)
        return [None] * (len(args) - 1)

    def hdel(self, db: Database, args: Sequence[bytes]) -> Reply:
        held = hash_at(db, args[0])
        if held is None:
            return 0
        count = sum(held.pop(field, None) is not None for field in args[1:])
        if not held:
            del db[args[0]]
        self.dirty += count
        return count

    def hgetall(self, db: Database, args: Sequence[bytes]) -> Reply:
        return _flat((hash_at(db, args[0]) or {}).items())

    def hkeys(self, db: Database, args: Sequence[bytes]) -> Reply:
        return list(hash_at(db, args[0]) or ())

    def hlen(self, db: Database, args: Sequence[bytes]) -> Reply:
        return len(hash_at(db, args[0]) or ())

    def hexists(self, db: Database, args: Sequence[bytes]) -> Reply:
        return int(args[1] in (hash_at(db, args[0]) or ()))

    def hincrby(self, db: Database, args: Sequence[bytes]) -> Reply:
        increment = integer(args[2])
        held = hash_at(db, args[0]) or {}
        try:
            number = integer(held.get(args[1], b"0"))
        except Fault:
            raise Fault("ERR hash value is not an integer") from None
        number += increment
        if not -(2**63) <= number < 2**63:
            raise Fault("ERR increment or decrement would overflow")
        held[args[1]] = b"%d" % number
        db[args[0]] = held
        self.dirty += 1
        return number

    def hscan(self, db: Database, args: Sequence[bytes]) -> Reply:
        cursor = _cursor(args[1])
        pattern, count = _scan_options(args[2:])
        held = hash_at(db, args[0])
        if held is None:
            return [b"0", []]
        following, fields = _page(held, cursor, count, whole=_is_listpack(held.items()))
        matching = [field for field in fields if is_match(pattern, field)]
        return [b"%d" % following, _flat((field, held[field]) for field in matching)]

    def scan(self, db: Database, args: Sequence[bytes]) -> Reply:
        cursor = _cursor(args[0])
        pattern, count = _scan_options(args[1:])
        following, page = _page(db, cursor, count, whole=False)
        matching: list[Reply] = [key for key in page if is_match(pattern, key)]
        return [b"%d" % following, matching]

    def memory(self, db: Database, args: Sequence[bytes]) -> Reply:
        if args[0].upper() != b"USAGE" or len(args) < 2:
            raise Fault(f"ERR unknown subcommand '{args[0].decode()}'. Try MEMORY HELP.")
        value = db.get(args[1])
        return None if value is None else memory_of(args[1], value)


def _flat(pairs: Iterable[tuple[bytes, bytes]]) -> list[Reply]:
    return [item for pair in pairs for item in pair]


def _is_listpack(pairs: Iterable[tuple[bytes, bytes]]) -> bool:
    for count, (field, value) in enumerate(pairs, start=1):
        if count > _LISTPACK_FIELDS or len(field) > _LISTPACK_BYTES or len(value) > _LISTPACK_BYTES:
            return False
    return True


def _page(
    held: Iterable[bytes], cursor: int, count: int, *, whole: bool
) -> tuple[int, list[bytes]]:
    """Fields in the order of a hash of their names, so that what comes and goes moves no other."""
    if whole:
        return 0, list(held)
    placed = sorted((zlib.crc32(field), field) for field in held)
    left = [(place, field) for place, field in placed if place >= cursor]
    if len(left) <= count:
        return 0, [field for _, field in left]
    last = left[count - 1][0]
    return last + 1, [field for place, field in left if place <= last]


def _cursor(argument: bytes) -> int:
    if not argument.isdigit() or int(argument) >= 2**64:
        raise Fault("ERR invalid cursor")
    return int(argument)


def _scan_options(options: Sequence[bytes]) -> tuple[bytes, int]:
    pattern, count = b"*", 10
    if len(options) % 2:
        raise Fault(SYNTAX)
    for option, value in zip(options[::2], options[1::2], strict=True):
        match option.upper():
            case b"COUNT":
                count = integer(value)
                if count < 1:
                    raise Fault(SYNTAX)
            case b"MATCH":
                pattern = value
            case _:
                raise Fault(SYNTAX)
    return pattern, count


DataCommand: TypeAlias = Callable[[Data, Database, Sequence[bytes]], Reply]
