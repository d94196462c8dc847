"""The types beyond msgpack's own that values may have without being declared, as extension types.

Each is written as parts that can be encoded again (a tuple as a list, a date as a number), so a part needs
no format of its own. The codes are stored for ever: never give one to another type.

Exact to the last bit: a Decimal keeps its trailing zeros and its sign, a datetime its microseconds, fold and
time zone. A zone is stored as what it is, an offset or the name of a region, and never as another: "the same
instant in another zone" is another value. Zones of other libraries are refused.
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

_MICROSECOND = dt.timedelta(microseconds=1)
_MOST_ZONE_NAME = 255


class ExtType(NamedTuple):
    """One type: its code, a value's parts, and a value from its parts.

    `decode` raises TypeError, ValueError, ArithmeticError or LookupError at parts that are none of its own.
    """

    code: int
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


def _listed(parts: Any) -> list[Any]:
    if type(parts) is not list:
        raise TypeError(f"a list is needed, not {parts!r:.80}")
    return parts


def _encode_int(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _decode_int(parts: Any) -> int:
    if type(parts) is not bytes:
        raise TypeError(f"bytes are needed, not {parts!r:.80}")
    return int.from_bytes(parts, "big", signed=True)


def _encode_decimal(value: Decimal) -> str:
    # In capitals, since the thread's decimal context decides whether it is 1E+5 or 1e+5.
    return str(value).upper()


def _decode_decimal(parts: Any) -> Decimal:
    if type(parts) is not str:
        raise TypeError(f"text is needed, not {parts!r:.80}")
    return Decimal(parts)


def _encode_zone(value: dt.datetime | dt.time) -> list[Any]:
    zone = value.tzinfo
    if zone is None:
        return []
    if type(zone) is zoneinfo.ZoneInfo and zone.key:
        return [zone.key]
    if type(zone) is not dt.timezone:
        raise TypeError(
            f"time zone {zone!r:.80} cannot be stored: use datetime.timezone, or zoneinfo.ZoneInfo by its key"
        )
    offset = zone.utcoffset(None)
    name = zone.tzname(None)
    plain = dt.timezone(offset).tzname(None)
    return [offset // _MICROSECOND] if name == plain else [offset // _MICROSECOND, name]


def _decode_zone(parts: list[Any]) -> dt.tzinfo | None:
    if not parts:
        return None
    if len(parts) == 1 and type(parts[0]) is str:
        if len(parts[0]) > _MOST_ZONE_NAME:
            raise ValueError(f"no time zone is named {parts[0]!r:.80}")
        try:
            return zoneinfo.ZoneInfo(parts[0])
        except (OSError, LookupError) as error:
            raise ValueError(f"this machine knows no time zone {parts[0]!r:.80}") from error
    return dt.timezone(parts[0] * _MICROSECOND, *parts[1:])


def _encode_datetime(v: dt.datetime) -> list[Any]:
    when = [v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond, v.fold]
    return [*when, *_encode_zone(v)]


def _decode_datetime(parts: Any) -> dt.datetime:
    year, month, day, hour, minute, second, microsecond, fold, *zone = _listed(parts)
    return dt.datetime(
        year, month, day, hour, minute, second, microsecond, _decode_zone(zone), fold=fold
    )


def _encode_time(v: dt.time) -> list[Any]:
    return [v.hour, v.minute, v.second, v.microsecond, v.fold, *_encode_zone(v)]


def _decode_time(parts: Any) -> dt.time:
    hour, minute, second, microsecond, fold, *zone = _listed(parts)
    return dt.time(hour, minute, second, microsecond, _decode_zone(zone), fold=fold)


def _encode_timedelta(value: dt.timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _decode_timedelta(parts: Any) -> dt.timedelta:
    days, seconds, microseconds = _listed(parts)
    if not all(type(part) is int for part in parts):
        raise TypeError(f"whole numbers are needed, not {parts!r:.80}")
    return dt.timedelta(days, seconds, microseconds)


def _decode_uuid(parts: Any) -> UUID:
    if type(parts) is not bytes:
        raise TypeError(f"bytes are needed, not {parts!r:.80}")
    return UUID(bytes=parts)


def _decode_set(parts: Any) -> set[Any]:
    return set(_listed(parts))


def _decode_frozenset(parts: Any) -> frozenset[Any]:
    return frozenset(_listed(parts))


def _decode_tuple(parts: Any) -> tuple[Any, ...]:
    return tuple(_listed(parts))


NAMED = 32
"""Code of every declared type; its parts are [name, parts]."""

BY_TYPE: dict[type, ExtType] = {
    tuple: ExtType(1, list, _decode_tuple),
    set: ExtType(2, list, _decode_set),
    frozenset: ExtType(3, list, _decode_frozenset),
    int: ExtType(4, _encode_int, _decode_int),  # beyond 64 bits
    Decimal: ExtType(5, _encode_decimal, _decode_decimal),
    dt.datetime: ExtType(6, _encode_datetime, _decode_datetime),
    dt.date: ExtType(7, dt.date.toordinal, dt.date.fromordinal),
    dt.time: ExtType(8, _encode_time, _decode_time),
    dt.timedelta: ExtType(9, _encode_timedelta, _decode_timedelta),
    UUID: ExtType(10, lambda value: value.bytes, _decode_uuid),
}
BY_CODE: dict[int, ExtType] = {ext.code: ext for ext in BY_TYPE.values()}
