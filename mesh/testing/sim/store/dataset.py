"""What a node has in memory: databases of strings and hashes, and the source of its libraries.

A replica that attaches gets all of it as one blob, and a node's disk begins with one.
"""

from __future__ import annotations

from typing import Self, TypeAlias

import msgpack

from mesh.testing.sim.store.replies import WRONG_TYPE, Fault

Hash: TypeAlias = dict[bytes, bytes]
Value: TypeAlias = "bytes | Hash"
Database: TypeAlias = dict[bytes, Value]

DATABASES = 16
_KEY_BYTES = 72
_FIELD_BYTES = 24
"""Roughly what a key and a field cost besides their own bytes."""
_EMPTY_BYTES = 1_300_000


class Dataset:
    """The data of one node.

    Attributes:
        dirty: grows with each change; tells a command that wrote from one that found nothing to do.
        libraries: source of each function library, by its name.
    """

    __slots__ = ("databases", "dirty", "libraries")

    def __init__(self) -> None:
        self.databases: list[Database] = [{} for _ in range(DATABASES)]
        self.libraries: dict[bytes, bytes] = {}
        self.dirty = 0

    def dump(self) -> bytes:
        """Everything, as one blob."""
        databases = {number: db for number, db in enumerate(self.databases) if db}
        blob: bytes = msgpack.packb([databases, self.libraries])
        return blob

    @classmethod
    def load(cls, blob: bytes) -> Self:
        """The reverse of `dump`; an empty blob is an empty node."""
        self = cls()
        if blob:
            databases, self.libraries = msgpack.unpackb(blob, raw=True, strict_map_key=False)
            for number, database in databases.items():
                self.databases[number] = database
        return self

    def used_memory(self) -> int:
        """About how many bytes the data take; compared with maxmemory."""
        databases = self.databases
        return _EMPTY_BYTES + sum(memory_of(k, v) for db in databases for k, v in db.items())


def memory_of(key: bytes, value: Value) -> int:
    """About how many bytes a key takes."""
    size = _KEY_BYTES + len(key)
    if isinstance(value, bytes):
        return size + len(value)
    return size + sum(_FIELD_BYTES + len(field) + len(held) for field, held in value.items())


def hash_at(database: Database, key: bytes) -> Hash | None:
    """The hash under a key, None where there is nothing.

    Raises:
        Fault: the key is of another type.
    """
    value = database.get(key)
    if value is None or isinstance(value, dict):
        return value
    raise Fault(WRONG_TYPE)


def string_at(database: Database, key: bytes) -> bytes | None:
    """The string under a key, None where there is nothing.

    Raises:
        Fault: the key is of another type.
    """
    value = database.get(key)
    if value is None or isinstance(value, bytes):
        return value
    raise Fault(WRONG_TYPE)
