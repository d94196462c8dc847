"""A handler whose start fails or hangs leaves nothing behind, and can be started again. No Ray."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from actors import supervisor
from actors.spec import Spec
from actors.supervisor import SupervisorActor
from mesh.core import signals as sv
from mesh.errors import SetupError
from mesh.store.memory import MemoryServer, MemoryStore
from mesh.supervisor import Supervisor, SupervisorSettings

NAME = "handler h-0"


@dataclass(eq=False)
class Actor:
    """A process that Ray has started."""

    name: str


class Names:
    """As actors.runtime, which is Ray: a name has one holder until that is killed."""

    def __init__(self) -> None:
        self.held: dict[str, Actor] = {}
        self.asked = False
        self.may_create = threading.Event()
        self.may_create.set()
        self.created = 0
        self.outcome: Any = None

    def is_restarted(self) -> bool:
        return False

    def create_handler(self, mesh: str, id: str) -> Actor:
        self.asked = True
        assert self.may_create.wait(5)
        name = f"handler {id}"
        if name in self.held:
            raise SetupError(f"actor {name!r} could not be created: the name is taken")
        self.created += 1
        self.held[name] = Actor(name)
        return self.held[name]

    async def start(self, handle: Actor, spec: Spec) -> int:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        if self.outcome == "hang":
            await asyncio.Event().wait()
        return 1

    def kill(self, handle: Actor) -> None:
        if self.held.get(handle.name) is handle:
            del self.held[handle.name]

    def kill_named(self, mesh: str, name: str) -> None:
        self.held.pop(name, None)


@pytest.fixture
def ray(monkeypatch):
    names = Names()
    monkeypatch.setattr(supervisor, "runtime", names)
    return names


@pytest.fixture
def actor(ray):
    actor = SupervisorActor("m", "s-0")
    actor._spec = Spec("m", 4, ("h-0",), "127.0.0.1", 0, "", {}, 0, "process", "")
    return actor


async def test_a_start_that_fails_frees_the_name(ray, actor):
    ray.outcome = SetupError("no such application")
    with pytest.raises(SetupError, match="no such application"):
        await actor.start_handler("h-0")
    assert ray.held == {}


@pytest.mark.parametrize("created", [True, False])
async def test_a_start_that_is_given_up_frees_the_name(ray, actor, created):
    ray.outcome = "hang"
    if not created:
        ray.may_create.clear()
    starting = asyncio.create_task(actor.start_handler("h-0"))
    while not (ray.held if created else ray.asked):  # noqa: ASYNC110 - a thread does it
        await asyncio.sleep(0.001)
    starting.cancel()
    ray.may_create.set()
    await asyncio.wait((starting,))
    assert ray.created == 1
    assert ray.held == {}


async def test_whoever_holds_the_name_without_serving_makes_room(ray, actor):
    ray.held[NAME] = hung = Actor(NAME)
    await actor.start_handler("h-0")
    assert ray.held[NAME] is not hung


async def test_the_late_failure_of_a_start_that_was_given_up_is_not_the_next_ones():
    started: list[str] = []

    class Launcher:
        async def start_handler(self, id: str) -> None:
            started.append(id)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                started.append("given up")
                raise

    settings = SupervisorSettings("m", "s-0", ("h-0",), 4)
    shell = Supervisor(settings, MemoryStore(MemoryServer(2)), Launcher())
    await shell.lead()
    try:
        for _ in range(2):
            shell.leader.perform(sv.StartHandler("h-0"))
            for _ in range(5):
                await asyncio.sleep(0)
        assert started == ["h-0", "given up", "h-0"]
        assert not [e for e in shell.journal.events if e["kind"] == "handler_start_failed"]
    finally:
        await shell.stop()
