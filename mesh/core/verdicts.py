"""What a handler's answer means to the caller: one error of the tree for each status, with all that is known
of it.
"""

from __future__ import annotations

from typing import Any

import msgpack

from mesh.core.wire import Status
from mesh.errors import (
    BadRequest,
    EntityError,
    IdempotencyConflict,
    MeshError,
    OutcomeUnknown,
    Overloaded,
    ProtocolError,
    Unavailable,
)

UNDECODABLE = (ValueError, TypeError, RecursionError, msgpack.UnpackException)
"""What msgpack raises at bytes that it cannot make values of."""
_TRY_AGAIN_S = 0.1


def verdict(status: int, payload: bytes, known: dict[str, Any], *, maybe: bool) -> MeshError:
    """The error that a call ends in.

    Args:
        status: of the answer; any but OK, REDIRECT, NOT_READY, MAYBE and EXPIRED.
        payload: of the answer.
        known: handler, partition, epoch and idempotency key, for the error to bear.
        maybe: an earlier attempt, on a connection that broke, may have run, whatever this one was told.
    """
    try:
        value: Any = msgpack.unpackb(payload, strict_map_key=False)
        if status == Status.ENTITY_ERROR:
            name, message, details = value
            return EntityError(message, type=name, details=details, **known)
        if status == Status.OVERLOADED:
            reason, wait_s = value if isinstance(value, list) else (value, _TRY_AGAIN_S)
            executed = None if maybe else False
            text = f"{reason}; try again in {wait_s:.6g} s"
            return Overloaded(text, retry_after=wait_s, executed=executed, **known)
    except UNDECODABLE as error:
        text = f"answered with status {status} and what cannot be decoded: {error!r:.200}"
        executed = True if status == Status.ENTITY_ERROR else None
        return ProtocolError(text, executed=executed, **known)
    if status == Status.RULED_OUT:
        # For good, and whatever became of earlier attempts: there was no record when this was written.
        return IdempotencyConflict(
            f"the call under the idempotency key {known['idempotency_key']!r} was ruled out: its outcome "
            f"was asked for before it had run, so it never will; to call anew take another key",
            executed=False,
            **known,
        )
    if status == Status.CONFLICT and known["idempotency_key"] is not None:
        value = (
            f"the idempotency key {known['idempotency_key']!r} was used before on this key of this entity, "
            f"with another method or other arguments; a new call needs a new one"
        )
    if status in _SURE:
        return _SURE[status](value, executed=None if maybe else False, **known)
    if status == Status.UNREADABLE and not maybe:
        return Unavailable(value, **known)
    return OutcomeUnknown(str(value), **known)


_SURE: dict[int, type[MeshError]] = {
    Status.BAD_REQUEST: BadRequest,
    Status.CONFLICT: IdempotencyConflict,
}
