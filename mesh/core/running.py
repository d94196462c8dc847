"""Running a method: against memory, its result or its error, the change that has to be committed.

A command that raises leaves the state as it was; its error is an outcome like any other. A query answers
from what is acknowledged, and one that writes changes nothing.

A plain method runs at once on the live instance. An async or blocking one runs apart (mesh.core.runs) on a
copy of its own: `begin_run` makes it, and `finish_command` or `finish_query` judge what became of it.
Undoing such a run is forgetting its copy, and queries meanwhile never see one that is half done.
"""

from __future__ import annotations

from typing import Any

import msgpack

from mesh.codec import Codec
from mesh.core.expiry import changed_at, stamp
from mesh.core.outcomes import Outcome, Records
from mesh.core.parts import LARGE_BYTES, stored_fields, write
from mesh.core.runs import Run
from mesh.core.tenure import FOREVER, Effect, Pending, Slot, Waiter
from mesh.core.wire import Status

_OK: int = Status.OK  # an enum's member takes 80 ns to look up
_FAILED: int = Status.ENTITY_ERROR
_NONE: bytes = msgpack.packb(None)
_NO_DETAILS: bytes = msgpack.packb([])
_SCALARS = frozenset({bool, int, float, str, bytes})
_MAX_TEXT = 4096
_MAX_DETAIL_BYTES = 4 * _MAX_TEXT
"""Of one argument; as much as the longest text takes."""
_MAX_DETAILS = 32


class TimeLimitExceeded(Exception):
    """What a run ends in that took too long; its caller gets it as an EntityError of this name."""


# ------------------------------------------------------------------------------------------ plain methods


def run_query(slot: Slot, pending: Pending) -> tuple[int, bytes]:
    """Status and payload of the answer, from acknowledged state."""
    instance = slot.readable()
    here = pending.tenure.home.here
    here.source = pending
    try:
        result = pending.method.function(instance, *pending.args, **pending.kwargs)
        payload = _pack_result(pending, result)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a user's method raises is its outcome
        status, payload = _FAILED, _pack_error_of(pending, error)
    else:
        status = _OK
    finally:
        here.source = None
    if _wrote(slot, instance):
        if instance is slot.instance:
            slot.rebuild()
        slot.image = None
        return _refuse_writing(pending)
    return status, payload


def _wrote(slot: Slot, instance: Any) -> bool:
    before = slot.blob if instance is slot.instance else slot.acked
    try:
        return slot.spec.encode(instance, slot.extra) != before
    except (TypeError, ValueError):
        return True


def run_command(slot: Slot, records: Records, pending: Pending) -> Effect:
    """Run it against memory; what comes back has to be committed before anyone is answered."""
    here = pending.tenure.home.here
    here.source = pending
    try:
        result = pending.method.function(slot.instance, *pending.args, **pending.kwargs)
        payload = _pack_result(pending, result)
        after = _checked(pending, slot.encode())
        status = _OK
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a user's method raises is its outcome
        slot.rebuild()
        after, status, payload = slot.blob, _FAILED, _pack_error_of(pending, error)
    finally:
        here.source = None
    outcome = Outcome(pending.digest, status, payload)
    return _effect(
        slot, records, pending, after, outcome, [(pending.conn, pending.request.counter)]
    )


# ------------------------------------------------------------------------------- async and blocking methods


def begin_run(run: Run) -> None:
    """Give it its own copy of the key's state: a command's as the last command left it, a query's as it is
    acknowledged.
    """
    slot = run.slot
    run.before = slot.acked if run.pending.method.query else slot.blob
    run.instance, run.extra = slot.spec.decode(run.before)


def finish_query(run: Run, result: Any, error: BaseException | None) -> tuple[int, bytes]:
    """Status and payload of the answer."""
    pending = run.pending
    payload, status = b"", Status.OK
    if error is None:
        try:
            payload = _pack_result(pending, result)
        except Exception as raised:  # noqa: BLE001 - encoding is a user's code too
            error = raised
    if error is not None:
        status, payload = Status.ENTITY_ERROR, _pack_error_of(pending, error)
        if run.instance is None or isinstance(error, TimeLimitExceeded):
            # There is no copy, or somebody may still be at work on it: it says nothing.
            return status, payload
    try:
        wrote = pending.spec.encode(run.instance, run.extra) != run.before
    except (TypeError, ValueError):
        wrote = True
    return _refuse_writing(pending) if wrote else (status, payload)


def finish_command(run: Run, result: Any, error: BaseException | None) -> Effect:
    """What has to be committed before anyone is answered."""
    pending, slot = run.pending, run.slot
    assert run.records is not None
    after, payload, status = run.before, b"", Status.OK
    live: tuple[Any, dict[str, Any]] | None = None
    if error is None:
        try:
            payload = _pack_result(pending, result)
            after = _checked(pending, pending.spec.encode(run.instance, run.extra))
            if after != run.before:
                # From the bytes: whatever the method has left behind may still hold the copy.
                live = pending.spec.decode(after)
        except Exception as raised:  # noqa: BLE001 - encoding is a user's code too
            error = raised
    if error is not None:
        after, status, payload = run.before, Status.ENTITY_ERROR, _pack_error_of(pending, error)
    outcome = Outcome(pending.digest, status, payload)
    effect = _effect(slot, run.records, pending, after, outcome, run.waiters)
    if live is not None and error is None:
        slot.instance, slot.extra = live
    return effect


# ------------------------------------------------------------------------------------------------- both


def _effect(
    slot: Slot,
    records: Records,
    pending: Pending,
    after: bytes,
    outcome: Outcome,
    waiters: list[Waiter],
) -> Effect:
    """The change that a command has made in memory, with the record of its outcome."""
    before = slot.blob
    if after == before:
        after = before
    slot.blob = after
    slot.pending += 1
    counter = pending.request.counter
    fields, deleted = records.write(counter, outcome)
    if after is not before:
        # Also where it is back at its defaults: they may be others in a later version of the class.
        if slot.cut is None and len(after) <= LARGE_BYTES:
            fields[pending.field] = after
        else:
            slot.cut = write(pending.field, before, slot.cut, after, fields, deleted)
        if slot.spec.ttl_s is None:
            slot.life = FOREVER
        else:
            slot.life = changed_at(slot, pending.tenure.home.wall())
            head = after if slot.cut is None else slot.cut.head
            fields[pending.field] = stamp(slot.life) + head
    effect = Effect(
        pending.tenure, slot, after, records, pending, outcome, fields, deleted, waiters
    )
    records.start(counter, effect)
    return effect


def run_delete(slot: Slot, records: Records, pending: Pending) -> Effect:
    """Delete the key; its reply is whether there was one, where the method is the built-in one."""
    there = slot.life > 0
    reply = msgpack.packb(there) if pending.method.built_in else _NONE
    outcome = Outcome(pending.digest, _OK, reply)
    waiters = [(pending.conn, pending.request.counter)]
    effect = _effect(slot, records, pending, slot.blob, outcome, waiters)
    if there:
        effect.deleted += stored_fields(pending.field, slot.cut)
        slot.empty()
        effect.after, effect.life = slot.blob, slot.life
    return effect


def run_exists(slot: Slot) -> tuple[int, bytes]:
    """Status and payload of the answer, from acknowledged state."""
    return _OK, msgpack.packb(slot.acked_life > 0)


def rule_out(slot: Slot, records: Records, pending: Pending) -> Effect:
    """Nothing is known of the call under this key: from now on it is refused, so that no copy runs late."""
    outcome = Outcome(pending.digest, Status.RULED_OUT, _NONE)
    waiters = [(pending.conn, pending.request.counter)]
    return _effect(slot, records, pending, slot.blob, outcome, waiters)


def _refuse_writing(pending: Pending) -> tuple[int, bytes]:
    refusal = TypeError(f"query {pending.method.name} changed the state; make it a @mesh.command")
    return Status.ENTITY_ERROR, _pack_error_of(pending, refusal)


def _checked(pending: Pending, state: bytes) -> bytes:
    limit = pending.tenure.home.max_state_bytes
    if len(state) > limit:
        raise ValueError(f"state of {len(state)} bytes is over the limit of {limit}")
    return state


def _pack_result(pending: Pending, result: Any) -> bytes:
    if result is None:
        return _NONE
    codec = pending.spec.codec
    payload = codec.pack(result)
    limit = pending.tenure.home.max_reply_bytes
    if len(payload) > limit:
        raise ValueError(f"reply of {len(payload)} bytes is over the limit of {limit}")
    if type(result) not in _SCALARS:
        # Once it is committed it is too late to say so: a retry gets the very same bytes.
        try:
            codec.unpack(payload)
        except ValueError as error:
            raise ValueError(f"its caller could not decode this reply: {error}") from None
    return payload


def _pack_error_of(pending: Pending, error: BaseException) -> bytes:
    return pack_error(error, pending.spec.codec)


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
