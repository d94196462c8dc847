"""Who leads a mesh, as far as the store has a say: the first life, and bids for the one that is open."""

from __future__ import annotations

import asyncio

import pytest

from mesh.core.life_numbers import count_of, next_life
from mesh.core.records import Move, Moves, OpenLife, StoreStatus, Takeover
from mesh.core.syncset import InSyncSet
from mesh.errors import SetupError
from mesh.ids import new_operation
from mesh.lives import Lives, LivesConfig, Outbid
from mesh.store.memory import MemoryServer, MemoryStore
from mesh.store.memory_nodes import MemoryNodes

CONFIG = LivesConfig("m", 4, replicas=2, open_s=5.0)
SOON_BUT_ONCE = LivesConfig("m", 4, replicas=2, open_s=0.01)


class InTurns(MemoryStore):
    """Its answers take a while, so that others come in between."""

    async def recorded(self):
        found = await super().recorded()
        await asyncio.sleep(0)
        return found

    def nodes(self):
        return NodesInTurns(self._server)


class NodesInTurns(MemoryNodes):
    async def look(self, *, sentinels):
        seen = await super().look(sentinels=sentinels)
        await asyncio.sleep(0)
        return seen


@pytest.fixture
def server():
    return MemoryServer(2)


def lives(server, config=CONFIG):
    return Lives(MemoryStore(server), config)


async def joined(server, opened, nonce=b"o1"):
    """A process that holds partition 1."""
    moves = Moves.of([Move(1, None, 0, nonce, 77)])
    enroll = ((nonce, "h-0"),)
    call = Takeover(
        new_operation(), opened.life, opened.token, enroll, (), moves, b"table", b"plan"
    )
    reply = await MemoryStore(server).takeover(call)
    assert reply.status is StoreStatus.OK
    return reply.versions[nonce]


async def test_the_first_life_is_opened_with_every_replica_as_a_member(server):
    opened = await lives(server).open_first()
    assert (count_of(opened.life), opened.token) == (1, 1)
    assert opened.sync_set == InSyncSet(1, frozenset(server.links)) == server.life.sync_set
    assert (opened.versions, opened.recorded.table) == ({}, b"")


async def test_an_opening_keeps_what_an_earlier_up_left_for_the_leader_to_learn(server):
    first = await lives(server).open_first()
    version = await joined(server, first)
    again = await lives(server).open_first()
    assert count_of(again.life) == again.token == again.sync_set.version == 2
    assert again.versions == {b"o1": version + 1}
    assert (again.recorded.table, again.recorded.intents) == (b"table", b"plan")
    assert again.recorded.grants == {b"o1": "h-0"}


@pytest.mark.parametrize("carried_out", [False, True])
@pytest.mark.parametrize("before", range(5))
async def test_whichever_call_of_an_opening_breaks_one_life_is_opened(server, before, carried_out):
    await joined(server, await lives(server).open_first())
    store = MemoryStore(server)

    class Breaks(MemoryStore):
        calls = 0

        def _call(self, function):
            if self.calls == before:
                server.break_connection(carried_out=carried_out)
            self.calls += 1
            return super()._call(function)

    opened = await Lives(Breaks(server), CONFIG).open_first()
    assert opened.life == server.life.number and count_of(opened.life) == 2
    assert (await store.recorded()).grants == {b"o1": "h-0"}


async def test_too_few_replicas_are_told_with_both_numbers(server):
    server.links.pop()
    with pytest.raises(SetupError, match="1 of 2 replicas are attached; attach the others"):
        await lives(server, SOON_BUT_ONCE).open_first()
    assert server.life is None


async def test_a_mesh_of_another_size_is_told_with_both_numbers(server):
    await lives(server).open_first()
    other = LivesConfig("m", 8, replicas=2)
    with pytest.raises(SetupError, match="created with 4 partitions, not 8"):
        await lives(server, other).open_first()


async def test_of_two_that_open_one_does(server):
    both = [Lives(InTurns(server), CONFIG) for _ in range(2)]
    results = await asyncio.gather(*(one.open_first() for one in both), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Opened", "Outbid"]
    assert count_of(server.life.number) == 1


async def test_an_opening_that_no_member_confirms_leads_nobody(server):
    server.pause(server.links[0])
    with pytest.raises(SetupError, match="do not acknowledge"):
        await lives(server, SOON_BUT_ONCE).open_first()


async def test_a_bid_takes_the_lead_in_the_open_life_and_tells_what_there_is(server):
    first = await lives(server).open_first()
    version = await joined(server, first)
    opened = await lives(server).bid()
    assert (opened.life, opened.token) == (first.life, first.token + 1)
    assert opened.versions == {b"o1": version}
    assert (opened.recorded.table, opened.recorded.intents) == (b"table", b"plan")
    assert opened.recorded.grants == {b"o1": "h-0"}
    assert opened.sync_set == first.sync_set


async def test_of_two_that_bid_one_leads(server):
    await lives(server).open_first()
    both = [Lives(InTurns(server), CONFIG) for _ in range(2)]
    results = await asyncio.gather(*(one.bid() for one in both), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Opened", "Outbid"]
    assert server.life.token == 2


@pytest.mark.parametrize("carried_out", [False, True])
async def test_a_bid_whose_reply_was_lost_is_repeated_and_not_made_twice(server, carried_out):
    await lives(server).open_first()

    class Breaks(MemoryStore):
        bids = 0

        async def bid(self, call):
            if self.bids == 0:
                server.break_connection(carried_out=carried_out)
            self.bids += 1
            return await super().bid(call)

    store = Breaks(server)
    opened = await Lives(store, CONFIG).bid()
    assert (store.bids, opened.token, server.life.token) == (2, 2, 2)


async def test_a_bid_where_no_life_is_open_opens_the_next_one(server):
    version = await joined(server, await lives(server).open_first())
    server.restart()
    opened = await lives(server).bid()
    assert (count_of(opened.life), opened.token) == (2, 2)
    assert (opened.life, opened.token) == (server.life.number, server.life.token)
    assert opened.versions == {b"o1": version + 1}
    assert opened.recorded.table == b"table"


async def test_a_bid_for_a_mesh_that_never_was_comes_to_an_end(server):
    with pytest.raises(SetupError, match=r"the store was not ready within 0\.01 s"):
        await lives(server, SOON_BUT_ONCE).bid()
    assert server.life is None


async def test_who_leads_opens_the_next_life_when_the_store_restarts(server):
    told = []
    leader = Lives(MemoryStore(server), CONFIG, record=lambda kind, fields: told.append(kind))
    first = await leader.open_first()
    watching = asyncio.create_task(leader.watch(first))
    await asyncio.sleep(0)
    server.restart()
    following = await watching
    assert count_of(following.life) == following.token == following.sync_set.version == 2
    assert told == [], "what it holds survives a restart"


async def test_who_leads_stops_when_it_is_outbid(server):
    leader = lives(server)
    first = await leader.open_first()
    await lives(server).bid()
    with pytest.raises(Outbid, match="in life 1 with token 2"):
        await leader.watch(first)


async def test_a_leader_that_opened_and_was_outbid_is_told_so(server):
    await lives(server).open_first()
    before, members = server.life.number, InSyncSet(2, frozenset(server.links))
    rival = OpenLife(b"rival", before, next_life(before, 1), 9, 4, members)

    class Overtaken(MemoryStore):
        async def open_life(self, call):
            await MemoryStore(server).open_life(rival)
            return await super().open_life(call)

    with pytest.raises(Outbid, match="another supervisor is opening this mesh"):
        await Lives(Overtaken(server), CONFIG).open_first()


async def test_an_opening_that_reaches_another_server_is_decided_anew(server):
    """What was said of one, that it has everything, and who its members are, is not said of the other."""
    await lives(server).open_first()
    server.restart()

    class Elsewhere(MemoryStore):
        said: list[StoreStatus] = []  # noqa: RUF012

        async def open_life(self, call):
            if not self.said:
                server.restart()
            reply = await super().open_life(call)
            self.said.append(reply.status)
            return reply

    store = Elsewhere(server)
    await Lives(store, CONFIG).bid()
    assert store.said == [StoreStatus.CONFLICT, StoreStatus.OK]
