"""The leader looks after the store: simulated nodes and Sentinels, the real library, the real decisions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from sim.store_rig import Rig, simulate

from mesh.core.epochs import epoch_of
from mesh.core.life_numbers import count_of, next_life
from mesh.core.records import (
    CommitReply,
    Entry,
    GrantRef,
    Move,
    Moves,
    OpenLife,
    StoreStatus,
    Takeover,
)
from mesh.ids import new_operation
from mesh.lives import Lives, LivesConfig, Opened, Outbid
from mesh.store.address import Sentinels, StoreAddress
from mesh.store.api import StoreRefused, StoreUnreachable
from mesh.store.primary import SECOND_PRIMARY_S
from mesh.store.redis import RedisStore
from mesh.testing.sim.store.node import EMBEDDED

DOWN_AFTER_S = 0.5
NONCE = b"o1"


class LoopClock:
    """The loop's virtual time."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return self.now()

    def call_later(self, delay_s: float, work: Callable[[], object]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(delay_s, work)


class Keeper:
    """A leader with nothing but the store to look after, and one process that writes.

    Everything runs in the process of the rig's client; hosts of nodes and Sentinels are others.
    """

    def __init__(self, rig: Rig, *, watched: bool = True, **changed: Any) -> None:
        self.rig = rig
        nodes = tuple(rig.address(f"db-{i}") for i in range(3))
        sentinels = Sentinels(tuple(rig.address(f"se-{i}") for i in range(3)), "m")
        self.address = StoreAddress(nodes, sentinels=sentinels if watched else None)
        self.config = LivesConfig("m", 4, replicas=2, **changed)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.store, self.lives = self.leader()
        self.writer = self.access()
        self.opened: list[Opened] = []
        self.seq = 0
        self.acknowledged: list[tuple[float, int]] = []
        self.lead: asyncio.Task[None] | None = None

    def access(self) -> RedisStore:
        return RedisStore(
            self.address, wait_timeout_s=0.1, call_timeout_s=2.0, connect_timeout_s=1.0
        )

    def leader(self) -> tuple[RedisStore, Lives]:
        """Another supervisor's access."""
        store = self.access()
        record = lambda kind, fields: self.events.append((kind, fields))  # noqa: E731
        return store, Lives(store, self.config, LoopClock(), record)

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events]

    async def up(self) -> None:
        """The first life, one process with partition 1, and the leader's watch."""
        await self.store.ensure_functions()
        self.opened.append(await self.lives.open_first())
        moves = Moves.of([Move(1, None, 0, NONCE, epoch_of(1, 1))])
        opened = self.opened[-1]
        enroll = ((NONCE, "h-0"),)
        call = Takeover(new_operation(), opened.life, opened.token, enroll, (), moves, b"table")
        assert (await self.store.takeover(call)).acknowledged
        self.lead = asyncio.get_running_loop().create_task(self.watch())

    async def watch(self) -> None:
        while True:
            self.opened.append(await self.lives.watch(self.opened[-1]))

    async def write(self, value: int) -> CommitReply:
        """The next batch, sent again until something is said of it."""
        life = self.opened[-1].life
        grant = GrantRef(NONCE, life, 0)
        entry = Entry(1, epoch_of(1, 1), {b"k": b"%d" % value})
        return await self.writer.commit(0, grant, self.seq + 1, self.rig_number(), [entry])

    def rig_number(self) -> int:
        return round(self.now * 1000)

    async def written(self, within_s: float = 30.0) -> float:
        """Write until it is acknowledged; when it was."""
        value = self.seq + 1
        async with asyncio.timeout(within_s):
            while True:
                try:
                    reply = await self.write(value)
                    if reply.status is StoreStatus.OK and reply.acknowledged:
                        self.seq = value
                        self.acknowledged.append((self.now, value))
                        return self.now
                except (StoreUnreachable, StoreRefused):
                    pass
                await asyncio.sleep(0.02)

    async def write_for(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            await self.written()
            await asyncio.sleep(0.01)

    async def value(self, name: str) -> int:
        """What a node has."""
        found = await self.rig.ask(name, "HGET", self.address.prefix + b"p:1", "k")
        return int(found or 0)

    def primary(self) -> str:
        """The node on which the latest life is open."""
        life = self.opened[-1].recorded.life
        assert life is not None
        return next(name for name, node in self.rig.nodes.items() if node.run_id == life.run_id)

    def cut(self, *names: str) -> None:
        """These hosts reach each other, and nobody else."""
        everyone = {*self.rig.nodes, *self.rig.sentinels, "client"}
        self.rig.sim.network.cut(names, everyone - set(names))

    async def recorded_by(self, name: str, field: str) -> bytes:
        found: bytes = await self.rig.ask(name, "HGET", self.address.prefix + b"life", field)
        return found

    async def members(self) -> set[str]:
        life = (await self.store.recorded()).life
        assert life is not None
        return set(life.sync_set.members)

    async def until_members(self, *names: str, within_s: float = 30.0) -> None:
        wanted = {self.rig.link(name) for name in names}

        async def there() -> bool:
            return await self.members() == wanted

        await self.rig.until_async(there, within_s)

    async def down(self) -> None:
        if self.lead is not None:
            self.lead.cancel()
            await asyncio.gather(self.lead, return_exceptions=True)
        await self.store.close()
        await self.writer.close()


def kept(
    main: Callable[[Rig, Keeper], Awaitable[None]],
    *,
    seed: int = 1,
    settings: Any = None,
    **changed: Any,
) -> None:
    """A store with three Sentinels, a leader that watches it, and a writer."""

    async def run(rig: Rig) -> None:
        await rig.watched(down_after_s=changed.pop("down_after_s", DOWN_AFTER_S))
        keeper = Keeper(rig, **changed)
        await keeper.up()
        await keeper.write_for(1.0)
        await main(rig, keeper)
        assert keeper.lead is None or not keeper.lead.done(), keeper.lead
        await keeper.down()

    simulate(run, seed=seed)


def test_nodes_that_have_said_that_they_are_replicas_are_not_waited_for():
    """Each new process opens two connections before it answers the first call of a key."""

    async def main(rig: Rig, keeper: Keeper) -> None:
        began = keeper.now
        await keeper.access().recorded()
        assert keeper.now - began < SECOND_PRIMARY_S / 2

    kept(main)


# -------------------------------------------------------------------------------- a replica is gone


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("how", ["kill", "pause"])
def test_f1_one_dead_replica_stops_the_mesh_for_a_moment_only(seed, how):
    async def main(rig: Rig, keeper: Keeper) -> None:
        at = keeper.now
        getattr(rig.sim.processes["db-2"], how)()
        assert await keeper.written() - at < 1.5
        assert await keeper.members() == {rig.link("db-1")}
        await keeper.write_for(0.5)

    kept(main, seed=seed)


def test_a_member_that_comes_back_is_one_again_and_may_be_promoted_only_then():
    async def main(rig: Rig, keeper: Keeper) -> None:
        rig.sim.processes["db-2"].kill()
        await keeper.until_members("db-1")
        await rig.node("db-2", "db-0", settings=EMBEDDED | {"replica-priority": "0"})
        await keeper.until_members("db-1", "db-2")
        replica = rig.nodes["db-2"].server
        await rig.until(lambda: replica.settings.number("replica-priority") == 100)
        await keeper.write_for(0.5)

    kept(main)


# -------------------------------------------------------------------------------- the primary is gone


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("how", "down_after_s", "goal_s"),
    [("kill", 0.5, 1.5), ("pause", 0.5, 1.5), ("kill", 1.0, 2.2), ("pause", 1.0, 2.2)],
)
def test_writes_go_on_soon_after_the_primary_is_gone(seed, how, down_after_s, goal_s):
    async def main(rig: Rig, keeper: Keeper) -> None:
        at, before = keeper.now, keeper.seq
        getattr(rig.sim.processes["db-0"], how)()
        took_s = await keeper.written() - at
        assert took_s < goal_s
        assert [count_of(opened.life) for opened in keeper.opened] == [1, 2]
        assert "loss_possible" not in keeper.kinds()
        await keeper.write_for(0.5)
        assert await keeper.value(keeper.primary()) == keeper.seq > before

    kept(main, seed=seed, down_after_s=down_after_s)


@pytest.mark.parametrize("seed", range(5))
def test_1_of_2_acknowledges_while_sentinel_promotes_the_other(seed):
    """The primary is cut off together with one replica; a majority promotes the other."""

    async def main(rig: Rig, keeper: Keeper) -> None:
        before = keeper.seq
        await keeper.writer.recorded()
        rig.sim.network.cut(["db-0", "db-1", "se-0"], ["db-2", "se-1", "se-2"])
        # The writer reaches every node, and goes on with the one that its life is open on.
        at = keeper.now
        while keeper.now < at + 0.4:
            reply = await keeper.write(before + 1)
            assert reply.status is not StoreStatus.OK or not reply.acknowledged
            await asyncio.sleep(0.02)
        assert await keeper.value("db-1") == before + 1, "one of two has it"
        await rig.until(lambda: rig.nodes["db-2"].is_primary)
        with pytest.raises(TimeoutError):
            await keeper.written(3)  # one node alone is not enough
        rig.sim.network.heal()
        await keeper.written()
        assert keeper.primary() == "db-2"
        await keeper.until_members("db-0", "db-1")
        await keeper.write_for(0.5)
        for name in ("db-0", "db-1", "db-2"):
            assert await keeper.value(name) == keeper.seq
        assert "loss_possible" not in keeper.kinds()

    kept(main, seed=seed)


def test_f4_a_deposed_primary_takes_nothing_when_it_is_back():
    async def main(rig: Rig, keeper: Keeper) -> None:
        rig.sim.processes["db-0"].pause()
        await keeper.written()
        grant = GrantRef(NONCE, keeper.opened[0].life, 0)
        rig.sim.processes["db-0"].resume()
        old = RedisStore(StoreAddress((rig.address("db-0"),)), connect_timeout_s=0.1)
        late = Entry(1, epoch_of(1, 1), {b"k": b"999"})
        while True:
            try:
                reply = await old.commit(0, grant, keeper.seq + 1, 1 << 40, [late])
            except (StoreUnreachable, StoreRefused):
                break
            assert not reply.acknowledged
            await asyncio.sleep(0.05)
        await old.close()
        await keeper.write_for(1.0)
        await keeper.until_members("db-0", *({"db-1", "db-2"} - {keeper.primary()}))
        assert await keeper.value("db-0") == keeper.seq

    kept(main)


def test_reads_do_not_stay_with_a_node_that_says_that_their_life_is_closed():
    """Nothing is written on their connection, so nothing ends it when that node becomes a replica."""

    async def main(rig: Rig, keeper: Keeper) -> None:
        rig.sim.processes["db-0"].pause()
        await keeper.written()
        grant = GrantRef(NONCE, keeper.opened[-1].life, 0)
        rig.sim.processes["db-0"].resume()
        reader = keeper.access()
        reader.use(rig.link("db-0"))
        assert (await reader.load(grant, [])).status is StoreStatus.CLOSED
        host, port = rig.address(keeper.primary())
        await rig.ask("db-0", "REPLICAOF", host, port)

        async def is_read() -> bool:
            return (await reader.load(grant, [])).status is StoreStatus.OK

        await rig.until_async(is_read, 3.0)
        await reader.close()

    kept(main)


@pytest.mark.parametrize("seed", range(5))
def test_one_sentinel_is_asked_to_fail_over_and_one_node_is_promoted(seed):
    """Each would promote another one, and have the others follow that: two follow each other, in the end."""

    async def main(rig: Rig, keeper: Keeper) -> None:
        nodes = keeper.store.nodes()
        await nodes.look(sentinels=True)
        nodes.fail_over(rig.link("db-1"))
        promoted = set()
        until = keeper.now + 3
        while keeper.now < until:
            promoted |= {name for name, node in rig.nodes.items() if node.is_primary}
            await asyncio.sleep(0.005)
        await nodes.close()
        assert len(promoted - {"db-0"}) == 1
        await keeper.write_for(0.5)

    kept(main, seed=seed)


def test_m3_a_promoted_node_that_is_no_member_is_adopted_only_as_one_that_may_lack_something():
    async def main(rig: Rig, keeper: Keeper) -> None:
        # db-2 leaves the set and misses writes; then it alone is left to be promoted.
        keeper.cut("db-2")
        await keeper.until_members("db-1")
        await keeper.write_for(0.5)
        for name in ("db-0", "db-1"):
            rig.sim.processes[name].kill()
        rig.sim.network.heal()
        # The first thing it hears is that it is not to be promoted; somebody overrides that.
        settings = rig.nodes["db-2"].server.settings
        await rig.until(lambda: settings.number("replica-priority") == 0)
        settings.set("replica-priority", "100")
        await rig.until(lambda: rig.nodes["db-2"].is_primary)
        await rig.until(lambda: "store_short" in keeper.kinds())
        await rig.node("db-1", "db-2", settings=EMBEDDED)
        await rig.until(lambda: len(keeper.opened) == 2)
        told = dict(keeper.events)["loss_possible"]
        assert told["partitions"] == 4 and told["store"] == rig.link("db-2")

    kept(main)


def test_r2_a_member_that_was_rolled_back_is_not_taken_for_complete():
    """The set shrinks to {B}; the majority promotes C; B is resynced to it, and promoted in its turn."""

    async def main(rig: Rig, keeper: Keeper) -> None:
        keeper.cut("db-2")
        await keeper.until_members("db-1")
        await keeper.write_for(0.5)
        assert keeper.lead is not None
        keeper.lead.cancel()
        last = keeper.seq
        rig.sim.processes["db-0"].kill()
        rig.sim.processes["se-0"].pause()  # nobody promotes anyone for now
        rig.sim.processes["se-1"].pause()
        rig.sim.network.heal()
        await rig.ask("db-2", "REPLICAOF", "NO", "ONE")
        host, port = rig.address("db-2")
        await rig.ask("db-1", "REPLICAOF", host, port)
        await rig.until(lambda: rig.nodes["db-1"].server.full_resyncs >= 0)

        async def resynced() -> bool:
            return await keeper.value("db-1") < last

        await rig.until_async(resynced)
        rig.sim.processes["db-2"].kill()
        await rig.ask("db-1", "REPLICAOF", "NO", "ONE")
        store, lives = keeper.leader()
        lives.heard(1, 2)
        bidding = asyncio.get_running_loop().create_task(lives.bid())
        await rig.until(
            lambda: "loss_possible" in keeper.kinds() or "store_refused" in keeper.kinds()
        )
        bidding.cancel()
        await asyncio.gather(bidding, return_exceptions=True)
        await store.close()
        keeper.lead = None

    kept(main)


def test_an_empty_primary_is_refused():
    async def main(rig: Rig, keeper: Keeper) -> None:
        rig.sim.processes["db-0"].kill()
        for name in ("db-1", "db-2"):
            rig.sim.processes[name].kill()
        rig.disks.clear()
        await rig.node("db-0")
        await rig.until(lambda: "store_refused" in keeper.kinds())
        told = dict(keeper.events)["store_refused"]
        assert told == {"store": rig.link("db-0"), "reason": "it holds nothing of the mesh"}
        await asyncio.sleep(10)
        assert len(keeper.opened) == 1
        assert await rig.ask("db-0", "EXISTS", keeper.address.prefix + b"life") == 0

    kept(main)


def test_a_plain_store_that_restarts_takes_nothing_until_the_leader_opens_a_life_on_it():
    """redis:// without Sentinels: nobody else is promoted, and what was not on its disk is told."""

    async def main(rig: Rig, keeper: Keeper) -> None:
        for number in range(3):
            rig.sim.processes[f"se-{number}"].kill()
        before = keeper.seq
        rig.sim.processes["db-0"].kill()
        await rig.node("db-0")
        await keeper.written()
        assert keeper.seq == before + 1
        assert [count_of(opened.life) for opened in keeper.opened] == [1, 2]
        told = dict(keeper.events)["loss_possible"]
        assert told["store"] == rig.link("db-0")
        await keeper.write_for(0.5)

    kept(main, watched=False)


def test_without_sentinels_a_dead_replica_is_done_without_all_the_same():
    async def main(rig: Rig, keeper: Keeper) -> None:
        rig.sim.processes["db-2"].kill()
        at = keeper.now
        assert await keeper.written() - at < 2.5
        assert await keeper.members() == {rig.link("db-1")}

    kept(main, watched=False)


def test_f1_b_a_replica_that_is_up_and_does_not_follow_is_never_promoted_and_not_waited_for():
    async def main(rig: Rig, keeper: Keeper) -> None:
        # It answers everyone, and gets nothing from its primary.
        rig.sim.network.cut(["db-0"], ["db-2"])
        await keeper.written(60)
        assert await keeper.members() == {rig.link("db-1")}
        assert rig.nodes["db-2"].server.settings.number("replica-priority") == 0
        for sentinel in rig.sentinels.values():
            assert sentinel.replicas[rig.address("db-2")].view.priority == 0
        rig.sim.network.heal()
        await keeper.until_members("db-1", "db-2")
        await rig.until(lambda: rig.nodes["db-2"].server.settings.number("replica-priority") == 100)

    kept(main)


def test_f1_d_a_leader_and_a_replica_that_are_gone_together_are_replaced():
    async def main(rig: Rig, keeper: Keeper) -> None:
        assert keeper.lead is not None
        keeper.lead.cancel()
        keeper.lead = None
        rig.sim.processes["db-2"].kill()
        at = keeper.now
        store, lives = keeper.leader()
        opened = await lives.bid()
        assert keeper.now - at < 1.5
        assert (count_of(opened.life), opened.sync_set.members) == (1, {rig.link("db-1")})
        assert opened.versions.keys() == {NONCE}
        await keeper.written()
        await store.close()

    kept(main)


def test_a_new_leader_opens_the_next_life_where_the_primary_died_with_the_one_before():
    async def main(rig: Rig, keeper: Keeper) -> None:
        assert keeper.lead is not None
        keeper.lead.cancel()
        keeper.lead = None
        rig.sim.processes["db-0"].kill()
        store, lives = keeper.leader()
        opened = await lives.bid()
        assert (count_of(opened.life), opened.token) == (2, 2)
        assert opened.versions.keys() == opened.recorded.grants.keys() == {NONCE}
        assert "loss_possible" not in keeper.kinds()
        keeper.opened.append(opened)
        await keeper.written()
        await store.close()

    kept(main)


def test_a_leader_that_was_outbid_stops():
    async def main(rig: Rig, keeper: Keeper) -> None:
        store, lives = keeper.leader()
        assert (await lives.bid()).token == 2
        assert keeper.lead is not None
        with pytest.raises(Outbid, match="another supervisor leads, in life 1 with token 2"):
            await keeper.lead
        keeper.lead = None
        await store.close()

    kept(main)


def test_sentinels_that_stand_still_after_a_pause_are_not_waited_for():
    """TILT lasts 30 s where nobody sets it: a primary that dies in it would stay without successor."""

    async def main(rig: Rig, keeper: Keeper) -> None:
        for number in range(3):
            rig.sim.processes[f"se-{number}"].pause()
        await asyncio.sleep(2.5)
        for number in range(3):
            rig.sim.processes[f"se-{number}"].resume()
        await asyncio.sleep(0.5)
        assert all(sentinel.tilt_since is not None for sentinel in rig.sentinels.values())
        rig.sim.processes["db-0"].kill()
        at = keeper.now
        assert await keeper.written() - at < 10

    kept(main)


def test_the_last_member_is_waited_for():
    """F12 (e): with one replica left, nothing is acknowledged without it, and that is said."""

    async def main(rig: Rig, keeper: Keeper) -> None:
        rig.sim.processes["db-2"].kill()
        await keeper.until_members("db-1")
        rig.sim.processes["db-1"].kill()
        await rig.until(lambda: "store_short" in keeper.kinds())
        with pytest.raises(TimeoutError):
            await keeper.written(5)
        await rig.node("db-1", "db-0", settings=EMBEDDED)
        await keeper.written(5)

    kept(main)


def test_a_process_that_lost_its_data_and_is_promoted_again_has_no_life_open():
    """Its run id is the one on record again; what it wrote in that life is gone with the data it had."""

    async def main(rig: Rig, keeper: Keeper) -> None:
        assert keeper.lead is not None
        keeper.lead.cancel()
        keeper.lead = None
        grant = GrantRef(NONCE, keeper.opened[-1].life, 0)
        host, port = rig.address("db-2")
        await rig.ask("db-2", "REPLICAOF", "NO", "ONE")
        for sentinel in rig.sentinels:
            rig.sim.processes[sentinel].kill()
        old = rig.nodes["db-0"].server
        # More than db-2 has, so that it is sent all of that one's data.
        await rig.ask("db-0", "SET", "more", "than db-2 has")
        await rig.ask("db-0", "REPLICAOF", host, port)
        await rig.until(lambda: old.stream.id == rig.nodes["db-2"].server.stream.id)
        await rig.ask("db-0", "REPLICAOF", "NO", "ONE")
        assert (await keeper.recorded_by("db-0", "run_id")).decode() == old.run_id
        alone = RedisStore(StoreAddress((rig.address("db-0"),)))
        late = await alone.commit(0, grant, keeper.seq + 1, 1 << 40, [])
        assert late.status is StoreStatus.CLOSED
        nodes = alone.nodes()
        (node,) = (await nodes.look(sentinels=False)).nodes
        await nodes.close()
        assert node.is_primary and not node.is_open
        members = keeper.opened[-1].sync_set
        following = next_life(grant.life, 1)
        opening = OpenLife(new_operation(), grant.life, following, 9, 4, members)
        assert (await alone.open_life(opening)).status is StoreStatus.OK
        again = await alone.commit(0, replace(grant, life=following), 1, 1, [])
        assert again.status is StoreStatus.OK
        await alone.close()

    kept(main)
