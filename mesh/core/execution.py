"""One request's way through memory: decoded, recognised or new, run, and at last acknowledged.

Pure: a request and the tenure in, a reply or an effect out. An error that a command ends in is committed
before it is told, like any other outcome, since a retry has to get the same (counterexamples F8).
"""

from __future__ import annotations

import enum

import msgpack

from mesh.core.callerkeys import caller_field
from mesh.core.keyspace import partition_of
from mesh.core.outcomes import Records, Seen
from mesh.core.payload import unpack_call
from mesh.core.running import run_command, run_query
from mesh.core.tenure import Conn, Effect, Pending, Slot, Tenure
from mesh.core.wire import Limits, Request, Status, pack_reply
from mesh.entities import Registry
from mesh.errors import BadRequest


class Step(enum.Enum):
    """What became of a request."""

    ANSWERED = 1
    COMMITTING = 2
    NEEDS_LOAD = 3


def admit(
    conn: Conn, request: Request, registry: Registry, partitions: int, now: float, limits: Limits
) -> Pending:
    """Decode an admitted request's payload.

    Raises:
        BadRequest: it is malformed, over a limit, of an unknown method, or for another partition's key.
    """
    spec, method, key, args, kwargs, meta, digest = unpack_call(
        request.payload, registry, limits.payload_elements
    )
    if partition_of(key, partitions) != request.partition:
        raise BadRequest(f"key {key!r:.80} does not belong to partition {request.partition}")
    return Pending(
        conn,
        request,
        now + request.deadline_ms / 1000,
        spec,
        method,
        key,
        args,
        kwargs,
        meta,
        digest,
    )


def step(tenure: Tenure, pending: Pending) -> tuple[Step, Effect | None]:
    """Take a request as far as memory allows; with COMMITTING comes the effect to commit."""
    if pending.method.query:
        slot = _slot(tenure, pending)
        if slot is None:
            return Step.NEEDS_LOAD, None
        _answer(pending, *run_query(slot, pending))
        return Step.ANSWERED, None
    request = pending.request
    own = pending.meta.idempotency_key
    if own:
        keys = tenure.log.callers
        records: Records = keys.call(caller_field(pending.spec.name, pending.key, own))
    else:
        records = session = tenure.log.session(request.session)
        session.settle_below(request.lowest)
    seen, outcome = records.check(request.counter, pending.digest)
    if seen is Seen.NEW:
        slot = _slot(tenure, pending)
        if slot is None or not (tenure.warm or pending.looked_up):
            return Step.NEEDS_LOAD, None
        return Step.COMMITTING, run_command(tenure, slot, records, pending)
    if seen is Seen.RECORDED and outcome is not None:
        _answer(pending, outcome.status, outcome.payload)
    elif seen is Seen.RUNNING:
        effect = records.attached(request.counter)
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
    effect.records.finish(effect.counter, outcome)
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
