"""The process that owns a mesh: whatever comes between, what was started is taken down, and no sooner."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import pytest

from mesh import owner
from mesh.config import MeshConfig
from mesh.errors import Unavailable

# `told` is an event inside; a signal is how others get at it.
pytestmark = pytest.mark.timeout(20)


class Running:
    """A mesh that is up."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        self.asked = asyncio.Event()
        self.error: Exception | None = None

    async def status(self) -> dict[str, str]:
        self.asked.set()
        if self.error is not None:
            raise self.error
        return {"name": "m"}

    async def stop(self) -> None:
        self.stopped.set()


@pytest.fixture
async def running(monkeypatch):
    mesh = Running()

    async def up(config, *, carried, tethered, progress):
        progress("one step")
        return mesh

    monkeypatch.setattr(owner, "up", up)
    yield mesh
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.remove_signal_handler(number)


@pytest.fixture
def pipe():
    """The starter's end, and ours."""
    theirs, ours = os.pipe()
    with os.fdopen(theirs, "rb") as reader, os.fdopen(ours, "w", buffering=1) as words:
        yield reader, words


def own(words):
    return asyncio.create_task(owner._own(MeshConfig("m"), words, tethered=False))


async def test_a_mesh_outlives_a_starter_that_died_before_it_was_ready(running, pipe):
    reader, words = pipe
    reader.close()
    owning = own(words)
    await running.asked.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not owning.done() and not running.stopped.is_set()
    os.kill(os.getpid(), signal.SIGTERM)
    assert await owning == 0
    assert running.stopped.is_set()


async def test_a_mesh_that_cannot_be_asked_is_taken_down_and_that_is_said(running, pipe):
    reader, words = pipe
    running.error = Unavailable("the supervisor went away")
    assert await own(words) == 1
    assert running.stopped.is_set()
    assert [json.loads(reader.readline()) for _ in range(2)] == [
        {"progress": "one step"},
        {"error": "the supervisor went away"},
    ]


async def test_a_mesh_is_taken_down_whatever_goes_wrong(running, pipe):
    _, words = pipe
    running.error = RuntimeError("nobody thought of this")
    with pytest.raises(RuntimeError):
        await own(words)
    assert running.stopped.is_set()
