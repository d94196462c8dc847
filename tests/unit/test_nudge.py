"""When replicas are nudged: early, and then ever more seldom; in virtual time."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

from mesh.store.nudge import AGAIN_S, ALARM_AGAIN_S, FIRST_S, Nudger
from mesh.testing.sim import Simulation
from mesh.testing.sim.process import Process

SILENCE_S = 0.3


def nudged(*, for_s: float) -> tuple[list[float], list[float]]:
    """When a write that takes so long is nudged, and when it is said that the primary is silent."""
    nudges: list[float] = []
    alarms: list[float] = []

    async def write(process: Process) -> None:
        async def ask(_: bytes) -> Any:
            nudges.append(process.clock.now() - begun)

        begun = process.clock.now()
        alarm = lambda: alarms.append(process.clock.now() - begun)  # noqa: E731
        nudger = Nudger(ask, b"nudge", SILENCE_S, alarm)
        write = nudger.begin()
        await asyncio.sleep(for_s)
        nudger.end(write)

    with Simulation(1) as sim:
        sim.spawn("h-0", write)

        async def over() -> None:
            await asyncio.sleep(for_s + 1.0)

        sim.run(over())
    return nudges, alarms


def test_a_write_that_is_answered_in_time_is_not_nudged() -> None:
    assert nudged(for_s=FIRST_S / 2) == ([], [])


def test_the_first_nudge_comes_early_and_the_next_once_as_much_time_has_passed_again() -> None:
    """A replica that is not there is not made to confirm by the twentieth of them either."""
    nudges, _ = nudged(for_s=0.2)
    assert nudges[0] == FIRST_S
    pauses = [later - earlier for earlier, later in pairwise(nudges)]
    for at, pause in zip(nudges, pauses, strict=False):
        assert max(AGAIN_S, at) * 0.999 <= pause <= max(AGAIN_S, at) + FIRST_S
    assert len(nudges) <= 6


def test_a_silent_primary_is_told_of_in_time_however_seldom_nudges_have_become() -> None:
    _, alarms = nudged(for_s=1.0)
    assert SILENCE_S <= alarms[0] <= SILENCE_S + FIRST_S
    pauses = [later - earlier for earlier, later in pairwise(alarms)]
    assert len(alarms) > 5
    assert max(pauses) <= ALARM_AGAIN_S + FIRST_S
