"""The table: partition → (handler, address, epoch). Versioned, whole, immutable.

It has no holes by construction: a table that leaves a partition without an owner cannot be built, so a
receiver never has to decide what to do with one (a router that took an empty table after its
controller's restart stopped all traffic: ray#34281). Versions are ordered by (life, token, number): after
a store went back in time the same number is given out twice, with other content (counterexamples F9).
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import msgpack

from mesh.core.epochs import NOT_HELD
from mesh.errors import ProtocolError


class TableVersion(NamedTuple):
    """Compares as the tuple it is."""

    life: int
    token: int
    number: int


NO_TABLE = TableVersion(0, 0, 0)


@dataclass(frozen=True, slots=True)
class HandlerRow:
    """One handler process as the table names it. `nonce` tells one run of it from the next."""

    id: str
    nonce: bytes
    host: str
    port: int
    region: str | None = None
    zone: str | None = None

    @property
    def address(self) -> str:
        """host:port"""
        return f"{self.host}:{self.port}"


class Owner(NamedTuple):
    """Who owns a partition, and under which epoch."""

    handler: HandlerRow
    epoch: int


class Table:
    """An immutable version of who owns what.

    Args:
        version: orders tables.
        handlers: every handler that owns something, and those that own nothing yet.
        owners: for each partition the index of its owner in `handlers`.
        epochs: for each partition its epoch.

    Raises:
        ValueError: a partition has no owner or no epoch.
    """

    __slots__ = ("_by_nonce", "_encoded", "epochs", "handlers", "owners", "version")

    def __init__(
        self,
        version: TableVersion,
        handlers: Iterable[HandlerRow],
        owners: Iterable[int],
        epochs: Iterable[int],
    ) -> None:
        self.version = version
        self.handlers = tuple(handlers)
        self.owners = array("H", owners)
        self.epochs = array("I", epochs)
        self._encoded = b""
        self._by_nonce = {row.nonce: index for index, row in enumerate(self.handlers)}
        if not self.owners or len(self.owners) != len(self.epochs):
            raise ValueError(f"{len(self.owners)} owners and {len(self.epochs)} epochs")
        if max(self.owners) >= len(self.handlers):
            raise ValueError(f"table {version}: a partition has an owner that is not listed")
        if NOT_HELD in self.epochs:
            hole = self.epochs.index(NOT_HELD)
            raise ValueError(f"table {version}: partition {hole} has no epoch, a hole")

    def __repr__(self) -> str:
        return (
            f"Table({tuple(self.version)}, {len(self.handlers)} handlers, {len(self)} partitions)"
        )

    def __len__(self) -> int:
        return len(self.owners)

    def owner(self, partition: int) -> Owner:
        """Who owns `partition`."""
        return Owner(self.handlers[self.owners[partition]], self.epochs[partition])

    def row(self, nonce: bytes) -> HandlerRow | None:
        """The handler process of that nonce, if the table lists it."""
        index = self._by_nonce.get(nonce)
        return None if index is None else self.handlers[index]

    def partitions_of(self, nonce: bytes) -> list[int]:
        """What the handler process owns, ascending."""
        index = self._by_nonce.get(nonce)
        return [p for p, owner in enumerate(self.owners) if owner == index]

    def changed(
        self,
        version: TableVersion,
        handlers: Iterable[HandlerRow],
        moves: Mapping[int, tuple[bytes, int]],
    ) -> Table:
        """The table after `moves` (partition → nonce of the new owner, epoch), with other handlers.

        Raises:
            ValueError: a handler is left out that still owns a partition.
        """
        rows = tuple(handlers)
        index = {row.nonce: i for i, row in enumerate(rows)}
        gone = len(rows)
        translate = [index.get(row.nonce, gone) for row in self.handlers]
        owners = [translate[owner] for owner in self.owners]
        epochs = list(self.epochs)
        for partition, (nonce, epoch) in moves.items():
            owners[partition] = index[nonce]
            epochs[partition] = epoch
        return Table(version, rows, owners, epochs)

    def encode(self) -> bytes:
        """Bytes for the store and the wire; made once, since both and each new client ask for them."""
        if self._encoded:
            return self._encoded
        self._encoded = msgpack.packb(
            [
                tuple(self.version),
                [[r.id, r.nonce, r.host, r.port, r.region, r.zone] for r in self.handlers],
                _big_endian(self.owners),
                _big_endian(self.epochs),
            ]
        )
        return self._encoded

    @staticmethod
    def peek(blob: bytes) -> TableVersion:
        """A table's version, without reading the rest.

        Raises:
            ProtocolError: it is no table.
        """
        reader = msgpack.Unpacker(max_buffer_size=0, max_array_len=65_536)
        try:
            reader.feed(blob)
            reader.read_array_header()
            return _version(reader.unpack())
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise ProtocolError(f"not a table: {error}") from error

    @classmethod
    def decode(cls, blob: bytes | memoryview) -> Table:
        """Read a table's bytes.

        Raises:
            ProtocolError: they are not a table, or one with a hole.
        """
        try:
            version, rows, owner_bytes, epoch_bytes = msgpack.unpackb(
                blob, max_array_len=65_536, max_map_len=0, max_ext_len=0
            )
            owners, epochs = array("H"), array("I")
            owners.frombytes(owner_bytes)
            epochs.frombytes(epoch_bytes)
            if sys.byteorder == "little":
                owners.byteswap()
                epochs.byteswap()
            return cls(_version(version), (HandlerRow(*row) for row in rows), owners, epochs)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise ProtocolError(f"not a table: {error}") from error


def _version(value: list[int]) -> TableVersion:
    version = TableVersion(*value)
    if not all(type(number) is int for number in version):
        raise ValueError(f"version {value!r:.80}")
    return version


def _big_endian(values: array[int]) -> bytes:
    if sys.byteorder == "little":
        values = values[:]
        values.byteswap()
    return values.tobytes()
