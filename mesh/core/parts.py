"""Only what changed is written: a key's large values are stored beside its state, each in a field of its own.

In memory a state is one row of bytes, whatever its size: what a command did is told by comparing two of them,
undone from one, and queries are shown an earlier one. Only the way to the store cuts it up, so that a counter
beside a document of 1 MiB costs the store and each replica a few bytes for each change, not the document.

    "s" entity NUL key                        the state. Small values only: the whole row, as ever. With
                                              large ones: [names, version, fields], nil where one is
    "p" length(u32) state's name field        a large value, by the name of the state's field and its own

An entity's name holds no NUL and a key may; hence the length in a part's name. No user's value can pass for
a cut state: it is told by its outermost list of three, and a whole state is a map or a list of two. Where the
entity has a ttl, the time of the last change stands before either (mesh.core.expiry).

The row of bytes is cut when it is written and put together when it is read. Both belong to one moment: all of
a commit's fields are written in one step, and a key's fields are read in one. A value of up to LARGE_BYTES
stays in the state: a field of its own has its price (a name as long as the key's, an entry in the hash, a
second read). Once cut out it stays so until it is clearly small, or a value at the edge would come and go.
A state of one value only is not cut: whatever changes it changes that.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import NamedTuple

import msgpack

from mesh.core.rows import end_of, value_at, values_of

PART_PREFIX = b"p"
LARGE_BYTES = 1024
"""A packed value of more than this gets a field of its own."""
SMALL_BYTES = LARGE_BYTES // 2
"""One that has a field of its own goes back into the state below this."""

_LENGTH = struct.Struct(">I")
_NAME_AT = len(PART_PREFIX) + _LENGTH.size
_CUT = 0x93
_VERSIONED = 0x92
_AT_MOST_ONE_VALUE = (0x80, 0x81)
_NIL: bytes = msgpack.packb(None)
_FIRST_VERSION: bytes = msgpack.packb(1)
_ELSEWHERE = (0, 0)
"""Where a stored value is that the row of bytes does not have like that: equal to none."""

Span = tuple[int, int]


class Cut(NamedTuple):
    """How the store has a state that has large values.

    Attributes:
        head: what stands in the state's own field.
        spans: by name the large values that it has, and where in the whole row of bytes each is.
    """

    head: bytes
    spans: dict[str, Span]


# --------------------------------------------------------------------------------------------------- names


def part_field(field: bytes, name: str) -> bytes:
    """Name of a large value in its partition's hash.

    Args:
        field: name of the key's state there.
        name: of the value among the entity's fields.
    """
    return PART_PREFIX + _LENGTH.pack(len(field)) + field + name.encode()


def split_part_field(name: bytes) -> tuple[bytes, str]:
    """The name of the key's state, and of the value among the entity's fields.

    Raises:
        ValueError: no part is named like that.
    """
    try:
        (length,) = _LENGTH.unpack_from(name, len(PART_PREFIX))
    except struct.error as error:
        raise ValueError(f"no part of a state is named {name!r:.80}: {error}") from None
    if len(name) < _NAME_AT + length:
        raise ValueError(f"no part of a state is named {name!r:.80}: it is cut off")
    return name[_NAME_AT : _NAME_AT + length], name[_NAME_AT + length :].decode()


def stored_fields(field: bytes, cut: Cut | None) -> list[bytes]:
    """All fields that a key has in its partition's hash; its state's comes first."""
    return [field] if cut is None else [field, *(part_field(field, name) for name in cut.spans)]


# ------------------------------------------------------------------------------------------------- writing


def write(
    field: bytes,
    before: bytes,
    cut: Cut | None,
    after: bytes,
    fields: dict[bytes, bytes],
    deleted: list[bytes],
) -> Cut | None:
    """Add to a commit what the store lacks of a state that changed; how the store will have it then.

    Args:
        field: name of the key's state.
        before: the state that the last commit left; `cut` is how the store has that.
        after: the state to be stored.
        fields: what the commit writes.
        deleted: what it deletes.
    """
    stored: Mapping[str, Span] = {} if cut is None else cut.spans
    new = _cut_up(after, stored)
    if new is None:
        fields[field] = after
        deleted.extend(part_field(field, name) for name in stored)
        return None
    if cut is None or new.head != cut.head:
        fields[field] = new.head
    view = memoryview(after)
    for name, (start, end) in new.spans.items():
        if not _is_at(before, stored.get(name, _ELSEWHERE), view[start:end]):
            fields[part_field(field, name)] = after[start:end]
    deleted.extend(part_field(field, name) for name in stored if name not in new.spans)
    return new


def _is_at(before: bytes, span: Span, value: memoryview) -> bool:
    start, end = span
    return end - start == len(value) and before.startswith(value, start)  # memcmp, no copy


def _cut_up(state: bytes, cut_out: Collection[str]) -> Cut | None:
    """The state as it is to be stored if it has large values; those that are cut out may be smaller."""
    fields_at = _fields_at(state)
    if state[fields_at] in _AT_MOST_ONE_VALUE:
        return None
    spans: dict[str, Span] = {}
    for name, start, end in values_of(state, fields_at):
        size = end - start
        large = size > LARGE_BYTES or (size >= SMALL_BYTES and name in cut_out)
        if large and type(name) is str:
            spans[name] = start, end
    if not spans:
        return None
    version = state[1:fields_at] or _FIRST_VERSION
    pieces = [_lead(tuple(spans), version)]
    at = fields_at
    for start, end in spans.values():
        pieces += state[at:start], _NIL
        at = end
    pieces.append(state[at:])
    return Cut(b"".join(pieces), spans)


# ------------------------------------------------------------------------------------------------- reading


def is_cut(head: bytes) -> bool:
    """What a state's field holds is not all of it."""
    return head[:1] == b"\x93"


def names_in(head: bytes) -> list[str]:
    """The large values that a state's field refers to; none where it holds all of it.

    Raises:
        ValueError: it is no state.
    """
    return _head(head)[0] if is_cut(head) else []


def put_together(head: bytes, parts: Mapping[str, bytes | None]) -> tuple[bytes, Cut | None]:
    """The whole state, and how the store has it.

    Raises:
        ValueError: it is none, or a part of it is missing.
    """
    if not is_cut(head):
        return head, None
    names, version, at = _head(head)
    holes = {name: (start, end) for name, start, end in values_of(head, at) if type(name) is str}
    start = b"" if version == _FIRST_VERSION else bytes((_VERSIONED,)) + version
    pieces, length = [start], len(start)
    spans: dict[str, Span] = {}
    for name in names:
        hole, part = holes.get(name), parts.get(name)
        if part is None or hole is None or hole[0] < at or head[hole[0] : hole[1]] != _NIL:
            raise ValueError(f"its large value {name!r:.80} is missing")
        pieces += head[at : hole[0]], part
        length += hole[0] - at + len(part)
        spans[name] = length - len(part), length
        at = hole[1]
    pieces.append(head[at:])
    return b"".join(pieces), Cut(head, spans)


def rewritten(cut: Cut, before: bytes, after: bytes) -> Cut:
    """How the store has a state that this version of its class writes otherwise: nothing was stored for it.

    What the next commit writes is told by this; a value that a migration has changed is to be among it.
    """
    view = memoryview(after)
    now = {
        name: (start, end)
        for name, start, end in values_of(after, _fields_at(after))
        if name in cut.spans and _is_at(before, cut.spans[name], view[start:end])
    }
    return Cut(b"", {name: now.get(name, _ELSEWHERE) for name in cut.spans})


# ------------------------------------------------------------------------------------------- rows of bytes


@lru_cache(maxsize=1024)
def _lead(names: tuple[str, ...], version: bytes) -> bytes:
    """What a cut state begins with: most of them have the same values cut out all the time."""
    lead: bytes = msgpack.packb(list(names))
    return bytes((_CUT,)) + lead + version


def _head(head: bytes) -> tuple[list[str], bytes, int]:
    """Names of the values that are cut out, the version's bytes, and where the fields begin."""
    names_end = end_of(head, 1)
    names = value_at(head, 1, names_end)
    if type(names) is not list or not all(type(name) is str for name in names):
        raise ValueError(f"a list of names is needed, not {names!r:.80}")
    fields_at = end_of(head, names_end)
    return names, head[names_end:fields_at], fields_at


def _fields_at(state: bytes) -> int:
    """Where the fields of a whole state begin."""
    return end_of(state, 1) if state[0] == _VERSIONED else 0
