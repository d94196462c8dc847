"""Commit connections in virtual time: when a batch is sent again, and when it waits for the leader's word."""

from __future__ import annotations

import asyncio

import pytest
from unit.history_rig import copied
from unit.rigs import KEYS, PARTITIONS, Handler, Leader

from mesh.core.lanes import LANES
from mesh.core.lease import LeaseTiming
from mesh.core.wire import Status
from mesh.lanes import _KEPT_S, _MAX_DELAY_S, Lanes
from mesh.store.api import StoreRefused
from mesh.store.memory import MemoryServer, MemoryStore
from mesh.testing.sim import Simulation

T = LeaseTiming()
K, L = KEYS[:2]


class Full(MemoryStore):
    """A server that may be out of memory, in which it takes renewals and no batch."""

    is_full = False

    def commit(self, lane, grant, seq, renewal, entries):
        if not (self.is_full and entries):
            return super().commit(lane, grant, seq, renewal, entries)
        refused = asyncio.get_running_loop().create_future()
        refused.set_exception(StoreRefused("full", code="OOM", transient=False))
        return refused


class Rig:
    """A handler that owns everything, its lanes, and what they have sent."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.server = MemoryServer()
        self.leader = Leader(self.server)
        self.leader.open_life()
        self.handler = Handler(self.server, leased=False)
        self.core = self.handler.core
        self.core.home.now = lambda: sim.now
        everything = dict.fromkeys(range(PARTITIONS), self.handler.nonce)
        self.leader.takeover(everything, enroll=[self.handler.nonce])
        self.tell()
        self.handler.warm_up()
        self.sent: list[tuple[float, int]] = []
        """When, and under which number."""
        commit = self.server.commit

        def observed(lane, ref, seq, renewal, entries):
            self.sent.append((sim.now, seq))
            return commit(lane, ref, seq, renewal, entries)

        self.server.commit = observed
        self.store = Full(self.server)
        self.lanes: Lanes

    def now(self) -> float:
        return self.sim.now

    def tell(self) -> None:
        self.handler.now = self.sim.now
        self.core.on_grant(self.leader.grant(self.handler.nonce), self.sim.now)

    def turn(self) -> None:
        self.lanes.send(self.sim.now)

    def guard(self, step, *arguments):
        step(*arguments)

    def call(self, method, key, *args):
        self.handler.now = self.sim.now
        return self.handler.call(method, key, *args)

    async def answered(self, caller):
        self.turn()
        await asyncio.sleep(0)
        return caller.status


@pytest.fixture
def rig():
    with Simulation(1) as sim:
        yield Rig(sim)


def in_time(rig, main):
    async def go():
        rig.lanes = Lanes("h-1", rig.core, rig.store, rig, rig.turn, rig.guard)
        await main()
        rig.lanes.stop()

    rig.sim.run(go())


def test_a_batch_of_a_closed_life_is_hardly_sent_until_the_leader_speaks_and_then_at_once(rig):
    async def main():
        rig.server.restart()
        caller = rig.call("Account.deposit", K, 5)
        rig.turn()
        await asyncio.sleep(2.0)
        tries = [at for at, seq in rig.sent if seq == 1]
        assert 2 <= len(tries) <= 1 + 2.0 / _KEPT_S
        assert caller.answer is None
        rig.leader.open_life()
        rig.tell()
        rig.lanes.on_grant()
        for _ in range(3):
            await asyncio.sleep(0)
        assert caller.status is Status.OK
        assert rig.server.grants[rig.handler.nonce].seqs[:2] in ([0, 1], [1, 0])

    in_time(rig, main)


def test_a_batch_that_waits_goes_out_though_the_leaders_word_told_nothing_new(rig):
    """A store that is itself again after all: the same life, and no new grant."""

    async def main():
        run_id = rig.server.run_id
        rig.server.restart()
        caller = rig.call("Account.deposit", K, 5)
        rig.turn()
        await asyncio.sleep(0.01)
        rig.server.run_id = run_id
        rig.lanes.on_grant()
        await asyncio.sleep(0.01)
        assert caller.answer is None, "the same grant is no reason to try"
        await asyncio.sleep(_KEPT_S)
        assert caller.status is Status.OK

    in_time(rig, main)


def test_a_batch_whose_connection_broke_is_sent_again_soon_and_ever_less_often(rig):
    async def main():
        rig.server.reachable = False
        caller = rig.call("Account.deposit", K, 5)
        rig.turn()
        await asyncio.sleep(5.0)
        rig.server.reachable = True
        back_at = rig.sim.now
        while caller.answer is None:  # noqa: ASYNC110 - virtual
            await asyncio.sleep(0.001)
        assert rig.sim.now - back_at <= _MAX_DELAY_S + 0.002

    in_time(rig, main)


def test_a_handler_that_has_nothing_to_write_renews_its_lease_in_time(rig):
    async def main():
        until = rig.sim.now + 5.0
        while rig.sim.now < until:
            rig.turn()  # as the timer does
            await asyncio.sleep(0.02)
            assert rig.core.home.is_leased()
        assert len(rig.sent) <= 5.0 / T.renew_s + 2
        assert {seq for _, seq in rig.sent} == {0}, "of no place in the sequence"

    in_time(rig, main)


def test_while_it_writes_nothing_is_sent_for_the_leases_sake(rig):
    async def main():
        rig.turn()
        await asyncio.sleep(0.01)
        rig.sent.clear()
        until = rig.sim.now + 2.0
        while rig.sim.now < until:
            rig.call("Account.deposit", K, 1)
            rig.turn()
            await asyncio.sleep(0.02)
        assert 0 not in {seq for _, seq in rig.sent}

    in_time(rig, main)


def test_a_store_without_memory_takes_renewals_and_queries_go_on(rig):
    """Both lanes hold a batch that it refuses."""

    async def main():
        rig.turn()
        await asyncio.sleep(0.01)
        rig.store.is_full = True
        waiting = [rig.call("Account.deposit", K, 1)]
        rig.turn()
        waiting.append(rig.call("Account.deposit", L, 1))
        rig.turn()
        until = rig.sim.now + 3.0
        while rig.sim.now < until:
            rig.turn()
            await asyncio.sleep(0.02)
            assert rig.call("Account.read", K).status is Status.OK
        assert [caller.answer for caller in waiting] == [None, None]
        rig.store.is_full = False
        await asyncio.sleep(2 * _MAX_DELAY_S)
        assert {caller.status for caller in waiting} == {Status.OK}

    in_time(rig, main)


def test_a_loop_that_hangs_renews_nothing(rig):
    """Renewals come from the loop that answers calls: here nobody turns it."""

    async def main():
        rig.turn()
        await asyncio.sleep(0.01)
        assert rig.core.home.is_leased()
        await asyncio.sleep(T.duration_s)
        assert not rig.core.home.is_leased()

    in_time(rig, main)


def test_once_it_is_stopped_nothing_is_sent_and_nothing_heard(rig):
    async def main():
        rig.server.reachable = False
        caller = rig.call("Account.deposit", K, 5)
        rig.turn()
        await asyncio.sleep(0.01)
        rig.lanes.stop()
        rig.server.reachable = True
        await asyncio.sleep(1.0)
        assert caller.answer is None and rig.sent == []

    in_time(rig, main)


def test_while_there_is_no_room_for_what_a_short_set_has_a_batch_is_sent_again_now_and_then(rig):
    async def main():
        rig.core._history.replicas, rig.core._history._limit_bytes = 3, 1
        assert await rig.answered(rig.call("Account.deposit", K, 1)) is Status.OK
        caller = rig.call("Account.deposit", K, 1)
        rig.turn()
        await asyncio.sleep(5.0)
        assert caller.answer is None
        tries = [at for at, seq in rig.sent if at > 0.1 and seq]
        assert 5.0 / _MAX_DELAY_S * 0.8 <= len(tries) <= 5.0 / _MAX_DELAY_S * 1.2

    in_time(rig, main)


def test_what_the_primary_of_a_new_life_lacks_is_sent_on_the_lanes_that_it_had_before_anything_new(
    rig,
):
    async def main():
        rig.core._history.replicas = 3
        for _ in range(3):
            assert await rig.answered(rig.call("Account.deposit", K, 1)) is Status.OK
            assert await rig.answered(rig.call("Account.deposit", L, 1)) is Status.OK
        written = copied(rig.server)
        rig.server.partitions.clear()
        rig.server.grants[rig.handler.nonce].seqs = [0] * len(LANES)
        rig.server.restart()
        last = rig.call("Account.deposit", K, 1)
        rig.turn()
        await asyncio.sleep(0.05)
        rig.leader.open_life()
        del rig.sent[:]
        rig.tell()
        rig.lanes.on_grant()
        await asyncio.sleep(0.05)
        assert last.answer.value == 4
        seqs = rig.server.grants[rig.handler.nonce].seqs
        assert sum(seqs) == 7
        assert rig.server.partitions.keys() == written[0].keys()
        assert rig.core.resent == 6

    in_time(rig, main)
