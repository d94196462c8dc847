"""The clock of `mesh.testing.mesh`: it stands still until it is moved."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mesh.net.clock import SYSTEM
from mesh.testing.clock import PACE_S, ManualClock


@pytest.fixture
def clock():
    return ManualClock()


def test_it_starts_at_the_machines_time_and_stands_still(clock):
    before = SYSTEM.now()
    assert abs(clock.now() - before) < 5
    assert clock.now() == clock.now()
    assert clock.passed_s == 0


def test_both_times_move_together(clock):
    now, wall = clock.now(), clock.wall()
    clock.advance(3600)
    assert clock.now() - now == pytest.approx(3600)
    assert clock.wall() - wall == pytest.approx(3600)
    assert repr(clock) == "<ManualClock, 3600 s after its start>"


async def test_what_is_due_is_called_in_the_order_in_which_it_is_due(clock):
    called = []
    for delay in (3, 1, 2, 10):
        clock.call_later(delay, lambda delay=delay: called.append(delay))
    await clock.advance(0.999)
    assert called == []
    await clock.advance(3)
    assert called == [1, 2, 3]


async def test_what_is_cancelled_is_not_called(clock):
    called = []
    clock.call_later(1, lambda: called.append(1)).cancel()
    late = clock.call_later(1, lambda: called.append(2))
    clock.advance(1)
    late.cancel()  # due, and not called yet
    await clock.advance(1)
    assert called == []


async def test_a_wait_that_paces_passes_by_itself_and_takes_the_clock_along(clock):
    called = asyncio.Event()
    clock.call_later(PACE_S / 10, called.set)
    async with asyncio.timeout(5):
        await called.wait()
    assert clock.passed_s == pytest.approx(PACE_S / 10)


async def test_a_wait_that_paces_can_be_cancelled(clock):
    clock.call_later(0.001, pytest.fail).cancel()
    done = asyncio.Event()
    clock.call_later(0.02, done.set)
    await done.wait()


async def test_another_thread_may_move_it_and_the_loop_that_asked_is_called(clock):
    called: list[int] = []
    told = asyncio.Event()

    def due():
        called.append(threading.get_ident())
        told.set()

    clock.call_later(60, due)
    await asyncio.to_thread(clock.advance, 60)
    async with asyncio.timeout(5):
        await told.wait()
    assert called == [threading.get_ident()]


def test_a_loop_that_is_closed_is_not_missed(clock):
    async def ask():
        clock.call_later(60, pytest.fail)

    asyncio.run(ask())
    clock.advance(60)


@pytest.mark.parametrize("seconds", [-0.001, float("nan"), float("inf")])
def test_time_does_not_go_back(clock, seconds):
    with pytest.raises(ValueError, match="a clock goes forward"):
        clock.advance(seconds)
