"""Async and blocking methods in a real handler: what their callers see, and what they may do meanwhile."""

from __future__ import annotations

import asyncio
import threading

import pytest
from mesh_in_process import InProcess

import mesh
from mesh.errors import EntityError

gates: dict[str, asyncio.Event] = {}
valves: dict[str, threading.Event] = {}
trace: list[str] = []


@mesh.entity
class Slow:
    done: list[str] = []  # noqa: RUF012 - defaults are copied for each key

    @mesh.command
    async def pass_gate(self, gate: str) -> list[str]:
        self.done.append(gate)
        trace.append(gate)
        await gates[gate].wait()
        return self.done

    @mesh.command(limit_s=0.05)
    async def never(self) -> None:
        self.done.append("never")
        try:
            await asyncio.Event().wait()
        finally:
            trace.append("cancelled")

    @mesh.command
    async def cancel_itself(self) -> None:
        self.done.append("gone")
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(10)

    @mesh.command(blocking=True)
    def turn_valve(self, valve: str) -> str:
        self.done.append(valve)
        trace.append(valve)
        valves[valve].wait(10)
        return threading.current_thread().name

    @mesh.command(blocking=True, limit_s=0.05)
    def hang(self, valve: str) -> None:
        self.done.append("hung")
        valves[valve].wait(10)

    @mesh.command
    def note(self, what: str) -> None:
        self.done.append(what)

    @mesh.query
    def read(self) -> list[str]:
        return self.done

    @mesh.query(blocking=True)
    def count(self) -> int:
        return len(self.done)

    @mesh.query
    async def meddle(self) -> None:
        self.done.append("by a query")


@pytest.fixture(autouse=True)
def fresh():
    gates.clear()
    trace.clear()
    yield
    for valve in valves.values():
        valve.set()
    valves.clear()


@pytest.fixture
async def meshed():
    async with InProcess(2, app=[Slow]) as running:
        yield running


@pytest.fixture
async def client(meshed):
    return await meshed.connect()


async def test_an_async_command_holds_its_key_and_nothing_else(meshed, client):
    gates["g"] = asyncio.Event()
    key = await meshed.key_of("h-0")
    slow = asyncio.create_task(client.call(Slow.pass_gate, key, "g"))
    await meshed.until(lambda: trace == ["g"])
    behind = asyncio.create_task(client.call(Slow.note, key, "behind"))
    assert await client.call(Slow.read, key) == [], "queries see what is acknowledged"
    assert await client.call(mesh.KV.incr, key) == 1, "same partition, other key"
    assert not behind.done()
    gates["g"].set()
    assert await slow == ["g"]
    await behind
    assert await client.call(Slow.read, key) == ["g", "behind"]


async def test_a_blocking_command_has_a_thread_and_the_handler_goes_on(meshed, client):
    valves["v"] = threading.Event()
    slow = asyncio.create_task(client.call(Slow.turn_valve, "k", "v"))
    await meshed.until(lambda: trace == ["v"])
    assert await client.call(mesh.KV.incr, "k") == 1
    assert await client.call(Slow.count, "k") == 0
    valves["v"].set()
    assert "blocking" in await slow
    assert await client.call(Slow.count, "k") == 1


async def test_an_async_command_past_its_limit_is_cancelled_and_undone(meshed, client):
    with pytest.raises(EntityError, match=r"longer than its limit of 0\.05 s") as caught:
        await client.call(Slow.never, "k")
    assert caught.value.type == "TimeLimitExceeded"
    await meshed.until(lambda: trace == ["cancelled"])
    assert await client.call(Slow.read, "k") == []


async def test_an_async_command_that_is_cancelled_from_inside_is_undone(client):
    with pytest.raises(EntityError) as caught:
        await client.call(Slow.cancel_itself, "k")
    assert caught.value.type == "CancelledError"
    assert await client.call(Slow.read, "k") == []


async def test_a_stuck_thread_costs_its_caller_an_error_and_is_named_in_the_log(
    meshed, client, caplog
):
    valves["stuck"] = threading.Event()
    with pytest.raises(EntityError, match="goes on in its thread") as caught:
        await client.call(Slow.hang, "k", "stuck")
    assert caught.value.type == "TimeLimitExceeded"
    runners = [node._runner for node in meshed.nodes.values()]
    await meshed.until(lambda: any(r.stuck == {"Slow.hang": 1} for r in runners))
    assert "Slow.hang goes on in its thread" in caplog.text
    await client.call(Slow.note, "k", "free again")
    valves["stuck"].set()
    await meshed.until(lambda: not any(r.stuck for r in runners))
    assert await client.call(Slow.read, "k") == ["free again"]


async def test_a_query_that_writes_is_refused_async_too(client):
    with pytest.raises(EntityError, match=r"make it a @mesh\.command"):
        await client.call(Slow.meddle, "k")
    assert await client.call(Slow.read, "k") == []


async def test_a_handler_that_dies_in_the_middle_of_a_command_leaves_one_effect(meshed, client):
    gates["g"] = asyncio.Event()
    key = await meshed.key_of("h-0")
    calling = asyncio.create_task(client.call(Slow.pass_gate, key, "g"))
    await meshed.until(lambda: trace == ["g"])
    await meshed.kill("h-0")
    await meshed.until(lambda: trace == ["g", "g"])
    gates["g"].set()
    assert await calling == ["g"]
    assert await client.call(Slow.read, key) == ["g"]


async def test_a_partition_that_moves_waits_for_its_run(meshed, client):
    """A third handler comes: it is to have its share, and the call its one effect."""
    gates["g"] = asyncio.Event()
    keys = [f"k{number}" for number in range(12)]
    calls = [asyncio.create_task(client.call(Slow.pass_gate, key, "g")) for key in keys]
    await meshed.until(lambda: len(trace) == len(keys))
    await meshed.kill("h-1")
    await meshed.until(lambda: "h-1" in meshed.nodes)
    gates["g"].set()
    assert await asyncio.gather(*calls) == [["g"]] * len(keys)
    for key in keys:
        assert await client.call(Slow.read, key) == ["g"]


async def test_a_handler_that_stops_does_not_wait_for_its_methods(meshed, client):
    valves["v"] = threading.Event()
    gates["g"] = asyncio.Event()
    calls = [
        asyncio.create_task(client.call(Slow.turn_valve, "a", "v", timeout=1)),
        asyncio.create_task(client.call(Slow.pass_gate, "b", "g", timeout=1)),
    ]
    await meshed.until(lambda: set(trace) == {"v", "g"})
    async with asyncio.timeout(5):
        for id_ in list(meshed.nodes):
            await meshed.nodes[id_].stop()
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
