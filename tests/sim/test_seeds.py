"""Runs in which the simulation found the mesh at fault, each as small as it could be made."""

from __future__ import annotations

import pytest

from mesh.testing.sim.plan import Fault, Plan, PlannedCall
from mesh.testing.sim.world import simulate

KEYS = ("c0", "c1", "c2")


def plan_of(*faults: Fault, seed: int) -> Plan:
    """Counters that three clients count up."""
    calls = tuple(
        PlannedCall(1.5 * i / 40, f"c-{i % 3}", "Counter.incr", KEYS[i % 3]) for i in range(40)
    )
    return Plan(seed, calls, faults, length_s=1.5)


@pytest.mark.parametrize(("seed", "for_s"), [(10, 0.35), (23, 0.25), (23, 0.35)])
def test_what_arrives_on_a_connection_that_was_given_up_is_not_taken_for_its_process(
    seed: int, for_s: float
) -> None:
    """The old connection's Register came behind the new one's: the supervisor went back to it, lost it, and
    had none to a process that had one. A takeover was told to nobody, and partitions had no owner for good.
    """
    result = simulate(
        plan_of(
            Fault(0.2, "drop", ("h-1",), ("s-0",)),
            Fault(0.205, "give up", ("h-1",), ("s-0",), for_s, 0.3),
            Fault(0.9, "kill", ("h-0",)),
            seed=seed,
        )
    )
    assert result.ok, result.report(traced=False)


def test_a_leader_whom_an_old_primary_tells_that_its_life_is_closed_begins_anew_in_it() -> None:
    """The primary is silent in a takeover, and the one before it, which was cut off and is not turned yet,
    says that life 2 is none of its own. It is open all the same, so nobody opened another, and nobody led.
    """
    plan = Plan(
        4,
        (),
        (
            Fault(1.0851, "cut", ("primary",), ("everybody",), 1.0709),
            Fault(4.3279, "last words", ("h-1",), ("s-0",), 0.0450, 0.0849),
            Fault(4.8611, "pause replica", ("db-1",), for_s=3.4043),
        ),
        sentinels=3,
        length_s=5.0,
        cache_bytes=3000,
    )
    result = simulate(plan)
    assert result.ok, result.report(traced=False)
