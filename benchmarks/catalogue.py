"""The faults that benchmarks.faults knows: whom each hurts, how, for how long, and what may come of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks.wounds import Victim, handlers, store_nodes, supervisors, wardens
from mesh.testing.watch import Status

SHIPPED_MS = 1000
"""What the embedded store's Sentinels wait for."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure of each repeat, and the most that it may be."""

    name: str
    figure: str
    most: float


KEPT = (Goal("lost", "lost", 0), Goal("doubled", "doubled", 0), Goal("stale", "stale", 0))
NO_FAILURE = (Goal("calls failed", "failed", 0), *KEPT)
NO_WORD = (
    Goal("old one: stale answers", "old_stale", 0),
    Goal("old one: writes", "old_wrote", 0),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault.

    Attributes:
        whom: the processes that are hurt, out of a status.
        how: the method of Wounds that hurts them.
        holds_s: seconds until whatever can be undone is undone.
        entity: that is called.
        pinned: requests are left with the process that is stopped.
        next_death: afterwards a handler is killed, too.
        gray: whoever is hurt lives, loses its load, and gets it back later.
        spread: the handlers are on hosts of their own (mesh.testing.spread), without Ray.
    """

    whom: Callable[[Status, random.Random], list[Victim]]
    how: str
    goals: tuple[Goal, ...]
    holds_s: float = 0.0
    entity: str = "KV"
    pinned: bool = False
    next_death: bool = False
    gray: bool = False
    spread: bool = False


def _handler(status: Status, dice: random.Random) -> list[Victim]:
    return [dice.choice(handlers(status))]


def _handler_and_warden(status: Status, dice: random.Random) -> list[Victim]:
    return [dice.choice(handlers(status)), *wardens(status)]


def _leader(status: Status, _: random.Random) -> list[Victim]:
    return supervisors(status, "leader")


def _leader_and_handler(status: Status, dice: random.Random) -> list[Victim]:
    return [*supervisors(status, "leader"), dice.choice(handlers(status))]


def _all_supervisors(status: Status, _: random.Random) -> list[Victim]:
    return supervisors(status)


def _primary(status: Status, _: random.Random) -> list[Victim]:
    return store_nodes(status, "primary")


def _replica(status: Status, dice: random.Random) -> list[Victim]:
    return [dice.choice(store_nodes(status, "replica"))]


def _nobody(_: Status, __: random.Random) -> list[Victim]:
    return []


_HOLD_S = 6.0
_SLOWEST = Goal("slowest call, ms", "slowest_call_ms", 1000)
_LEADER = Goal("new leader, ms", "new_leader_ms", 500)
_LEADER_LATE = Goal("new leader, ms", "new_leader_ms", 1500)
_ANSWER = Goal("its keys answer, ms", "keys_answer_ms", 1500)
_WRITES = Goal("writes again, ms", "writes_again_ms", 1500)
_MOVED = Goal("partitions moved off, ms", "moved_ms", 5000)
_CALM = Goal("handlers taken for dead", "innocent", 0)

FAULTS = {
    "handler-stopped": Fault(
        _handler, "stop", (_SLOWEST, *NO_FAILURE, *NO_WORD), _HOLD_S, pinned=True
    ),
    "handler-and-warden-stopped": Fault(
        _handler_and_warden, "stop", (*NO_FAILURE, *NO_WORD), _HOLD_S, pinned=True
    ),
    "host-cut": Fault(
        _handler,
        "cut",
        (
            Goal("slowest call, ms", "slowest_call_ms", 2000),
            *NO_FAILURE,
            *NO_WORD,
        ),
        _HOLD_S,
        pinned=True,
        spread=True,
    ),
    "leader-killed": Fault(_leader, "kill", (_LEADER, *NO_FAILURE)),
    "leader-stopped": Fault(_leader, "stop", (_LEADER_LATE, *NO_FAILURE), _HOLD_S),
    "leader-and-handler-killed": Fault(
        _leader_and_handler, "kill", (_LEADER, _ANSWER, *NO_FAILURE)
    ),
    "supervisors-killed": Fault(
        _all_supervisors,
        "kill",
        (
            *NO_FAILURE,
            Goal("new client, ms", "new_client_ms", 1000),
            Goal("next death: calls failed", "next_death_failed", 0),
        ),
        next_death=True,
    ),
    "primary-killed": Fault(_primary, "kill", (_WRITES, *NO_FAILURE)),
    "primary-stopped": Fault(_primary, "stop", (_WRITES, *NO_FAILURE), _HOLD_S),
    "replica-killed": Fault(_replica, "kill", (_WRITES, *NO_FAILURE)),
    "replica-stopped": Fault(_replica, "stop", (_WRITES, *NO_FAILURE), _HOLD_S),
    "handler-slow": Fault(_handler, "slow", (_MOVED, *KEPT), 10.0, entity="Faulty", gray=True),
    "handler-failing": Fault(_handler, "fail", (_MOVED, *KEPT), 10.0, entity="Faulty", gray=True),
    "starved": Fault(_nobody, "starve", (_CALM, *NO_FAILURE), 600.0),
}


def goals_of(name: str, down_after_ms: int) -> list[Goal]:
    """A fault's goals; a primary is missed as long as its Sentinels wait."""
    later = name.startswith("primary") and down_after_ms >= SHIPPED_MS
    return [replace(g, most=2200) if later and g is _WRITES else g for g in FAULTS[name].goals]
