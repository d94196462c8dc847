"""Laws of tables: one that was derived through many changes is the one that its bytes say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh.core.records import Move, Moves
from mesh.core.table import HandlerRow, Table, TableVersion

ROWS = [HandlerRow(f"h-{i}", b"%08d" % i, "127.0.0.1", 7000 + i) for i in range(8)]


@given(st.data(), st.integers(1, 30))
def test_a_table_after_many_changes_is_what_its_bytes_say(data, partitions):
    owners = [0] * partitions
    table = Table(TableVersion(1, 1, 1), ROWS[:1], owners, [1] * partitions)
    for number in range(2, data.draw(st.integers(2, 8))):
        rows = data.draw(st.lists(st.sampled_from(ROWS), min_size=1, unique=True))
        nonces = [row.nonce for row in rows]
        stranded = {p for p in range(partitions) if table.owner(p).handler.nonce not in nonces}
        also = data.draw(st.sets(st.integers(0, partitions - 1)))
        moves = {p: (data.draw(st.sampled_from(nonces)), number) for p in stranded | also}
        before = {p: table.owner(p) for p in range(partitions)}
        lists = {row.nonce: list(table.partitions_of(row.nonce)) for row in table.handlers}
        columns = Moves.of(Move(p, None, 0, nonce, epoch) for p, (nonce, epoch) in moves.items())
        newer = table.changed(TableVersion(1, 1, number), rows, columns)
        assert {row.nonce: table.partitions_of(row.nonce) for row in table.handlers} == lists
        for p in range(partitions):
            nonce, epoch = moves.get(p, (before[p].handler.nonce, before[p].epoch))
            assert (newer.owner(p).handler.nonce, newer.owner(p).epoch) == (nonce, epoch)
        read = Table.decode(newer.encode())
        assert (read.owners, read.epochs, read.handlers) == (
            newer.owners,
            newer.epochs,
            newer.handlers,
        )
        assert {row.nonce for row in read.handlers} == set(nonces)
        for row in rows:
            assert newer.row(row.nonce) == row
            assert newer.partitions_of(row.nonce) == read.partitions_of(row.nonce)
        table = newer
