"""How calls end badly: one error of the tree for each status that a handler answers with, and for each way to
end without an answer. Each bears all that is known, and says whether the call may have been executed.
"""

from __future__ import annotations

from typing import Any

import msgpack

from mesh.core.call import Call
from mesh.core.table import Owner
from mesh.core.wire import Status
from mesh.errors import (
    BadRequest,
    DeadlineExceeded,
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


def too_late(call: Call, owner: Owner | None, known: dict[str, Any]) -> MeshError:
    """What a call ends in whose time is out."""
    span = f"within {call.deadline - call.started:.3g} s ({call.attempt} attempts)"
    if call.maybe or call.conn is not None:
        return OutcomeUnknown(f"no verdict {span}; the call may have been executed", **known)
    where = f"its owner {owner.handler.address}" if owner else "any endpoint"
    return DeadlineExceeded(
        f"not executed {span}: partition {call.partition} had no owner that took it; "
        f"last tried {where}",
        **known,
    )


def poison(call: Call, known: dict[str, Any]) -> MeshError:
    """What a call ends in that may be what kills handlers."""
    return OutcomeUnknown(
        f"in flight on {len(call.suspects)} handler processes that died; not sent to another, "
        f"since it may be the cause",
        **known,
    )


def broken_off(call: Call, reason: str, known: dict[str, Any]) -> MeshError:
    """What a call ends in that this side gives up."""
    unknown = call.maybe or call.conn is not None
    return (OutcomeUnknown if unknown else Unavailable)(reason, **known)
