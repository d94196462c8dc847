"""One request's way through memory: decoded, recognised or new, run, and at last acknowledged.

Pure: a request and the tenure in, a reply or an effect out. An error that a command ends in is committed
before it is told, like any other outcome, since a retry has to get the same (counterexamples F8).
"""

from __future__ import annotations

import enum

import msgpack

from mesh.core.callerkeys import caller_field
from mesh.core.dedupe import SessionLog, outcome_field, watermark_field
from mesh.core.keyspace import partition_of
from mesh.core.lanes import RECORD_TAGS
from mesh.core.outcomes import Outcome, Records, Seen
from mesh.core.payload import unpack_call
from mesh.core.running import rule_out, run_command, run_delete, run_exists, run_query
from mesh.core.runs import Run
from mesh.core.tenure import Conn, Effect, Pending, Slot, Tenure
from mesh.core.wire import Limits, Request, Status, pack_reply
from mesh.entities import Registry
from mesh.errors import BadRequest
from mesh.methods import BuiltIn

_FULL = "this partition remembers as many calls with a key of the caller's as it may"


class Step(enum.Enum):
    """What became of a request."""

    ANSWERED = 1
    COMMITTING = 2
    NEEDS_LOAD = 3
    RUNS_APART = 4
    """It is a Run now: to be carried out by the shell."""
    NEEDS_TURN = 5
    LISTS = 6
    """It is for a partition's keys, not for one key (mesh.core.listing)."""
    NOT_WRITTEN = 7
    """It is new, and the store refuses to write (mesh.core.writing)."""
    NEEDS_LEASE = 8
    """It is a query, and no lease covers what it has read (mesh.core.lease)."""


# Looking a member up in its enum takes Python 3.11 80 ns, a global 3; each call would do it several times.
ANSWERED, COMMITTING, RUNS_APART = Step.ANSWERED, Step.COMMITTING, Step.RUNS_APART
NEEDS_LOAD, NEEDS_TURN, LISTS = Step.NEEDS_LOAD, Step.NEEDS_TURN, Step.LISTS
NOT_WRITTEN, NEEDS_LEASE = Step.NOT_WRITTEN, Step.NEEDS_LEASE
KEYS = BuiltIn.KEYS
_NEW = Seen.NEW


def admit(
    tenure: Tenure,
    conn: Conn,
    request: Request,
    registry: Registry,
    partitions: int,
    now: float,
    limits: Limits,
) -> Pending:
    """Decode an admitted request's payload.

    Raises:
        BadRequest: it is malformed, over a limit, of an unknown method, or for another partition's key.
    """
    spec, method, key, args, kwargs, meta, digest = unpack_call(
        request.payload, registry, limits.payload_elements
    )
    if partition_of(key, partitions) != request.partition and method.built_in is not KEYS:
        raise BadRequest(f"key {key!r:.80} does not belong to partition {request.partition}")
    return Pending(
        tenure,
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


def step(tenure: Tenure, pending: Pending) -> tuple[Step, Effect | Run | None]:
    """Take a request as far as memory allows; with COMMITTING comes the effect to commit, with RUNS_APART
    the run to be carried out, and with NEEDS_TURN nothing: it is new, and its key is held by a run.
    """
    if pending.method.query:
        return _step_query(tenure, pending)
    request = pending.request
    own = pending.meta.idempotency_key
    if own:
        records: Records = _log(tenure, pending).callers.call(_caller_field(pending, own))
    else:
        records = session = _log(tenure, pending).session(request.session)
        session.settle_below(request.lowest)
    seen, outcome = records.check(request.counter, pending.digest)
    if seen is _NEW:
        if tenure.held and pending.field in tenure.held:
            return NEEDS_TURN, None
        slot = _slot(tenure, pending)
        if slot is None or not (tenure.warm or pending.looked_up):
            return NEEDS_LOAD, None
        refuses = tenure.home.refuses
        if refuses is not None and (
            pending.method.runs_apart or refuses(tenure.partition, pending.spec.durability)
        ):
            return NOT_WRITTEN, None
        if own and (wait_s := _log(tenure, pending).callers.full_for_s()):
            _answer(pending, Status.OVERLOADED, msgpack.packb([_FULL, wait_s]))
            return ANSWERED, None
        if pending.method.runs_apart and not pending.meta.asks:
            return RUNS_APART, Run(pending, slot, records)
        run = run_delete if pending.method.deletes else run_command
        if pending.meta.asks:
            run = rule_out
        return COMMITTING, run(slot, records, pending)
    _answer_known(pending, records, seen, outcome)
    return ANSWERED, None


def _step_query(tenure: Tenure, pending: Pending) -> tuple[Step, Run | None]:
    built_in = pending.method.built_in
    if built_in is KEYS:
        return LISTS, None
    slot = _slot(tenure, pending)
    if slot is None:
        return NEEDS_LOAD, None
    if built_in is not None:
        status, payload = run_exists(slot)
    elif pending.method.runs_apart:
        return RUNS_APART, Run(pending, slot, None)
    else:
        status, payload = run_query(slot, pending)
    # The clock after the state, and the answer in the same breath: a process that is stopped in between,
    # and goes on when others serve the key, has to notice. As Home.is_leased, which would be a call more.
    home = tenure.home
    if home.now() >= home.lease.until:
        return NEEDS_LEASE, None
    pending.conn.send(pack_reply(pending.request.counter, status, payload))
    return ANSWERED, None


def _answer_known(pending: Pending, records: Records, seen: Seen, outcome: Outcome | None) -> None:
    """It is over, in one way or another, or the same call is under way."""
    if outcome is not None:
        _answer(pending, outcome.status, outcome.payload)
    elif seen is Seen.RUNNING:
        counter = pending.request.counter
        running = records.attached(counter)
        assert isinstance(running, Effect | Run)
        running.waiters.append((pending.conn, counter))
    elif seen is Seen.CONFLICT:
        _answer(pending, Status.CONFLICT, msgpack.packb("this id was used with other arguments"))
    else:
        _answer(pending, Status.UNKNOWN, msgpack.packb("this call was settled or given up before"))


def record_names(pending: Pending) -> tuple[bytes, ...]:
    """Fields of the partition's hash that tell whether the call is new."""
    own = pending.meta.idempotency_key
    if own:
        return (_caller_field(pending, own),)
    session, counter = pending.request[:2]
    tag = RECORD_TAGS[pending.spec.durability]
    return outcome_field(session, counter, tag), watermark_field(session, tag)


def _caller_field(pending: Pending, own: str) -> bytes:
    spec = pending.spec
    return caller_field(spec.name, pending.key, own, RECORD_TAGS[spec.durability])


def _log(tenure: Tenure, pending: Pending) -> SessionLog:
    durability = pending.spec.durability
    return tenure.log if durability == "replicated" else tenure.log_of(durability)


def acknowledge(effect: Effect) -> int:
    """The effect is on every in-sync node: record it, show it, answer everyone who waits for it. Returns the
    status of the answer.
    """
    outcome, slot = effect.outcome, effect.slot
    effect.records.finish(effect.counter, outcome)
    slot.pending -= 1
    slot.acknowledge(effect.after, effect.life)
    _, status, payload = outcome
    for conn, counter in effect.waiters:
        conn.send(pack_reply(counter, status, payload))
    return status


def _slot(tenure: Tenure, pending: Pending) -> Slot | None:
    slot = tenure.slots.get(pending.field)
    if slot is None and tenure.warm and tenure.complete:
        slot = tenure.slots[pending.field] = Slot(pending.spec, None)
    return slot


def _answer(pending: Pending, status: int, payload: bytes) -> None:
    pending.conn.send(pack_reply(pending.request.counter, status, payload))
