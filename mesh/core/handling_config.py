"""What a handler holds and for how long, as whoever starts it decides."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.core.lease import LeaseTiming
from mesh.core.retention import DEFAULT_CALLER_BYTES, DEFAULT_WINDOW_S
from mesh.core.tenure import MAX_VALUE_BYTES
from mesh.core.wire import Limits


@dataclass(frozen=True, slots=True)
class HandlingConfig:
    """What a handler holds and for how long.

    Attributes:
        limit_s: seconds that a run of an async or blocking method may take which names no limit of its own.
        threads: that blocking methods may take; one that is stuck is lost until it comes back.
        health_s: between two health checks of the entities, and the time that one may take.
        max_state_bytes: of one key's state.
        max_reply_bytes: of one call's reply.
        hint_wait_s: how long a call waits that names an epoch this handler has not been granted.
        release_wait_s: how long a call waits for the next owner of a partition that is being given up, or for
            the leader's word where the table names this handler: it waits for a lease to be out.
        window_s: how long outcomes are kept; a request older than half of this, counted from its first
            attempt, is never executed (mesh.core.retention).
        caller_bytes: of one partition's records under callers' keys; calls with further keys are refused.
        max_pending: calls in memory at the same time, held ones too; the next ones are refused.
        max_wants: keys read with one call to the store; a primary must not stand still for one read.
        cache_bytes: state kept in memory; unacknowledged state is never evicted.
        replicas: that a complete in-sync set has; 0: nobody is asked to have more than the primary.
        history_bytes: of what is acknowledged while the set has fewer (mesh.core.history); full: nothing is
            acknowledged until it is complete; 0: nothing is kept.
        limits: of the wire.
        lease: for how long it may answer queries, and how often that is renewed.
    """

    limit_s: float = 30.0
    threads: int = 32
    health_s: float = 1.0
    max_state_bytes: int = MAX_VALUE_BYTES
    max_reply_bytes: int = MAX_VALUE_BYTES
    hint_wait_s: float = 0.1
    release_wait_s: float = 5.0
    window_s: float = DEFAULT_WINDOW_S
    caller_bytes: int = DEFAULT_CALLER_BYTES
    max_pending: int = 16_384
    max_wants: int = 512
    cache_bytes: int = 512 * 1024 * 1024
    replicas: int = 0
    history_bytes: int = 256 * 1024 * 1024
    limits: Limits = Limits()  # noqa: RUF009 - frozen
    lease: LeaseTiming = LeaseTiming()  # noqa: RUF009 - frozen
