"""Where the values of a packed map are, found without unpacking them: see mesh.core.parts.

msgpack's own reader can skip values, but has to be given a copy of all that it reads, and each one costs
2 us to make. A state that is cut up is walked with every change, and most of its values are scalars and text,
whose first byte says how long they are. So those are walked here, and what has many elements is left to
msgpack. (A counter beside a text of 1 MiB: 2 us instead of 31. A list of 200,000 numbers: 600 us, and the
state takes ten times as long to be packed.)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack

_MOST_STEPS = 64
"""Elements inside one value that are walked here."""
_UNREADABLE = (ValueError, TypeError, LookupError, OverflowError, msgpack.UnpackException)


def _sizes() -> list[int]:
    """By its first byte, how long a value is that has no length of its own; 0 for the others."""
    sizes = [1] * 0x80 + [0] * 0x20 + [1 + size for size in range(0x20)] + [0] * 0x20 + [1] * 0x20
    for kinds, size in (
        ((0xC0, 0xC2, 0xC3), 1),  # nil, booleans
        ((0xCC, 0xD0), 2),  # whole numbers
        ((0xCD, 0xD1), 3),
        ((0xCA, 0xCE, 0xD2), 5),  # a float of 4 bytes among them
        ((0xCB, 0xCF, 0xD3), 9),
    ):
        for kind in kinds:
            sizes[kind] = size
    for power in range(5):
        sizes[0xD4 + power] = 2 + 2**power  # extension types
    return sizes


_SIZES = _sizes()
_LENGTHS = {
    0xC4: (1, 0),
    0xC5: (2, 0),
    0xC6: (4, 0),
    0xC7: (1, 1),
    0xC8: (2, 1),
    0xC9: (4, 1),
    0xD9: (1, 0),
    0xDA: (2, 0),
    0xDB: (4, 0),
}
"""Bytes, extension types and text: how many bytes their length takes, and what else is in front."""


def end_of(row: bytes, start: int) -> int:
    """Where the value ends that starts there.

    Raises:
        ValueError: there is none, or it is cut off.
    """
    at, left = start, 1
    try:
        for _ in range(_MOST_STEPS):
            kind = row[at]
            left -= 1
            size = _SIZES[kind]
            if size:
                at += size
            elif kind in _LENGTHS:
                width, more = _LENGTHS[kind]
                body = at + 1 + width
                at = body + more + int.from_bytes(row[at + 1 : body], "big")
            elif 0x80 <= kind < 0xA0:
                left += kind & 15 if kind & 16 else 2 * (kind & 15)
                at += 1
            else:
                break  # many elements, or no value at all
            if not left:
                if at > len(row):
                    raise ValueError(f"a value at byte {start} of {len(row)} is cut off")
                return at
        reader = msgpack.Unpacker(read_size=len(row) - start, max_buffer_size=len(row) - start)
        reader.feed(memoryview(row)[start:])
        reader.skip()
        return start + int(reader.tell())
    except _UNREADABLE as error:
        raise ValueError(f"no value at byte {start} of {len(row)}: {error!r:.200}") from error


def values_of(row: bytes, at: int) -> Iterator[tuple[Any, int, int]]:
    """Name, start and end of each value of the map that begins there.

    Raises:
        ValueError: it is none.
    """
    kind = row[at] if at < len(row) else 0
    if 0x80 <= kind < 0x90:
        count, at = kind & 15, at + 1
    elif kind in (0xDE, 0xDF):
        body = at + (3 if kind == 0xDE else 5)
        count, at = int.from_bytes(row[at + 1 : body], "big"), body
    else:
        raise ValueError(f"no map at byte {at} of {len(row)}")
    for _ in range(count):
        start = end_of(row, at)
        name, at = value_at(row, at, start), end_of(row, start)
        yield name, start, at


def value_at(row: bytes, start: int, end: int) -> Any:
    """The value there, as far as it is of msgpack's own types.

    Raises:
        ValueError: it cannot be read.
    """
    if 0xA0 <= row[start] < 0xC0:
        return row[start + 1 : end].decode()
    try:
        return msgpack.unpackb(row[start:end], strict_map_key=False)
    except _UNREADABLE as error:
        raise ValueError(f"no value at byte {start} of {len(row)}: {error!r:.200}") from error
