"""The table: whole, ordered, and the same after a trip over the wire."""

import msgpack
import pytest

from mesh.core.epochs import NOT_HELD, epoch_of, pack_epochs
from mesh.core.records import Move, Moves
from mesh.core.table import NO_TABLE, HandlerRow, Table, TableVersion
from mesh.errors import ProtocolError

A = HandlerRow("h-a", b"nonce-aa", "10.0.0.1", 7001, "eu", "eu-1")
B = HandlerRow("h-b", b"nonce-bb", "10.0.0.2", 7002)
E1, E2 = epoch_of(1, 1), epoch_of(1, 2)


def table(number=1, handlers=(A, B), owners=(0, 1, 0, 1), epochs=(E1, E1, E1, E1)):
    return Table(TableVersion(1, 3, number), handlers, owners, epochs)


def moves(*to, epoch=E2):
    return Moves.of(Move(partition, None, NOT_HELD, nonce, epoch) for partition, nonce in to)


def test_it_names_the_owner_and_the_epoch_of_each_partition():
    t = table(owners=(0, 1, 1, 0), epochs=(E1, E2, E1, E1))
    assert len(t) == 4
    assert t.owner(1) == (B, E2)
    assert t.partitions_of(A.nonce) == [0, 3]
    assert t.partitions_of(b"stranger") == []
    assert t.row(B.nonce) is t.handlers[1] and t.row(b"stranger") is None
    assert t.owner(1).handler.address == "10.0.0.2:7002"


@pytest.mark.parametrize(
    ("owners", "epochs", "says"),
    [
        ((), (), "0 owners"),
        ((0, 1), (E1,), "2 owners and 1 epochs"),
        ((0, 2), (E1, E1), "not listed"),
        ((0, 1), (E1, 0), "partition 1 has no epoch"),
    ],
)
def test_a_table_with_a_hole_cannot_be_built(owners, epochs, says):
    with pytest.raises(ValueError, match=says):
        table(owners=owners, epochs=epochs)


def test_a_change_moves_what_it_names_and_nothing_else():
    c = HandlerRow("h-c", b"nonce-cc", "10.0.0.3", 7003)
    before = table()
    after = before.changed(TableVersion(1, 3, 2), (c, B, A), moves((2, c.nonce)))
    owners = [after.owner(p).handler.id for p in range(4)]
    assert owners == ["h-a", "h-b", "h-c", "h-b"]
    assert list(after.epochs) == [E1, E1, E2, E1]
    assert list(before.epochs) == [E1] * 4 and before.owner(2).handler is A


def test_a_handler_that_still_owns_something_cannot_be_left_out():
    with pytest.raises(ValueError, match="is left out"):
        table().changed(TableVersion(1, 3, 2), (A,), moves((1, A.nonce)))
    table().changed(TableVersion(1, 3, 2), (A,), moves((1, A.nonce), (3, A.nonce)))


def test_a_change_that_leads_to_nobody_or_to_no_epoch_is_refused():
    with pytest.raises(ValueError, match="partition 1 would be a hole"):
        table().changed(TableVersion(1, 3, 2), (A, B), moves((0, B.nonce), (1, b"stranger")))
    with pytest.raises(ValueError, match="partition 0 would be a hole"):
        table().changed(TableVersion(1, 3, 2), (A, B), moves((0, B.nonce), epoch=NOT_HELD))


def test_what_a_process_owns_reads_as_its_grant_has_it():
    t = table(owners=(0, 1, 1, 0), epochs=(E1, E2, E1, E1))
    assert t.epochs_of(B.nonce) == pack_epochs([NOT_HELD, E2, E1, NOT_HELD])
    assert t.epochs_of(b"stranger") == bytes(16)


def test_versions_are_ordered_by_life_then_token_then_number():
    versions = [(0, 0, 0), (1, 1, 9), (1, 2, 1), (2, 1, 1), (2, 1, 2)]
    assert sorted(TableVersion(*v) for v in reversed(versions)) == versions
    assert TableVersion(*versions[0]) == NO_TABLE


def test_it_reads_back_as_it_was_written():
    t = table(owners=(1, 0, 1, 1), epochs=(E1, E2, E1, 0xFFFFFFFF))
    again = Table.decode(t.encode())
    assert (again.version, again.handlers) == (t.version, t.handlers)
    assert (again.owners, again.epochs) == (t.owners, t.epochs)
    assert Table.peek(t.encode()) == t.version


def test_its_bytes_do_not_depend_on_the_machines_byte_order():
    *_, owners, epochs = msgpack.unpackb(table(owners=(1, 0), epochs=(E1, E2)).encode())
    assert owners == b"\0\1\0\0" and epochs == bytes.fromhex("00010001 00010002")


WHOLE = table().encode()


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\xc1",
        b"garbage",
        WHOLE[:-1],
        WHOLE + b"\0",
        msgpack.packb(7),
        msgpack.packb([1, 2, 3, 4]),
        msgpack.packb([(1, 1), [], b"", b""]),
        msgpack.packb([(1, 1, 1), [["h"]], b"\0\0", b"\0\0\0\1"]),
        msgpack.packb([(1, 1, 1), [["h", [], "x", 1, None, None]], b"\0\0", b"\0\0\0\1"]),
        msgpack.packb([(1, 1, 1), [["h", b"n", "x", 1, None, None]], b"\0\0\0", b"\0\0\0\1"]),
        msgpack.packb([(1, 1, 1), [["h", b"n", "x", 1, None, None]], b"\0\1", b"\0\0\0\1"]),
        msgpack.packb([(1, 1, 1), [["h", b"n", "x", 1, None, None]], b"\0\0", b"\0\0\0\0"]),
        msgpack.packb([(None, 1, 1), [["h", b"n", "x", 1, None, None]], b"\0\0", b"\0\0\0\1"]),
        b"\x91" * 5000,
    ],
    ids=range(15),
)
def test_bytes_that_are_no_table_are_refused(blob):
    with pytest.raises(ProtocolError, match="not a table"):
        Table.decode(blob)


@pytest.mark.parametrize("blob", [b"", b"\xc1", msgpack.packb(7), msgpack.packb([5])])
def test_a_version_is_not_read_out_of_garbage(blob):
    with pytest.raises(ProtocolError, match="not a table"):
        Table.peek(blob)


def test_the_largest_table_fits_a_frame():
    rows = [HandlerRow(f"h-{i}", b"%08d" % i, "host.example", 7000) for i in range(1000)]
    t = Table(TableVersion(1, 1, 1), rows, [p % 1000 for p in range(16_384)], [E1] * 16_384)
    blob = t.encode()
    assert len(blob) < 1024 * 1024
    assert Table.decode(blob).partitions_of(rows[999].nonce) == t.partitions_of(rows[999].nonce)
