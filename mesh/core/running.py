"""Running a method: against memory, its result or its error, the change that has to be committed.

A command that raises leaves the state as it was; its error is an outcome like any other. A query answers
from what is acknowledged, and one that writes changes nothing.
"""

from __future__ import annotations

from typing import Any

import msgpack

from mesh.codec import Codec
from mesh.core.outcomes import Outcome, Records
from mesh.core.tenure import Effect, Pending, Slot, Tenure
from mesh.core.wire import Status

MAX_VALUE_BYTES = 1024 * 1024
_NONE: bytes = msgpack.packb(None)
_NO_DETAILS: bytes = msgpack.packb([])
_SCALARS = frozenset({bool, int, float, str, bytes})
_MAX_TEXT = 4096
_MAX_DETAIL_BYTES = 4 * _MAX_TEXT
"""Of one argument; as much as the longest text takes."""
_MAX_DETAILS = 32


def run_query(slot: Slot, pending: Pending) -> tuple[int, bytes]:
    """Status and payload of the answer, from acknowledged state."""
    instance = slot.readable()
    try:
        result = pending.method.function(instance, *pending.args, **pending.kwargs)
        payload = _pack_result(slot, result)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a user's method raises is its outcome
        status, payload = Status.ENTITY_ERROR, pack_error(error, slot.spec.codec)
    else:
        status = Status.OK
    if _wrote(slot, instance):
        if instance is slot.instance:
            slot.rebuild()
        slot.image = None
        refusal = TypeError(
            f"query {pending.method.name} changed the state; make it a @mesh.command"
        )
        return Status.ENTITY_ERROR, pack_error(refusal, slot.spec.codec)
    return status, payload


def _wrote(slot: Slot, instance: Any) -> bool:
    before = slot.blob if instance is slot.instance else slot.acked
    try:
        return slot.spec.encode(instance, slot.extra) != before
    except (TypeError, ValueError):
        return True


def run_command(tenure: Tenure, slot: Slot, records: Records, pending: Pending) -> Effect:
    """Run it against memory; what comes back has to be committed before anyone is answered."""
    before = slot.blob
    try:
        result = pending.method.function(slot.instance, *pending.args, **pending.kwargs)
        payload = _pack_result(slot, result)
        after = _pack_state(slot)
        status = Status.OK
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a user's method raises is its outcome
        slot.rebuild()
        after, status, payload = before, Status.ENTITY_ERROR, pack_error(error, slot.spec.codec)
    if after == before:
        after = before
    slot.blob = after
    slot.pending += 1
    counter = pending.request.counter
    outcome = Outcome(pending.digest, status, payload)
    fields, deleted = records.write(counter, outcome)
    if after is not before:
        # A key that is back at its defaults reads the same as one that was never written.
        if after == slot.spec.default_blob:
            deleted.append(pending.field)
        else:
            fields[pending.field] = after
    effect = Effect(tenure, slot, after, records, pending, outcome, fields, deleted)
    records.start(counter, effect)
    return effect


def _pack_state(slot: Slot) -> bytes:
    state = slot.encode()
    if len(state) > MAX_VALUE_BYTES:
        raise ValueError(f"state of {len(state)} bytes is over the limit of {MAX_VALUE_BYTES}")
    return state


def _pack_result(slot: Slot, result: Any) -> bytes:
    if result is None:
        return _NONE
    codec = slot.spec.codec
    payload = codec.pack(result)
    if len(payload) > MAX_VALUE_BYTES:
        raise ValueError(f"reply of {len(payload)} bytes is over the limit of {MAX_VALUE_BYTES}")
    if type(result) not in _SCALARS:
        # Once it is committed it is too late to say so: a retry gets the very same bytes.
        try:
            codec.unpack(payload)
        except ValueError as error:
            raise ValueError(f"its caller could not decode this reply: {error}") from None
    return payload


def pack_error(error: BaseException, codec: Codec) -> bytes:
    """An exception as the caller gets it: [type, message, its arguments as the entity's codec writes them].

    Bounded, since it is recorded and sent like any reply, and total: neither an exception that cannot
    be shown nor one that carries megabytes may take the handler with it.
    """
    name = type(error).__name__.encode(errors="replace").decode()
    try:
        details = codec.pack([_detail(a, codec) for a in error.args[:_MAX_DETAILS]])
        message = str(error)[:_MAX_TEXT].encode(errors="replace").decode()
        blob: bytes = msgpack.packb([name, message, details])
    except Exception:  # noqa: BLE001 - __str__ and __repr__ are a user's code too
        blob = msgpack.packb([name, "its message cannot be shown", _NO_DETAILS])
    return blob


def _detail(value: Any, codec: Codec) -> Any:
    """The value itself where it can be sent and is not large, else what it looks like."""
    if isinstance(value, str | bytes):
        value = value[:_MAX_TEXT]
    try:
        if len(codec.pack(value)) <= _MAX_DETAIL_BYTES:
            return value
    except (TypeError, ValueError):
        pass
    return repr(value)[:200].encode(errors="replace").decode()
