"""What a warden sees of processes that hang, and which of them it kills: real ones, in each state."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.core.messages import Exited, WardenHere
from mesh.core.pulse import Kill, Look, Pulse, Seen, Watches
from mesh.core.sightings import Condition, Sight, condition
from mesh.ids import new_nonce
from mesh.net.threadstate import OwnThread, ThreadView
from mesh.warden import Warden
from tests.integration.suspects_rig import Child, Ear, child, cpus, hogs

GROUPS = Path("/sys/fs/cgroup")


@pytest.fixture
async def ear() -> AsyncIterator[Ear]:
    ear = Ear()
    await ear.listener.open("127.0.0.1", 0)
    yield ear
    await ear.listener.close()


@pytest.fixture
def address() -> str:
    return f"raymesh-test-{new_nonce().hex()}"


@pytest.fixture
async def warden(ear: Ear, address: str) -> AsyncIterator[Warden]:
    warden = Warden("m", "w-0", address, (ear.address,), "secret")
    warden.start()
    await ear.hear(WardenHere)
    yield warden
    await warden.stop()


async def look(ear: Ear, process: Child) -> Seen:
    ear.tell(Look(1, process.nonce))
    seen = await ear.hear(Seen, nonce=process.nonce)
    assert isinstance(seen, Seen)
    return seen


def sight(seen: Seen) -> Sight:
    return Sight(
        seen.at_ms / 1000,
        seen.state,
        seen.cpu_ms / 1000,
        seen.delay_ms / 1000,
        seen.slices,
        seen.process_ms / 1000,
    )


async def watch(ear: Ear, process: Child, state: Condition, span_s: float = 0.1) -> Seen:
    """Look until it is in that state."""
    before, seen = await look(ear, process), list[str]()
    # On a machine that others keep busy, nobody burns a CPU of his own.
    states = {state.value, "starved"} if state is Condition.BURNING else {state.value}
    async with asyncio.timeout(10):
        while True:
            await asyncio.sleep(span_s)
            after = await look(ear, process)
            seen.append(condition(sight(before), sight(after)).value)
            if seen[-1] in states:
                return after
            before = after


def kill_of(process: Child, seen: Seen, state: str, **other: float) -> Kill:
    fields = {"token": 1, "expires_ms": 60_000.0, **other}
    return Kill(
        int(fields["token"]), process.nonce, fields["expires_ms"], seen.at_ms, state, seen.slices
    )


# ------------------------------------------------------------------------- what it sees


@pytest.mark.parametrize(
    ("does", "state"),
    [
        ("nothing", Condition.WAKING),
        ("spin", Condition.BURNING),
        ("block", Condition.BLOCKED),
        ("sleep", Condition.BLOCKED),
    ],
)
async def test_a_warden_sees_what_the_loops_thread_does(ear, warden, address, does, state) -> None:
    """It is not the main thread, which always sleeps."""
    async with child(address) as process:
        await process.does(does)
        await watch(ear, process, state)


async def test_a_stopped_process_is_seen_to_be(ear, warden, address) -> None:
    async with child(address) as process:
        os.kill(process.pid, signal.SIGSTOP)
        await watch(ear, process, Condition.STOPPED)
        os.kill(process.pid, signal.SIGCONT)
        await watch(ear, process, Condition.WAKING)


async def test_a_process_that_gets_no_cpu_is_seen_to_starve(ear, warden, address) -> None:
    cpu = cpus()[-1]
    async with child(address) as process:
        for task in os.listdir(f"/proc/{process.pid}/task"):
            os.sched_setaffinity(int(task), {cpu})
            os.sched_setscheduler(int(task), os.SCHED_IDLE, os.sched_param(0))
        await process.does("spin")
        async with hogs(cpu, 2):
            await watch(ear, process, Condition.STARVED, 0.2)


async def test_a_throttled_process_is_seen_to_starve(ear, warden, address) -> None:
    """Nothing of its waiting is counted: its run-delay stays as it is until it next runs."""
    with group("cpu", "cpu.cfs_quota_us") as path:
        (path / "cpu.cfs_period_us").write_text("1000000")
        (path / "cpu.cfs_quota_us").write_text("20000")
        async with child(address) as process:
            await process.does("spin")
            await watch(ear, process, Condition.BURNING)
            (path / "cgroup.procs").write_text(str(process.pid))
            await watch(ear, process, Condition.STARVED)
            for _ in range(10):
                before = await look(ear, process)
                await asyncio.sleep(0.1)
                after = await look(ear, process)
                state = condition(sight(before), sight(after))
                assert state is Condition.STARVED
            (path.parent / "cgroup.procs").write_text(str(process.pid))


async def test_a_frozen_process_is_seen_to_be_stopped(ear, warden, address) -> None:
    with group("freezer", "freezer.state") as path:
        async with child(address) as process:
            (path / "cgroup.procs").write_text(str(process.pid))
            warden._receiver._watched[process.nonce] = warden._receiver._watched[
                process.nonce
            ]._replace(thread=ThreadView(process.pid, process.pid))
            (path / "freezer.state").write_text("FROZEN")
            try:
                await watch(ear, process, Condition.STOPPED)
            finally:
                (path / "freezer.state").write_text("THAWED")
            await watch(ear, process, Condition.BLOCKED)  # its main thread
            (path.parent / "cgroup.procs").write_text(str(process.pid))


@contextlib.contextmanager
def group(controller: str, file: str):
    """A cgroup of one's own, where that is allowed."""
    path = GROUPS / controller / f"raymesh-test-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup of one's own: {error}")
    try:
        if not (path / file).exists():
            pytest.skip(f"no {file} here")
        yield path
    finally:
        deadline = time.monotonic() + 5
        while True:
            try:
                path.rmdir()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)  # the kernel lets go of its dead


async def test_of_a_process_that_it_does_not_know_a_warden_sees_nothing(ear, warden) -> None:
    ear.tell(Look(1, b"stranger"))
    seen = await ear.hear(Seen)
    assert isinstance(seen, Seen)
    assert (seen.nonce, seen.state) == (b"stranger", "")


async def test_supervisors_hear_of_each_process_that_a_warden_watches(ear, warden, address) -> None:
    async with child(address) as process:
        assert await ear.hear(Watches) == Watches(process.nonce)


# ----------------------------------------------------------------------- what it kills


async def test_a_stopped_process_is_killed_and_proved_dead_at_once(ear, warden, address) -> None:
    async with child(address) as process:
        os.kill(process.pid, signal.SIGSTOP)
        seen = await watch(ear, process, Condition.STOPPED)
        ear.tell(kill_of(process, seen, "stopped"))
        exited = await ear.hear(Exited)
        assert isinstance(exited, Exited)
        assert exited.nonce == process.nonce
        assert await process.process.wait() == -signal.SIGKILL


@pytest.mark.parametrize(("does", "state"), [("spin", "burning"), ("block", "blocked")])
async def test_a_hung_process_is_killed(ear, warden, address, does, state) -> None:
    async with child(address) as process:
        await process.does(does)
        seen = await watch(ear, process, Condition(state))
        ear.tell(kill_of(process, seen, state))
        await ear.hear(Exited)


async def test_a_process_that_has_recovered_since_is_left_alone(ear, warden, address) -> None:
    async with child(address) as process:
        os.kill(process.pid, signal.SIGSTOP)
        seen = await watch(ear, process, Condition.STOPPED)
        os.kill(process.pid, signal.SIGCONT)
        await watch(ear, process, Condition.WAKING)
        ear.tell(kill_of(process, seen, "stopped"))
        answer = await ear.hear(Seen)
        assert isinstance(answer, Seen)
        assert answer.state in "SR"
        assert process.process.returncode is None
        assert warden._receiver.watching == [process.nonce]


async def test_a_loop_that_was_blocked_and_has_run_since_is_left_alone(
    ear, warden, address
) -> None:
    async with child(address) as process:
        seen = await look(ear, process)
        await watch(ear, process, Condition.WAKING)
        ear.tell(kill_of(process, seen, "blocked"))
        await ear.hear(Seen)
        assert process.process.returncode is None


@pytest.mark.parametrize("order", ["late", "outdated"])
async def test_an_order_that_is_late_or_of_a_deposed_leader_kills_nobody(
    ear, warden, address, order
) -> None:
    """It still is stopped: nothing but the order itself speaks against it."""
    async with child(address) as process:
        os.kill(process.pid, signal.SIGSTOP)
        seen = await watch(ear, process, Condition.STOPPED)
        if order == "outdated":
            ear.tell(Look(7, process.nonce))  # a higher token
            await ear.hear(Seen)
            ear.tell(kill_of(process, seen, "stopped", token=6))
            ear.tell(Look(7, process.nonce))
        else:
            await asyncio.sleep(0.06)
            ear.tell(kill_of(process, seen, "stopped", expires_ms=50.0))
        assert (await ear.hear(Seen)).state == "T"
        assert process.process.returncode is None
        assert warden._receiver.watching == [process.nonce]


async def test_a_handler_comes_to_each_new_warden_by_itself(ear, warden, address) -> None:
    async with child(address) as process:
        await ear.hear(Watches)
        await warden.stop()
        second = Warden("m", "w-1", address, (ear.address,), "secret")
        second.start()
        try:
            async with asyncio.timeout(5):
                while second._receiver.watching != [process.nonce]:  # noqa: ASYNC110 - nobody is told
                    await asyncio.sleep(0.005)
            process.process.kill()
            await ear.hear(Exited)
        finally:
            await second.stop()


async def test_a_handler_that_starts_before_its_warden_waits_for_it(ear, address) -> None:
    """The one before it has just died: its successor is on its way."""
    warden = Warden("m", "w-0", address, (ear.address,), "secret")
    asyncio.get_running_loop().call_later(0.5, warden.start)
    async with child(address) as process:
        assert warden._receiver.watching == [process.nonce]
    await warden.stop()


# ---------------------------------------------------------------------------- the heart


async def test_beats_come_while_the_loop_hangs_and_say_so(ear, warden, address) -> None:
    async with child(address, ear.address) as process:
        first = await ear.hear(Pulse)
        second = await ear.hear(Pulse)
        assert isinstance(first, Pulse)
        assert isinstance(second, Pulse)
        assert second.turns > first.turns
        assert (second.pending, second.done, second.errors) == (3, 5, 2)
        assert second.lease_ms == pytest.approx(700, abs=50)
        assert second.memory_mib > 5
        assert second.limit_ms == 30_000
        await process.does("sleep")
        await ear.hear(Pulse, method="Account.sleep")
        beats = [await ear.hear(Pulse) for _ in range(5)]
        assert len({beat.turns for beat in beats}) == 1
        assert [beat.number for beat in beats] == list(range(beats[0].number, beats[0].number + 5))
        assert beats[-1].method_ms - beats[0].method_ms == pytest.approx(400, abs=150)
        assert beats[-1].limit_ms == 60_000
        assert beats[-1].state == "S"
        assert beats[-1].slices == beats[0].slices


async def test_beats_come_while_the_loop_burns_its_cpu_and_the_gil(ear, warden, address) -> None:
    async with child(address, ear.address) as process:
        await process.does("spin")
        await ear.hear(Pulse, method="Account.spin")
        first, *_, last = [await ear.hear(Pulse) for _ in range(10)]
        assert last.turns == first.turns
        assert last.cpu_ms > first.cpu_ms
        assert last.number - first.number == 9


async def test_beats_go_to_each_supervisor_and_to_one_that_comes_back(ear, warden, address) -> None:
    other = Ear()
    await other.listener.open("127.0.0.1", 0)
    port = other.listener.port
    async with child(address, ear.address, other.address):
        await asyncio.gather(ear.hear(Pulse), other.hear(Pulse))
        await other.listener.close()
        await ear.hear(Pulse)
        back = Ear()
        await back.listener.open("127.0.0.1", port)
        await back.hear(Pulse)
        await back.listener.close()


async def test_a_supervisor_that_reads_nothing_keeps_no_beat_from_the_others(
    ear, warden, address
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # nobody accepts
        address_of_deaf = f"127.0.0.1:{server.getsockname()[1]}"
        async with child(address, address_of_deaf, ear.address):
            began = time.monotonic()
            for _ in range(10):
                await ear.hear(Pulse)
            assert time.monotonic() - began < 3


async def test_a_heart_keeps_no_process_alive(ear, warden, address) -> None:
    async with child(address, ear.address) as process:
        await ear.hear(Pulse)
        await process.does("end")
        assert await asyncio.wait_for(process.process.wait(), 5) == 0


async def test_a_heart_costs_less_than_a_hundredth_of_a_cpu(ear, warden, address) -> None:
    async with child(address, ear.address) as process:
        await ear.hear(Pulse)
        view = ThreadView(process.pid, thread_named("heart", process.pid))
        before = view.look(0.0)
        began = time.monotonic()
        await asyncio.sleep(1.5)  # 15 beats
        after = view.look(0.0)
        assert before is not None
        assert after is not None
        share = (after.cpu_s - before.cpu_s) / (time.monotonic() - began)
        assert share < 0.01


def thread_named(name: str, pid: int) -> int:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    [tid] = [int(t.name) for t in tasks if (t / "comm").read_text().strip() == name]
    return tid


def test_a_thread_of_this_process_can_be_looked_at() -> None:
    own = OwnThread(threading.get_native_id())
    before, memory_mib = own.look(1.0)
    assert memory_mib > 5
    assert before.state == "R"
    end = time.thread_time() + 0.02
    while time.thread_time() < end:
        pass
    after, _ = own.look(2.0)
    assert after.cpu_s - before.cpu_s == pytest.approx(0.02, abs=0.01)
    own.close()
    assert own.look(3.0) is None


def test_a_thread_that_is_not_there_is_not_seen() -> None:
    assert ThreadView(1 << 22, 1 << 22).look(0.0) is None
    assert OwnThread(1 << 22).look(0.0) is None
