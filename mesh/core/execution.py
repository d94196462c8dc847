"""Running one request against memory: dedupe, the method, the change that has to be committed.

Pure: a request and the tenure in, a reply or an effect out. A command that raises leaves the state as it
was; its error is an outcome like any other and is committed before it is told, since a retry has to get
the same (counterexamples F8).
"""

from __future__ import annotations

import enum
from hashlib import blake2b
from typing import Any

import msgpack

from mesh.core.dedupe import Outcome, Seen, Session, outcome_field
from mesh.core.keyspace import MAX_KEY_BYTES, partition_of
from mesh.core.tenure import Conn, Effect, Pending, Slot, Tenure, state_field
from mesh.core.wire import Limits, Request, Status, pack_reply
from mesh.entities import Registry
from mesh.errors import BadRequest

MAX_VALUE_BYTES = 1024 * 1024
_NONE: bytes = msgpack.packb(None)
_PLAIN = (type(None), bool, int, float)
_SCALARS = frozenset({bool, int, float, str, bytes})
_MAX_TEXT = 4096
_MAX_DETAILS = 32


class Step(enum.Enum):
    """What became of a request."""

    ANSWERED = 1
    COMMITTING = 2
    NEEDS_LOAD = 3


def admit(
    conn: Conn, request: Request, registry: Registry, partitions: int, now: float, limits: Limits
) -> Pending:
    """Decode an admitted request's payload: [method, key, args] or [method, key, args, kwargs].

    Raises:
        BadRequest: it is malformed, over a limit, of an unknown method, or for another partition's key.
    """
    most = limits.payload_elements
    try:
        value = msgpack.unpackb(
            request.payload, max_array_len=most, max_map_len=most, max_ext_len=0
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise BadRequest(f"arguments cannot be decoded: {error!r:.200}") from None
    if not isinstance(value, list) or len(value) not in (3, 4):
        raise BadRequest("a request is [method, key, args] or [method, key, args, kwargs]")
    name, key, args, kwargs = (*value, {})[:4]
    if not (isinstance(name, str) and isinstance(args, list) and isinstance(kwargs, dict)):
        raise BadRequest(f"a request is [method, key, args, kwargs], not {value!r:.120}")
    if not isinstance(key, bytes) or not 1 <= len(key) <= MAX_KEY_BYTES:
        raise BadRequest(f"a key is 1 to {MAX_KEY_BYTES} bytes, not {key!r:.80}")
    if partition_of(key, partitions) != request.partition:
        raise BadRequest(f"key {key!r:.80} does not belong to partition {request.partition}")
    spec, method = registry.find(name)
    method.check(args, kwargs)
    return Pending(
        conn,
        request,
        now + request.deadline_ms / 1000,
        spec,
        method,
        state_field(spec.name, key),
        args,
        kwargs,
        blake2b(request.payload, digest_size=8).digest(),
    )


def step(tenure: Tenure, pending: Pending) -> tuple[Step, Effect | None]:
    """Take a request as far as memory allows; with COMMITTING comes the effect to commit."""
    if pending.method.query:
        slot = _slot(tenure, pending)
        if slot is None:
            return Step.NEEDS_LOAD, None
        _answer(pending, *_run_query(slot, pending))
        return Step.ANSWERED, None
    request = pending.request
    session = tenure.log.session(request.session)
    session.settle_below(request.lowest)
    seen, outcome = session.check(request.counter, pending.digest)
    if seen is Seen.NEW:
        slot = _slot(tenure, pending)
        if slot is None or not (tenure.warm or pending.looked_up):
            return Step.NEEDS_LOAD, None
        return Step.COMMITTING, _run_command(tenure, slot, session, pending)
    if seen is Seen.RECORDED and outcome is not None:
        _answer(pending, outcome.status, outcome.payload)
    elif seen is Seen.RUNNING:
        effect = session.running[request.counter]
        assert isinstance(effect, Effect)
        effect.waiters.append(pending.conn)
    elif seen is Seen.CONFLICT:
        _answer(pending, Status.CONFLICT, msgpack.packb("this id was used with other arguments"))
    else:
        _answer(pending, Status.UNKNOWN, msgpack.packb("this call was settled or given up before"))
    return Step.ANSWERED, None


def acknowledge(effect: Effect) -> None:
    """The effect is on every in-sync node: record it, show it, answer everyone who waits for it."""
    outcome = effect.outcome
    effect.session.finish(effect.counter, outcome)
    effect.slot.pending -= 1
    effect.slot.acknowledge(effect.after)
    frame = pack_reply(effect.counter, outcome.status, outcome.payload)
    for conn in effect.waiters:
        conn.send(frame)


def _slot(tenure: Tenure, pending: Pending) -> Slot | None:
    slot = tenure.slots.get(pending.field)
    if slot is None and tenure.warm and tenure.complete:
        slot = tenure.slots[pending.field] = Slot(pending.spec, None)
    return slot


def _answer(pending: Pending, status: int, payload: bytes) -> None:
    pending.conn.send(pack_reply(pending.request.counter, status, payload))


def _run_query(slot: Slot, pending: Pending) -> tuple[int, bytes]:
    instance = slot.readable()
    try:
        result = pending.method.function(instance, *pending.args, **pending.kwargs)
        payload = _pack_result(result)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a user's method raises is its outcome
        status, payload = Status.ENTITY_ERROR, pack_error(error)
    else:
        status = Status.OK
    if _wrote(slot, instance):
        if instance is slot.instance:
            slot.rebuild()
        slot.image = None
        refusal = TypeError(
            f"query {pending.method.name} changed the state; make it a @mesh.command"
        )
        return Status.ENTITY_ERROR, pack_error(refusal)
    return status, payload


def _wrote(slot: Slot, instance: Any) -> bool:
    before = slot.blob if instance is slot.instance else slot.acked
    try:
        return slot.spec.encode(instance, slot.extra) != before
    except (TypeError, ValueError):
        return True


def _run_command(tenure: Tenure, slot: Slot, session: Session, pending: Pending) -> Effect:
    before = slot.blob
    try:
        result = pending.method.function(slot.instance, *pending.args, **pending.kwargs)
        payload = _pack_result(result)
        after = _pack_state(slot)
        status = Status.OK
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a user's method raises is its outcome
        slot.rebuild()
        after, status, payload = before, Status.ENTITY_ERROR, pack_error(error)
    if after == before:
        after = before
    slot.blob = after
    slot.pending += 1
    counter = pending.request.counter
    outcome = Outcome(pending.digest, status, payload)
    fields, deleted = session.due_drops()
    fields[outcome_field(session.number, counter)] = outcome.encode()
    if after is not before:
        # A key that is back at its defaults reads the same as one that was never written.
        if after == slot.spec.default_blob:
            deleted.append(pending.field)
        else:
            fields[pending.field] = after
    effect = Effect(tenure, slot, after, session, pending, outcome, fields, deleted)
    session.start(counter, effect)
    return effect


def _pack_state(slot: Slot) -> bytes:
    state = slot.encode()
    if len(state) > MAX_VALUE_BYTES:
        raise ValueError(f"state of {len(state)} bytes is over the limit of {MAX_VALUE_BYTES}")
    return state


def _pack_result(result: Any) -> bytes:
    if result is None:
        return _NONE
    payload: bytes = msgpack.packb(result)
    if len(payload) > MAX_VALUE_BYTES:
        raise ValueError(f"reply of {len(payload)} bytes is over the limit of {MAX_VALUE_BYTES}")
    if type(result) not in _SCALARS:
        # A map whose keys are tuples can be packed, and by nobody be unpacked. Once it is committed
        # it is too late to say so: a retry gets the very same bytes.
        try:
            msgpack.unpackb(payload, strict_map_key=False)
        except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
            raise ValueError(f"its caller could not decode this reply: {error!r:.200}") from None
    return payload


def pack_error(error: BaseException) -> bytes:
    """An exception as the caller gets it: [type, message, plain arguments].

    Bounded, since it is recorded and sent like any reply, and total: neither an exception that cannot
    be shown nor one that carries megabytes may take the handler with it.
    """
    name = type(error).__name__
    try:
        details = [_detail(a) for a in error.args[:_MAX_DETAILS]]
        blob: bytes = msgpack.packb([name, str(error)[:_MAX_TEXT], details])
    except Exception:  # noqa: BLE001 - __str__ and __repr__ are a user's code too
        blob = msgpack.packb([name, "its message cannot be shown", []])
    return blob


def _detail(value: Any) -> Any:
    if isinstance(value, str | bytes):
        return value[:_MAX_TEXT]
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        return f"an integer of {value.bit_length()} bits"
    return value if isinstance(value, _PLAIN) else repr(value)[:200]
