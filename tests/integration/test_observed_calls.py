"""Subscribers hear of real calls: at the client, at the handlers, through a takeover."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import Counter

import pytest
from mesh_in_process import InProcess

import mesh
from mesh import observe
from mesh.core.keyspace import partition_of
from mesh.errors import BadRequest, DeadlineExceeded, EntityError
from mesh.observe import (
    CallCompleted,
    CallFailed,
    CallStarted,
    CommitAcknowledged,
    HandlingCompleted,
    HandlingFailed,
    HandlingStarted,
    PartitionAdopted,
    PartitionLost,
    PartitionReleased,
)


@pytest.fixture
def heard():
    """Every event, the mesh's start included."""
    events: list[observe.Event] = []
    unsubscribe = observe.subscribe(events.append)
    yield events
    unsubscribe()


@pytest.fixture
async def meshed(heard):
    async with InProcess(3) as running:
        yield running


def of(events: list[observe.Event], *types: type[observe.Event]) -> list[observe.Event]:
    return [event for event in events if type(event) in types]


async def test_a_call_is_heard_of_at_the_client_at_its_handler_and_at_the_store(meshed, heard):
    client = await meshed.connect()
    heard.clear()
    key = await meshed.key_of("h-1")
    partition = partition_of(key.encode(), 16)
    assert await client.call("KV.incr", key) == 1
    started, completed = of(heard, CallStarted, CallCompleted)
    assert started == CallStarted(started.call, "KV.incr", partition)
    assert completed[:4] == (started.call, "KV.incr", partition, 1)
    arrived, answered = of(heard, HandlingStarted, HandlingCompleted)
    assert arrived == HandlingStarted("h-1", started.call, "KV.incr", partition, 0)
    assert answered[:5] == arrived
    told = [type(event) for event in heard]
    assert told.index(CommitAcknowledged) < told.index(HandlingCompleted)
    [commit] = of(heard, CommitAcknowledged)
    assert commit[:3] == ("h-1", 1, 1)
    assert 0 < commit.duration_s <= answered.duration_s <= completed.duration_s


async def test_a_query_is_answered_without_a_commit(meshed, heard):
    client = await meshed.connect()
    await client.call("KV.put", "k", 1)
    heard.clear()
    assert await client.call("KV.get", "k") == 1
    kinds = [CallStarted, HandlingStarted, HandlingCompleted, CallCompleted]
    assert [type(event) for event in heard] == kinds


async def test_each_failure_is_heard_of_with_its_kind_on_both_sides(meshed, heard):
    client = await meshed.connect()
    heard.clear()
    with pytest.raises(EntityError):
        await client.call("KV.incr", "k", "x")
    with pytest.raises(BadRequest):
        await client.call("KV.nope", "k")
    failed = of(heard, CallFailed)
    assert [(e.method, e.outcome) for e in failed] == [
        ("KV.incr", "entity_error"),
        ("KV.nope", "bad_request"),
    ]
    assert isinstance(failed[0].error, EntityError)
    handled = of(heard, HandlingFailed)
    assert [(e.method, e.outcome) for e in handled] == [
        ("KV.incr", "entity_error"),
        ("KV.nope", "bad_request"),
    ]
    assert [e.call for e in handled] == [e.call for e in failed]


async def test_calls_that_nobody_answers_or_waits_for_are_heard_of_too(meshed, heard):
    client = await meshed.connect()
    meshed.replaces = False
    for id_ in ("h-0", "h-1", "h-2"):
        await meshed.nodes[id_].stop()
    heard.clear()
    with pytest.raises(DeadlineExceeded):
        await client.call("KV.incr", "k", timeout=0.05)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(client.call("KV.incr", "k"), 0.05)
    late, cancelled = of(heard, CallFailed)
    assert (late.outcome, cancelled.outcome) == ("deadline_exceeded", "cancelled")
    assert late.duration_s >= 0.05
    assert (late.attempts, cancelled.error) == (0, None)


async def test_a_takeover_is_heard_of_partition_by_partition(meshed, heard):
    adopted = Counter((e.handler, e.partition) for e in of(heard, PartitionAdopted))
    assert sum(adopted.values()) >= 16
    owned = await meshed.owned("h-0")
    heard.clear()
    victim = meshed.nodes["h-0"]
    await meshed.kill("h-0")
    await meshed.replaced("h-0", victim)
    taken = {e.partition for e in of(heard, PartitionAdopted) if e.handler in ("h-1", "h-2")}
    assert owned <= taken
    # The replacement gets its share back as planned: one gives up, another adopts, at a later epoch.
    released = {e.partition: e.epoch for e in of(heard, PartitionReleased)}
    back = {e.partition: e.epoch for e in of(heard, PartitionAdopted) if e.handler == "h-0"}
    assert released.keys() == back.keys()
    assert all(back[partition] > epoch for partition, epoch in released.items())
    assert not of(heard, PartitionLost)


async def test_a_handler_that_was_replaced_in_error_hears_that_its_partitions_are_lost(
    meshed, heard
):
    owned = await meshed.owned("h-0")
    mistaken = meshed.nodes["h-0"]
    heard.clear()
    meshed.prove_exit(mistaken)
    await meshed.until(mistaken.ended.is_set)
    await mistaken.stop()
    lost = of(heard, PartitionLost)
    assert {(e.handler, e.partition) for e in lost} == {("h-0", p) for p in owned}


async def test_what_clients_hear_adds_up_through_a_kill(meshed, heard):
    client = await meshed.connect()
    heard.clear()
    done = 0

    async def caller(number: int) -> None:
        nonlocal done
        for i in range(60):
            await client.call("KV.incr", f"{number}-{i}")
            done += 1

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(caller(number))
        await meshed.until(lambda: done > 100)
        await meshed.kill("h-1")
    started, ended = of(heard, CallStarted), of(heard, CallCompleted, CallFailed)
    assert {e.call for e in started} == {e.call for e in ended}
    assert (len(started), len(ended)) == (480, 480)
    assert not of(heard, CallFailed)
    assert sum(e.attempts for e in ended) >= 480


async def test_a_subscriber_that_raises_costs_no_call(meshed, caplog):
    def fail(event: observe.Event) -> None:
        raise RuntimeError("the exporter is broken")

    client = await meshed.connect()
    with contextlib.ExitStack() as stack, caplog.at_level(logging.ERROR):
        stack.callback(observe.subscribe(fail))
        for number in range(1, 21):
            assert await client.call("KV.incr", "k") == number
    assert len([r for r in caplog.records if r.name == "mesh.observe"]) == 1


async def test_the_blocking_clients_calls_are_heard_of_in_its_own_thread(meshed, heard):
    threads: set[str] = set()
    unsubscribe = observe.subscribe(
        lambda event: threads.add(threading.current_thread().name), CallStarted, CallCompleted
    )

    def work() -> int:
        with mesh.Client(meshed.endpoint) as client:
            return client.call(mesh.KV.incr, "sync")

    heard.clear()
    assert await asyncio.to_thread(work) == 1
    unsubscribe()
    assert [e.method for e in of(heard, CallStarted, CallCompleted)] == ["KV.incr", "KV.incr"]
    assert threads and threading.main_thread().name not in threads
