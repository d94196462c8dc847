"""Links to several supervisors, over a simulated network: who is told what, and who is heeded."""

from __future__ import annotations

import asyncio

import pytest

from mesh.core.messages import (
    Adopted,
    Beat,
    Dropped,
    Hello,
    Leading,
    Message,
    Register,
    Stop,
    Welcome,
    unpack_message,
)
from mesh.core.wire import Limits
from mesh.leaders import LeaderLinks
from mesh.net.connection import Connection
from mesh.net.listener import Listener
from mesh.testing.sim import Simulation

MESH, PARTITIONS, NONCE, PORT = "m", 4, b"handler1", 7400
HELLO = Hello(MESH, "handler", "", NONCE)


class Supervisor:
    """One that says what a test has it say."""

    def __init__(self, id_: str, partitions: int = PARTITIONS) -> None:
        self.id = id_
        self.partitions = partitions
        self.first: Message | None = None
        """Said on each new link, right behind the welcome."""
        self.heard: list[Message] = []
        self.conns: list[Connection] = []
        self.listener = Listener(self, MESH, "", Limits())

    async def serve(self, process):
        await self.listener.open(process.host.address, PORT)
        await process.loop.create_future()

    def on_hello(self, conn, hello):
        self.conns.append(conn)
        return Welcome(MESH, "supervisor", self.id, self.id.encode(), self.partitions)

    def on_ready(self, conn):
        if self.first is not None:
            conn.send(self.first.frame())

    def on_frames(self, conn, frames):
        self.heard += [unpack_message(body) for _, body in frames]

    def on_closed(self, conn, reason):
        self.conns.remove(conn)

    def say(self, message: Message) -> None:
        for conn in self.conns:
            conn.send(message.frame())
            conn.flush()

    def leads(self, token: int) -> None:
        self.first = Leading(token, 1, self.id)
        self.say(self.first)

    def kinds(self) -> list[str]:
        return [type(message).__name__ for message in self.heard]


class Rig:
    """Two supervisors and a handler's links to them."""

    def __init__(self, sim: Simulation, *supervisors: Supervisor) -> None:
        self.sim = sim
        self.supervisors = supervisors
        addresses = []
        for supervisor in supervisors:
            process = sim.spawn(supervisor.id, supervisor.serve)
            addresses.append(f"{process.host.address}:{PORT}")
        self.heeded: list[Message] = []
        self.repeats: list[Message] = [Dropped(NONCE, [(1, 0x10001)])]
        self.addresses = tuple(addresses)
        sim.spawn("h-0", self.be_handler)

    async def be_handler(self, process):
        self.links = LeaderLinks(
            self.addresses,
            HELLO,
            PARTITIONS,
            self,
            lambda: Register("h-0", NONCE, "h", 1, 1, "", 1.0, None, None, 0, 0, b""),
            lambda: Beat(NONCE, 0, 0, 0, 0, 0, 0),
            lambda: self.repeats,
        )
        await asyncio.gather(*(loop for _, loop in self.links.loops()))

    def on_frames(self, conn, frames):
        assert conn.role == "supervisor", "known before the first frame"
        for _, body in frames:
            message = unpack_message(body)
            if isinstance(message, Leading):
                self.links.on_leading(conn, message)
            elif self.links.leads(conn):
                self.heeded.append(message)

    def on_closed(self, conn, reason):
        self.links.on_closed(conn, reason)

    def run(self, main):
        self.sim.run(main())


@pytest.fixture
def rig():
    with Simulation(3) as sim:
        yield Rig(sim, Supervisor("s-0"), Supervisor("s-1"))


def test_it_registers_with_each_and_tells_each_its_counts(rig):
    async def main():
        await asyncio.sleep(2.5)
        for supervisor in rig.supervisors:
            kinds = supervisor.kinds()
            assert kinds[0] == "Register"
            assert kinds.count("Beat") >= 2

    rig.run(main)


def test_who_says_that_it_leads_hears_a_registration_again(rig):
    async def main():
        await asyncio.sleep(0.1)
        leader = rig.supervisors[0]
        leader.heard.clear()
        leader.leads(5)
        await asyncio.sleep(0.1)
        assert leader.kinds() == ["Register"]
        assert rig.supervisors[1].kinds().count("Register") == 1

    rig.run(main)


def test_only_the_leader_of_the_highest_token_is_heeded_and_told(rig):
    """F9: the one before goes on talking."""

    async def main():
        old, new = rig.supervisors
        await asyncio.sleep(0.1)
        old.leads(5)
        await asyncio.sleep(0.1)
        new.leads(6)
        await asyncio.sleep(0.1)
        old.say(Stop(5))
        new.say(Stop(6))
        await asyncio.sleep(0.1)
        assert rig.heeded == [Stop(6)]
        old.heard.clear()
        new.heard.clear()
        rig.links.tell(Adopted(NONCE, 1, 1))
        await asyncio.sleep(1.5)
        assert "Adopted" in new.kinds() and "Dropped" in new.kinds()
        assert set(old.kinds()) == {"Beat"}

    rig.run(main)


def test_a_leader_that_is_gone_is_not_replaced_by_the_one_before(rig):
    async def main():
        old, new = rig.supervisors
        old.first, new.first = Leading(5, 1, "s-0"), Leading(6, 1, "s-1")
        await asyncio.sleep(0.1)
        rig.sim.processes["s-1"].kill()
        await asyncio.sleep(0.1)
        old.say(Stop(5))
        await asyncio.sleep(0.1)
        assert rig.heeded == []

    rig.run(main)


def test_a_leader_is_heeded_on_the_link_that_it_was_reached_by_again(rig):
    async def main():
        leader = rig.supervisors[0]
        leader.first = Leading(5, 1, "s-0")
        await asyncio.sleep(0.1)
        leader.conns[0].abort()
        await asyncio.sleep(0.1)
        assert leader.kinds().count("Register") >= 2
        leader.say(Stop(5))
        await asyncio.sleep(0.1)
        assert rig.heeded == [Stop(5)]

    rig.run(main)


def test_a_leader_that_gets_a_higher_token_goes_on_leading(rig):
    async def main():
        leader = rig.supervisors[0]
        leader.first = Leading(5, 1, "s-0")
        await asyncio.sleep(0.1)
        leader.leads(7)
        leader.say(Stop(7))
        await asyncio.sleep(0.1)
        assert rig.heeded == [Stop(7)]

    rig.run(main)


def test_who_does_not_say_that_it_leads_is_not_heeded_and_told_nothing_but_counts(rig):
    async def main():
        await asyncio.sleep(0.1)
        for supervisor in rig.supervisors:
            supervisor.say(Stop(99))
        rig.links.tell(Adopted(NONCE, 1, 1))
        await asyncio.sleep(1.5)
        assert rig.heeded == []
        for supervisor in rig.supervisors:
            assert set(supervisor.kinds()) == {"Register", "Beat"}

    rig.run(main)


def test_a_supervisor_of_a_mesh_of_another_size_is_not_talked_to():
    with Simulation(3) as sim:
        rig = Rig(sim, Supervisor("s-0", partitions=8))

        async def main():
            await asyncio.sleep(1.0)
            assert rig.supervisors[0].heard == []

        rig.run(main)
