"""Epoch of a partition's tenure: (life, counter), packed into the 32 bits that a grant holds.

A new one is given for each tenure, of the same process too, so an epoch never comes back: the
life half makes that hold after the store itself went back in time (counterexamples F4).
0 stands for "not held".
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable
from itertools import compress

from mesh.core.life_numbers import count_of

MAX_LIFE = 0xFFFF
MAX_COUNTER = 0xFFFF
NOT_HELD = 0


def epoch_of(life: int, counter: int) -> int:
    """Pack (life, counter); both 1 … 65,535."""
    if not 1 <= life <= MAX_LIFE or not 1 <= counter <= MAX_COUNTER:
        raise ValueError(f"epoch ({life}, {counter}) is out of range 1…{MAX_COUNTER}")
    return life << 16 | counter


def life_of(epoch: int) -> int:
    """The count of the store's life in which the epoch was given."""
    return epoch >> 16


def next_epoch(current: int, life: int) -> int:
    """The epoch that follows `current` for the same partition in the life of that number.

    Raises:
        OverflowError: 65,535 tenures of one partition in one life are used up; a new life is due.
    """
    count = count_of(life)
    if life_of(current) > count:
        raise ValueError(f"epoch {format_epoch(current)} is newer than life {count}")
    if life_of(current) < count:
        return epoch_of(count, 1)
    if current & 0xFFFF == MAX_COUNTER:
        raise OverflowError(f"epoch {format_epoch(current)} has no successor within its life")
    return current + 1


def format_epoch(epoch: int) -> str:
    """As people read it: life.counter."""
    return f"{epoch >> 16}.{epoch & 0xFFFF}"


def pack_epochs(epochs: Iterable[int]) -> bytes:
    """One epoch a partition, 4 bytes each, big-endian, as a grant holds them."""
    packed = array("I", epochs)
    if sys.byteorder == "little":
        packed.byteswap()
    return packed.tobytes()


def unpack_epochs(blob: bytes) -> array[int]:
    """Read a grant's packed epochs."""
    epochs = array("I")
    epochs.frombytes(blob)
    if sys.byteorder == "little":
        epochs.byteswap()
    return epochs


def differing(one: array[int], other: array[int]) -> list[int]:
    """Where two lists of epochs differ, which are equally long.

    Compared as two large numbers: a third of what it takes one by one.
    """
    if one == other:
        return []
    order = sys.byteorder
    apart = int.from_bytes(one.tobytes(), order) ^ int.from_bytes(other.tobytes(), order)
    marks = array("I")
    marks.frombytes(apart.to_bytes(one.itemsize * len(one), order))
    return list(compress(range(len(marks)), marks))
