"""The virtual-time loop and its processes: what asyncio promises, and what a kernel does to a process."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Iterator

import pytest

from mesh.testing.sim import Process, Simulation, Stuck


@pytest.fixture
def sim() -> Iterator[Simulation]:
    with Simulation(1) as simulation:
        yield simulation


async def forever(process: Process) -> None:
    await process.loop.create_future()


def test_an_hour_of_sleep_takes_no_time_and_shows_on_the_loop(sim: Simulation) -> None:
    began = time.monotonic()
    sim.run(asyncio.sleep(3600))
    assert sim.now == pytest.approx(3600)
    assert time.monotonic() - began < 1


def test_timers_run_in_the_order_in_which_they_are_due(sim: Simulation) -> None:
    seen: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for delay in (3, 1, 2):
            loop.call_later(delay, seen.append, delay)
        cancelled = loop.call_later(1.5, seen.append, -1)
        cancelled.cancel()
        await asyncio.sleep(4)

    sim.run(main())
    assert seen == [1, 2, 3]


def test_wait_for_timeout_locks_events_queues_and_groups_work_as_on_a_real_loop(
    sim: Simulation,
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.create_future(), 0.5)
        assert loop.time() == pytest.approx(0.5)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await loop.create_future()
        assert loop.time() == pytest.approx(1.0)
        event, lock, queue = asyncio.Event(), asyncio.Lock(), asyncio.Queue[int]()
        async with lock, asyncio.TaskGroup() as group:
            group.create_task(event.wait())
            group.create_task(queue.put(7))
            loop.call_later(1, event.set)
        assert await queue.get() == 7
        assert loop.time() == pytest.approx(2.0)
        assert await asyncio.to_thread(lambda: 8) == 8
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, lambda: 1 // 0)

    sim.run(main())


def test_waiting_for_what_never_comes_is_told_and_does_not_hang(sim: Simulation) -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Stuck, match="no timer"):
        sim.run(main())


def test_a_loop_that_waits_for_time_without_letting_it_pass_is_told(sim: Simulation) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(1, lambda: None)
        while loop.time() < 2:  # noqa: ASYNC110 - the mistake that is to be told
            await asyncio.sleep(0)

    with pytest.raises(Stuck, match="time does not pass"):
        sim.run(main())


def test_a_step_that_fails_is_kept_and_the_others_go_on(sim: Simulation) -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)
        await asyncio.sleep(1)

    sim.run(main())
    assert [type(told["exception"]) for told in sim.unhandled] == [ZeroDivisionError]


def test_another_loop_of_the_same_thread_is_refused(sim: Simulation) -> None:
    async def main() -> None:
        with Simulation(2) as other:
            with pytest.raises(RuntimeError, match="another event loop"):
                other.run(asyncio.sleep(0))

    sim.run(main())


def test_a_killed_process_takes_no_further_step_not_even_a_finally(sim: Simulation) -> None:
    seen: list[str] = []

    async def victim(process: Process) -> None:
        process.loop.call_later(2, seen.append, "timer")
        try:
            while True:
                seen.append("step")
                await asyncio.sleep(1)
        finally:
            seen.append("finally")

    async def main() -> None:
        process = sim.spawn("victim", victim)
        await asyncio.sleep(1.5)
        process.kill()
        process.resume()
        await asyncio.sleep(5)
        assert not process.alive

    sim.run(main())
    assert seen == ["step", "step"]


def test_a_killed_process_whose_step_is_ready_does_not_take_it(sim: Simulation) -> None:
    seen: list[str] = []

    async def victim(process: Process) -> None:
        process.loop.call_soon(seen.append, "ready before the kill")
        await forever(process)

    async def main() -> None:
        process = sim.spawn("victim", victim)
        # Runs between the victim's first step and the one which that made ready.
        asyncio.get_running_loop().call_soon(process.kill)
        await asyncio.sleep(1)

    sim.run(main())
    assert seen == []


def test_a_process_ends_with_its_main_coroutine_and_a_failure_is_kept(sim: Simulation) -> None:
    ended: list[str] = []

    async def failing(process: Process) -> None:
        raise ValueError("what a process died of")

    async def main() -> None:
        process = sim.spawn("failing", failing)
        process.on_exit.append(lambda dead: ended.append(dead.name))
        await asyncio.sleep(0.1)
        assert not process.alive

    sim.run(main())
    assert ended == ["failing"]
    assert "what a process died of" in str(sim.unhandled[0]["exception"])


def test_a_paused_process_does_on_resume_what_came_meanwhile_in_order(sim: Simulation) -> None:
    seen: list[object] = []

    async def ticking(process: Process) -> None:
        for number in range(10):
            process.loop.call_later(number, seen.append, number)
        await forever(process)

    async def main() -> None:
        process = sim.spawn("ticking", ticking)
        await asyncio.sleep(2.5)
        process.pause()
        await asyncio.sleep(4)
        assert seen == [0, 1, 2]
        seen.append("resumed")
        process.resume()
        await asyncio.sleep(0)
        assert seen == [0, 1, 2, "resumed", 3, 4, 5, 6]
        await asyncio.sleep(10)

    sim.run(main())
    assert seen[8:] == [7, 8, 9]


def test_a_starved_process_takes_one_step_at_a_time_and_loses_none(sim: Simulation) -> None:
    at: list[float] = []

    async def busy(process: Process) -> None:
        await asyncio.sleep(1)
        for _ in range(4):
            process.loop.call_soon(lambda: at.append(round(sim.now, 6)))
        await forever(process)

    async def main() -> None:
        process = sim.spawn("busy", busy)
        await asyncio.sleep(0.5)
        process.starve(0.25)
        await asyncio.sleep(1.6)
        # Its sleep is two steps: the timer, and the task that it wakes.
        assert at == [1.75, 2.0]
        process.starve(0)
        await asyncio.sleep(1)

    sim.run(main())
    assert at == [1.75, 2.0, 2.1, 2.1]


def test_a_clock_with_an_offset_and_a_rate_is_the_processes_own(sim: Simulation) -> None:
    async def main() -> None:
        slow, other = sim.spawn("slow", forever), sim.spawn("other", forever)
        await asyncio.sleep(10)
        slow.clock.skew(rate=0.5, offset_s=100, wall_s=-7)
        wall = slow.clock.wall()
        assert slow.clock.now() == pytest.approx(110)
        await asyncio.sleep(10)
        assert slow.clock.now() == pytest.approx(115)
        assert slow.clock.wall() - wall == pytest.approx(5)
        assert other.clock.now() == pytest.approx(20)

    sim.run(main())


def test_a_process_with_a_slow_clock_sleeps_longer(sim: Simulation) -> None:
    woken: list[float] = []

    async def sleeper(process: Process) -> None:
        process.clock.skew(rate=0.5)
        process.clock.call_later(1, lambda: woken.append(sim.now))
        await asyncio.sleep(2)
        woken.append(sim.now)

    async def main() -> None:
        sim.spawn("sleeper", sleeper)
        await asyncio.sleep(10)

    sim.run(main())
    assert woken == pytest.approx([2, 4])


def test_what_runs_in_a_context_of_nobody_belongs_to_the_process_that_began_it(
    sim: Simulation,
) -> None:
    seen: list[int] = []

    async def counting(process: Process) -> None:
        async def count() -> None:
            for number in range(100):
                seen.append(number)
                await asyncio.sleep(1)

        work = process.loop.create_task(count(), context=contextvars.Context())
        await work

    async def main() -> None:
        process = sim.spawn("counting", counting)
        await asyncio.sleep(2.5)
        process.kill()
        await asyncio.sleep(5)

    sim.run(main())
    assert seen == [0, 1, 2]


def test_who_waits_for_a_process_is_not_of_it(sim: Simulation) -> None:
    """What awaits a future that another process settles goes on although that process is killed at once."""

    async def main() -> str:
        asked = asyncio.get_running_loop().create_future()

        async def settle(process: Process) -> None:
            asked.set_result("settled")
            process.kill()

        sim.spawn("settling", settle)
        result: str = await asked
        return result

    assert sim.run(main()) == "settled"


def test_closing_a_simulation_with_work_under_way_says_nothing_and_leaves_nothing() -> None:
    """Warnings are errors in this suite: a pending task that is collected would fail it."""

    async def stubborn(process: Process) -> None:
        try:
            await forever(process)
        finally:
            await asyncio.sleep(1)

    with Simulation(3) as sim:
        sim.spawn("stubborn", stubborn)
        sim.spawn("other", forever)
        sim.run(asyncio.sleep(1))
    assert sim.loop.is_closed()
