"""Pieces of a replication stream: what is written at once, as bytes and as the commands that these are.

Whoever reads what was sent just now need not parse it, nor pack it anew for replicas of its own, as long as
it arrives as it was sent: a process holds both ends. That is half of what a write costs a replica.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mesh.store.resp import pack
from mesh.testing.sim.store.disk import Commands

_MOST_REMEMBERED = 64


class Piece(NamedTuple):
    """A command or a transaction.

    Attributes:
        raw: in RESP, as it counts in offsets.
        commands: what is to be carried out; none, where it only keeps the link alive or asks.
        asks: it is a GETACK.
    """

    raw: bytes
    commands: Commands = ()
    asks: bool = False


PING = Piece(pack("PING"))
GETACK = Piece(pack("REPLCONF", "GETACK", "*"), asks=True)

_remembered: dict[bytes, Sequence[Piece]] = {}


def joined(pieces: Sequence[Piece]) -> bytes:
    """Their bytes, remembered for `known`."""
    data = pieces[0].raw if len(pieces) == 1 else b"".join([piece.raw for piece in pieces])
    if len(_remembered) >= _MOST_REMEMBERED:
        _remembered.clear()
    _remembered[data] = pieces
    return data


def known(data: bytes) -> Sequence[Piece] | None:
    """The pieces that these bytes are, where they were sent so a while ago."""
    return _remembered.get(data)
