"""The table: partition → (handler, address, epoch). Versioned, whole, immutable.

It has no holes by construction: a table that leaves a partition without an owner cannot be built, so a
receiver never has to decide what to do with one (a router that took an empty table after its
controller's restart stopped all traffic: ray#34281). Versions are ordered by (life, token, number): after
a store went back in time the same number is given out twice, with other content (counterexamples F9).

What a leader asks of it costs what has changed, not what there is: the partitions of each handler are kept as
lists, which the next version shares, and a handler that goes leaves its place to the last one, so that the
places of all others stay.
"""

from __future__ import annotations

import sys
from array import array
from collections import Counter, defaultdict
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import msgpack

from mesh.core.epochs import NOT_HELD, pack_epochs
from mesh.core.records import Moves
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

    __slots__ = ("_by_nonce", "_encoded", "_held", "epochs", "handlers", "owners", "version")

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
        self._held: list[list[int]] = []
        self._by_nonce = {row.nonce: index for index, row in enumerate(self.handlers)}
        if not self.owners or len(self.owners) != len(self.epochs):
            raise ValueError(f"{len(self.owners)} owners and {len(self.epochs)} epochs")
        if max(self.owners) >= len(self.handlers):
            raise ValueError(f"table {version}: a partition has an owner that is not listed")
        # Looking for its bytes first takes a hundredth of the time; they may also be parts of two epochs.
        if bytes(self.epochs.itemsize) in self.epochs.tobytes() and NOT_HELD in self.epochs:
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
        """What the handler process owns, ascending; not to be changed."""
        index = self._by_nonce.get(nonce)
        return [] if index is None else self._lists()[index]

    def _lists(self) -> list[list[int]]:
        if not self._held:
            held: list[list[int]] = [[] for _ in self.handlers]
            for partition, owner in enumerate(self.owners):
                held[owner].append(partition)
            self._held = held
        return self._held

    def epochs_of(self, nonce: bytes) -> bytes:
        """What the handler process owns, as a grant has it: packed epochs."""
        epochs = array("I", [NOT_HELD]) * len(self)
        for partition in self.partitions_of(nonce):
            epochs[partition] = self.epochs[partition]
        return pack_epochs(epochs)

    def changed(self, version: TableVersion, handlers: Iterable[HandlerRow], moves: Moves) -> Table:
        """The table after `moves`, with other handlers.

        Raises:
            ValueError: a handler is left out that still owns a partition, or a move leads to none or has
                no epoch.
        """
        wanted = {row.nonce: row for row in handlers}
        rows = [wanted.get(row.nonce, row) for row in self.handlers]
        held = self._lists().copy()
        owners, epochs = self.owners[:], self.epochs[:]
        gained: defaultdict[bytes, list[int]] = defaultdict(list)
        for partition, nonce, epoch in zip(
            moves.partitions, moves.receivers, moves.epochs, strict=True
        ):
            gained[nonce].append(partition)
            epochs[partition] = epoch
        if not wanted.keys() >= gained.keys() or NOT_HELD in moves.epochs:
            raise ValueError(f"table {version}: {_hole(moves, wanted)} would be a hole")
        moved = frozenset(moves.partitions)
        for index, count in Counter(map(owners.__getitem__, moved)).items():
            keeps_some = count < len(held[index])
            held[index] = [p for p in held[index] if p not in moved] if keeps_some else []
        for index in range(len(rows) - 1, -1, -1):
            if rows[index].nonce not in wanted:
                if held[index]:
                    owner = rows[index].id
                    raise ValueError(f"table {version}: {owner} owns partitions, and is left out")
                _vacate(index, rows, held, owners)
        at = {row.nonce: index for index, row in enumerate(rows)}
        for nonce, row in wanted.items():
            if nonce not in at:
                at[nonce] = len(rows)
                rows.append(row)
                held.append([])
        for nonce, new in gained.items():
            index = at[nonce]
            held[index] = sorted(held[index] + new)
            for partition in new:
                owners[partition] = index
        table = Table.__new__(Table)
        table.version, table.handlers = version, tuple(rows)
        table.owners, table.epochs = owners, epochs
        table._by_nonce, table._held, table._encoded = at, held, b""
        return table

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


def _hole(moves: Moves, wanted: Container[bytes]) -> str:
    holes = (m.partition for m in moves if m.to_nonce not in wanted or m.epoch == NOT_HELD)
    return f"partition {next(holes)}"


def _vacate(index: int, rows: list[HandlerRow], held: list[list[int]], owners: array[int]) -> None:
    """The last handler takes that place: only its partitions have to be told."""
    row, partitions = rows.pop(), held.pop()
    if index < len(rows):
        rows[index], held[index] = row, partitions
        for partition in partitions:
            owners[partition] = index


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
