"""A client in a forked child: refused at once, and the parent's connections are as they were."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from mesh_in_process import InProcess
from mesh_in_thread import mesh_in_thread

import mesh
from mesh.client.aio import AsyncClient
from mesh.errors import MeshError, OutcomeUnknown, Unavailable

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture
def meshed():
    with mesh_in_thread(replaces=False) as running:
        yield running


def in_child(work: Callable[[], Any]) -> Any:
    """What it returned, or a MeshError that it raised, in a forked child."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            try:
                result = work()
            except MeshError as error:
                result = (type(error), error.executed, str(error))
            os.write(writing, pickle.dumps(result))
        except BaseException:  # noqa: BLE001 - a child must not go on with the tests
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        result = pipe.read()
    os.waitpid(pid, 0)
    return pickle.loads(result)


def stepped(work: Any) -> Any:
    """A coroutine that ends without waiting for anything."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


def sockets(client: AsyncClient) -> list[int]:
    return [conn.descriptor for conn in client._links._sockets]


def test_a_blocking_client_is_refused_in_the_child_and_goes_on_in_the_parent(meshed):
    with meshed.connect() as client:
        assert client.call("KV.incr", "k") == 1
        kind, executed, says = in_child(lambda: client.call("KV.incr", "k"))
        assert (kind, executed) == (Unavailable, False)
        assert f"belongs to process {os.getpid()}" in says
        assert "connect anew in the child" in says
        assert in_child(lambda: repr(client)).endswith("of another process>")
        assert client.call("KV.incr", "k") == 2


def test_closing_the_copy_in_the_child_closes_nothing_of_the_parents(meshed):
    with meshed.connect() as client:
        client.call("KV.incr", "k")
        connections = dict(client._client._links._handlers)
        assert in_child(client.close) is None
        assert in_child(lambda: client.__exit__(None, None, None)) is None
        assert client.call("KV.incr", "k") == 2
        assert client._client._links._handlers == connections


def test_a_child_that_waits_for_its_parents_call_is_told_and_the_parent_gets_the_reply(meshed):
    with meshed.connect() as client:
        key = meshed.key_of("h-0")
        with meshed.replicas_silent():
            future = client.submit("KV.incr", key)
            meshed.until_pending()
            kind, executed, says = in_child(future.result)
        assert (kind, executed) == (OutcomeUnknown, None)
        assert "before this process was forked" in says
        assert future.result() == 1
        assert in_child(future.result) == 1


def test_a_child_connects_anew_under_a_session_of_its_own(meshed):
    with meshed.connect() as client:
        client.call("KV.incr", "k")

        def child() -> tuple[int, list[int]]:
            with meshed.connect() as own:
                return own._client._core.session, [own.call("KV.incr", "k") for _ in range(20)]

        session, numbers = in_child(child)
        assert numbers == list(range(2, 22))
        assert session != client._client._core.session
        assert client.call("KV.incr", "k") == 22


def _child_process(endpoint: str, results: Any) -> None:
    with mesh.Client(endpoint) as client:
        results.put(client.call("KV.incr", "k"))


def test_multiprocessing_forks_beside_a_client_that_is_at_work(meshed):
    context = multiprocessing.get_context("fork")
    with meshed.connect() as client:
        calls = [client.submit("KV.incr", "busy") for _ in range(500)]
        results = context.SimpleQueue()
        children = [
            context.Process(target=_child_process, args=(meshed.endpoint, results))
            for _ in range(3)
        ]
        for child in children:
            child.start()
        for child in children:
            child.join()
        assert [child.exitcode for child in children] == [0, 0, 0]
        assert sorted(results.get() for _ in children) == [1, 2, 3]
        assert [call.result() for call in calls] == list(range(1, 501))


async def test_an_async_client_is_refused_in_the_child_and_goes_on_in_the_parent():
    async with InProcess(1, replaces=False) as meshed:
        client = await meshed.connect()
        assert await client.call("KV.incr", "k") == 1
        kind, executed, says = in_child(lambda: stepped(client.call("KV.incr", "k")))
        assert (kind, executed) == (Unavailable, False)
        assert "connect anew in the child" in says
        assert in_child(lambda: stepped(client.close())) is None
        assert await client.call("KV.incr", "k") == 2


async def test_nothing_that_a_child_writes_or_reads_reaches_the_parents_connections():
    async with InProcess(1, replaces=False) as meshed:
        client = await meshed.connect()
        assert await client.call("KV.incr", "k") == 1
        descriptors = sockets(client)
        assert len(descriptors) == 2  # the endpoint's and the handler's
        connections = dict(client._links._handlers)

        def meddle() -> list[bytes]:
            for descriptor in descriptors:
                with pytest.raises(BrokenPipeError):
                    os.write(descriptor, b"garbage")
            return [os.read(descriptor, 10) for descriptor in descriptors]

        assert in_child(meddle) == [b"", b""]
        assert await client.call("KV.incr", "k") == 2
        assert client._links._handlers == connections
        assert sockets(client) == descriptors
