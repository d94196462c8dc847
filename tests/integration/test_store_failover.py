"""A leader and a real store: its primary is killed, stopped, started again; a replica likewise."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import replace

import pytest

from mesh.core.epochs import epoch_of
from mesh.core.life_numbers import count_of
from mesh.core.records import Entry, GrantRef, Move, Moves, StoreStatus, Takeover
from mesh.ids import new_operation
from mesh.lives import Lives, LivesConfig
from mesh.store.api import StoreRefused, StoreUnreachable
from mesh.store.embedded import EmbeddedStore
from mesh.store.redis import RedisStore
from mesh.store.resp import pack

NONCE = b"o1"


class Led:
    """A leader that looks after the store, and a process that writes."""

    def __init__(self, embedded: EmbeddedStore) -> None:
        self.embedded = embedded
        self.store = RedisStore(embedded.address)
        self.writer = RedisStore(embedded.address)
        self.events = []
        record = lambda kind, fields: self.events.append((kind, fields))  # noqa: E731
        self.lives = Lives(self.store, LivesConfig("default", 256), record=record)
        self.opened = []
        self.seq = 0

    async def begin(self) -> None:
        await self.store.ensure_functions()
        self.opened.append(await self.lives.open_first())
        opened = self.opened[-1]
        moves = Moves.of([Move(1, None, 0, NONCE, epoch_of(1, 1))])
        enroll = ((NONCE, "h-0"),)
        call = Takeover(new_operation(), opened.life, opened.token, enroll, (), moves, b"table")
        assert (await self.store.takeover(call)).acknowledged

    async def watch(self) -> None:
        while True:
            self.opened.append(await self.lives.watch(self.opened[-1]))

    async def written(self, within_s: float = 20.0) -> None:
        """Write until it is acknowledged."""
        entry = Entry(1, epoch_of(1, 1), {b"k": b"%d" % (self.seq + 1)})
        async with asyncio.timeout(within_s):
            while True:
                grant = GrantRef(NONCE, self.opened[-1].life, 0)
                try:
                    reply = await self.writer.commit(0, grant, self.seq + 1, self.seq, [entry])
                    if reply.status is StoreStatus.OK and reply.acknowledged:
                        self.seq += 1
                        return
                except (StoreUnreachable, StoreRefused):
                    pass
                await asyncio.sleep(0.01)

    async def node(self, role: str):
        nodes = await self.embedded.nodes()
        return next(node for node in nodes if node.role == role)

    def shown(self) -> list[tuple[str, int, int]]:
        """Role, port and pid of each server, as status shows them."""
        rows = self.lives.roll.rows((), self.lives.sync_set.members)
        return sorted((row["role"], row["port"], row["pid"]) for row in rows)

    async def whole(self) -> bool:
        """Whether both replicas are members and may be promoted."""
        try:
            life = (await self.store.recorded()).life
        except (StoreUnreachable, StoreRefused):
            return False
        seen = await self.looker.look(sentinels=False)
        priorities = [node.priority for node in seen.nodes if not node.is_primary]
        return life is not None and len(life.sync_set.members) == 2 and priorities == [100, 100]

    async def until_whole(self) -> None:
        self.looker = self.store.nodes()
        try:
            async with asyncio.timeout(20):
                while not await self.whole():  # noqa: ASYNC110 - it lies in other processes
                    await asyncio.sleep(0.05)
        finally:
            await self.looker.close()


@contextlib.asynccontextmanager
async def leading(folder):
    async with EmbeddedStore(folder) as embedded:
        led = Led(embedded)
        await led.begin()
        watching = asyncio.create_task(led.watch())
        try:
            await led.written()
            yield led
            assert not watching.done(), watching
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await led.store.close()
            await led.writer.close()


async def test_writes_go_on_after_the_primary_is_killed_and_it_comes_back_as_a_member(tmp_path):
    async with leading(tmp_path) as led:
        dead = await led.node("primary")
        os.kill(dead.pid, signal.SIGKILL)
        await led.written()
        assert [count_of(opened.life) for opened in led.opened] == [1, 2]
        await led.until_whole()
        await led.written()
        assert "loss_possible" not in dict(led.events)


async def test_status_shows_the_servers_as_they_are_after_a_failover_and_once_all_are_back(
    tmp_path,
):
    async with leading(tmp_path) as led:
        dead = await led.node("primary")

        async def until_shown(role: str, port: int) -> None:
            async with asyncio.timeout(20):
                while (role, port) not in [(r, p) for r, p, _ in led.shown()]:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

        await until_shown("primary", dead.port)
        os.kill(dead.pid, signal.SIGKILL)
        await led.written()
        promoted = await led.node("primary")
        await until_shown("primary", promoted.port)
        await until_shown("replica", dead.port)
        await led.until_whole()
        async with asyncio.timeout(20):
            while True:
                really = sorted((n.role, n.port, n.pid) for n in await led.embedded.nodes())
                if led.shown() == really:
                    break
                await asyncio.sleep(0.02)
        assert [role for role, *_ in led.shown()].count("sentinel") == 3


async def test_writes_go_on_while_the_primary_is_stopped_and_it_acknowledges_nothing_afterwards(
    tmp_path,
):
    async with leading(tmp_path) as led:
        stopped = await led.node("primary")
        seq = led.seq
        # It would write, even: what counts is that no member of the set confirms it.
        await led.store.administer(pack("CONFIG", "SET", "min-replicas-to-write", 0))
        os.kill(stopped.pid, signal.SIGSTOP)
        await led.written()
        assert [count_of(opened.life) for opened in led.opened] == [1, 2]
        os.kill(stopped.pid, signal.SIGCONT)
        assert not await acknowledged_by(led, stopped, seq + 1)
        for _ in range(20):
            await led.written()
        assert "loss_possible" not in dict(led.events)


@pytest.mark.slow
async def test_a_primary_that_was_stopped_becomes_a_member_of_its_successors_set(tmp_path):
    """Sentinels take about ten seconds until they tell it that it is none any more."""
    async with leading(tmp_path) as led:
        stopped = await led.node("primary")
        os.kill(stopped.pid, signal.SIGSTOP)
        await led.written()
        os.kill(stopped.pid, signal.SIGCONT)
        await led.until_whole()
        await led.written()
        assert "loss_possible" not in dict(led.events)


async def acknowledged_by(led, node, seq) -> bool:
    """Whether that very node says so of a write of the first life, which was open there."""
    address = replace(led.embedded.address, nodes=((node.host, node.port),), sentinels=None)
    store = RedisStore(address)
    life = led.opened[0].life
    entry = Entry(1, epoch_of(1, 1), {b"k": b"stale"})
    try:
        reply = await store.commit(0, GrantRef(NONCE, life, 0), seq, seq - 1, [entry])
        return reply.status is StoreStatus.OK and reply.acknowledged
    except (StoreUnreachable, StoreRefused):
        return False
    finally:
        await store.close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_writes_go_on_without_a_replica_until_it_is_a_member_again(tmp_path, how):
    async with leading(tmp_path) as led:
        replica = await led.node("replica")
        os.kill(replica.pid, how)
        await led.written()
        if how == signal.SIGSTOP:
            assert len(led.lives.sync_set.members) == 1
            os.kill(replica.pid, signal.SIGCONT)
        await led.until_whole()
        await led.written()
        assert [count_of(opened.life) for opened in led.opened] == [1]
