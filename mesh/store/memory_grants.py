"""Grants as the store in memory keeps them, and what a leader may not do to them.

The checks of a takeover come before anything of it is carried out, in the order of the function library
(functions/takeover.lua), so that both name the same mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.core.epochs import NOT_HELD, format_epoch
from mesh.core.lanes import LANES
from mesh.core.records import Move, Takeover, Verdict


@dataclass(slots=True)
class Grant:
    """One process's."""

    active: bool = True
    version: int = 0
    life: int = 0
    epochs: dict[int, int] = field(default_factory=dict)
    seqs: list[int] = field(default_factory=lambda: [0] * len(LANES))
    renewal: int = 0
    failed: dict[int, tuple[int, tuple[Verdict, ...], str]] = field(default_factory=dict)
    """By lane, the last batch of which a partition could not be written."""

    def holds(self, partition: int, epoch: int) -> bool:
        return epoch != NOT_HELD and self.epochs.get(partition) == epoch


def conflict(
    call: Takeover, partitions: int, grants: Mapping[bytes, Grant], handlers: Mapping[bytes, str]
) -> str:
    """Why a takeover changes nothing; empty where it is carried out.

    Args:
        partitions: of the mesh.
        grants: of all processes that were ever enrolled.
        handlers: the active ones, by nonce.
    """
    enrolled: set[bytes] = set()
    for nonce, _ in call.enroll:
        if nonce in enrolled or nonce in grants:
            is_active = nonce in enrolled or grants[nonce].active
            state = "active" if is_active else "revoked"
            return f"grant {nonce.hex()} is already recorded as {state}"
        enrolled.add(nonce)
    for nonce in call.revoke:
        if nonce not in grants:
            return f"grant {nonce.hex()} is not recorded"
    moved: set[int] = set()
    receivers = (handlers.keys() | enrolled) - set(call.revoke)
    holders = {p: nonce for nonce in handlers for p in grants[nonce].epochs}
    for move in sorted(call.moves, key=lambda move: move.partition):
        problem = _wrong(move, partitions, grants, handlers, receivers, holders.get(move.partition))
        if move.partition in moved:
            problem = "moved twice"
        if problem:
            return f"partition {move.partition}: {problem}"
        moved.add(move.partition)
    return ""


def _wrong(
    move: Move,
    partitions: int,
    grants: Mapping[bytes, Grant],
    handlers: Mapping[bytes, str],
    receivers: set[bytes],
    holder: bytes | None,
) -> str:
    if not 0 <= move.partition < partitions or move.epoch == NOT_HELD:
        return "out of range"
    giver = move.from_nonce
    if giver is None:
        if holder is not None:
            epoch = format_epoch(grants[holder].epochs[move.partition])
            return f"grant {holder.hex()} holds it at {epoch}, not nobody"
    elif giver not in handlers:
        return f"grant {giver.hex()} is {_state(giver, grants)}"
    elif not grants[giver].holds(move.partition, move.from_epoch):
        held = grants[giver].epochs.get(move.partition, NOT_HELD)
        is_at, said = (
            format_epoch(epoch) if epoch else "none" for epoch in (held, move.from_epoch)
        )
        return f"grant {giver.hex()} holds it at {is_at}, not {said}"
    if move.to_nonce not in receivers:
        return f"grant {move.to_nonce.hex()} is {_state(move.to_nonce, grants)}"
    return ""


def _state(nonce: bytes, grants: Mapping[bytes, Grant]) -> str:
    return "revoked" if nonce in grants else "not recorded"
