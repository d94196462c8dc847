"""Who gets what: the first table, and the moves that are due. Functions of what is known, nothing kept."""

from __future__ import annotations

from collections.abc import Sequence

from mesh.core import assignment
from mesh.core.epochs import NOT_HELD, next_epoch
from mesh.core.handovers import Handovers
from mesh.core.members import Member
from mesh.core.peers import most_ill
from mesh.core.records import Moves
from mesh.core.table import Table, TableVersion

NO_MOVES = Moves()


def weights_of(members: Sequence[Member]) -> dict[bytes, float]:
    """What each is to hold, in proportion; those that fell ill first are relieved first."""
    weights = {m.row.nonce: m.weight for m in members}
    ill = [(m.weighed.since, m.row.nonce, m.weighed.weight) for m in members if m.weighed]
    weights |= {nonce: weight for _, nonce, weight in sorted(ill)[: most_ill(len(weights))]}
    if ill and max(weights.values()) <= 0:
        return {m.row.nonce: m.weight for m in members}  # somebody has to have them
    return weights


def first_table(
    version: TableVersion, partitions: int, members: Sequence[Member]
) -> tuple[Table, Moves]:
    """Everything, evenly by weight, to handlers none of which has owned anything before."""
    owned = {m.row.nonce: 0 for m in members}
    placed = assignment.place(range(partitions), owned, weights_of(members))
    owners = [placed[p] for p in range(partitions)]
    epochs = [next_epoch(NOT_HELD, version.life)] * partitions
    index = {m.row.nonce: i for i, m in enumerate(members)}
    table = Table(version, [m.row for m in members], [index[nonce] for nonce in owners], epochs)
    nobody, never = [None] * partitions, [NOT_HELD] * partitions
    return table, Moves(range(partitions), nobody, never, owners, epochs)


def due_moves(
    table: Table,
    life: int,
    alive: Sequence[Member],
    gone: Sequence[Member],
    handovers: Handovers,
) -> Moves:
    """What those that are gone have owned goes to the survivors, what was released to whom it was meant for,
    and what its owner lacks to that same owner.

    Args:
        table: who owns what.
        life: in which the new epochs are given.
        alive: who may receive.
        gone: whose partitions have to move; of one without a grant, nobody holds them. What was planned for
            these partitions before is over.
        handovers: what was planned, released, or lost.
    """
    owned = {m.row.nonce: len(table.partitions_of(m.row.nonce)) for m in alive}
    orphans: list[int] = []
    for member in gone:
        orphans += table.partitions_of(member.row.nonce)
    handovers.settle(orphans)
    placed: dict[int, bytes] = {}
    for partition in handovers.released:
        target = handovers.intents[partition].target
        if target in owned:
            placed[partition] = target
            owned[target] += 1
        else:
            orphans.append(partition)
    for partition in handovers.missing:
        placed[partition] = table.owner(partition).handler.nonce
    placed |= assignment.place(orphans, owned, weights_of(alive))
    partitions = sorted(placed)
    without = {m.row.nonce for m in gone if not m.enrolled}
    nonces = [None if row.nonce in without else row.nonce for row in table.handlers]
    epochs = [table.epochs[p] for p in partitions]
    # Thousands of partitions share a handful of epochs.
    newer = {epoch: next_epoch(epoch, life) for epoch in set(epochs)}
    return Moves(
        partitions,
        givers := [nonces[table.owners[p]] for p in partitions],
        [e if n else NOT_HELD for e, n in zip(epochs, givers, strict=True)] if without else epochs,
        [placed[p] for p in partitions],
        [newer[epoch] for epoch in epochs],
    )


def even_shares(table: Table, members: Sequence[Member]) -> dict[int, bytes]:
    """The fewest moves (partition → receiver's nonce) that make the shares follow the weights."""
    weights = weights_of(members)
    return assignment.rebalance({nonce: table.partitions_of(nonce) for nonce in weights}, weights)
