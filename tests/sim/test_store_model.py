"""The store model replicates, waits, forgets and comes back as Redis does, on the simulated network."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref

import pytest
from sim.store_rig import Rig, simulate

from mesh.store.refusal import ServerError
from mesh.store.resp import pack
from mesh.testing.sim import Process

LIBRARY = b"""#!lua name=test
local kept
redis.register_function('both', function(keys, args)
  redis.call('SET', keys[1], args[1])
  redis.call('SET', keys[2], args[1])
  return 'done'
end)
redis.register_function('kept', function(keys, args)
  kept = kept or args[1]
  return kept
end)
redis.register_function('own_id', function()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
end)
"""


def offsets(role) -> dict[str, int]:
    return {f"{h.decode()}:{p.decode()}": int(offset) for h, p, offset in role[2]}


# ------------------------------------------------------------------------------------------- WAIT and ROLE


def test_after_a_wait_role_shows_every_replica_at_or_past_the_write():
    async def main(rig: Rig) -> None:
        await rig.store()
        connection = await rig.connect("db-0")
        commands = [pack("SET", "k", "v"), pack("ROLE"), pack("WAIT", 2, 1000), pack("ROLE")]
        _, before, count, after = await connection.execute(*commands, within_s=5.0)
        assert count == 2
        assert all(offset >= before[1] for offset in offsets(after).values())
        assert sorted(offsets(after)) == sorted([rig.link("db-1"), rig.link("db-2")])
        assert await rig.ask("db-1", "GET", "k") == b"v"

    simulate(main)


def test_a_connection_that_wrote_nothing_gets_every_replica_at_once():
    async def main(rig: Rig) -> None:
        await rig.store()
        for name in ("db-1", "db-2"):
            rig.sim.processes[name].pause()
        await rig.ask("db-0", "SET", "k", "v")
        fresh = await rig.connect("db-0")
        began = asyncio.get_running_loop().time()
        assert await fresh.execute(pack("WAIT", 2, 5000), within_s=9.0) == [2]
        assert asyncio.get_running_loop().time() - began < 0.01

    simulate(main)


def test_a_wait_says_how_many_also_when_its_time_is_up():
    async def main(rig: Rig) -> None:
        await rig.store()
        rig.sim.processes["db-2"].pause()
        await rig.ask("db-0", "SET", "k", "v")
        began = asyncio.get_running_loop().time()
        assert await rig.ask("db-0", "WAIT", 2, 50) == 1
        assert 0.05 <= asyncio.get_running_loop().time() - began < 0.06

    simulate(main)


@pytest.mark.parametrize(
    "write", [("SET", "k", "v"), ("FCALL", "both", 2, "a", "b", "x"), ("PUBLISH", "c", "m")]
)
def test_a_wait_covers_whatever_was_written_and_replicated(write):
    async def main(rig: Rig) -> None:
        await rig.store()
        await rig.ask("db-0", "FUNCTION", "LOAD", LIBRARY)
        assert await rig.ask("db-0", "WAIT", 2, 1000) == 2
        rig.sim.processes["db-2"].pause()
        await rig.ask("db-0", *write)
        assert await rig.ask("db-0", "WAIT", 2, 50) == 1

    simulate(main)


def test_a_wait_does_not_cover_what_others_wrote_meanwhile():
    async def main(rig: Rig) -> None:
        await rig.store()
        first, second = await rig.connect("db-0"), await rig.connect("db-0")
        await first.execute(pack("SET", "k", 1), within_s=1.0)
        await asyncio.sleep(0.05)  # both replicas have it, and will say so within a second
        rig.sim.network.block(["db-0"], ["db-1", "db-2"])
        await second.execute(pack("SET", "k", 2), within_s=1.0)
        assert await first.execute(pack("WAIT", 2, 2000), within_s=9.0) == [2]
        assert await second.execute(pack("WAIT", 2, 2000), within_s=9.0) == [0]

    simulate(main)


def test_a_wait_holds_up_what_is_behind_it_and_no_other_connection():
    async def main(rig: Rig) -> None:
        await rig.store()
        for name in ("db-1", "db-2"):
            rig.sim.processes[name].pause()
        first, second = await rig.connect("db-0"), await rig.connect("db-0")
        commands = [pack("SET", "k", 1), pack("WAIT", 2, 1000), pack("SET", "k", 2)]
        waiting = asyncio.ensure_future(first.execute(*commands, within_s=5.0))
        await asyncio.sleep(0.5)
        assert await second.execute(pack("GET", "k"), within_s=1.0) == [b"1"]
        assert await waiting == [b"OK", 0, b"OK"]
        assert await second.execute(pack("GET", "k"), within_s=1.0) == [b"2"]

    simulate(main)


def test_role_shows_what_the_primary_was_told_not_what_replicas_have():
    async def main(rig: Rig) -> None:
        await rig.store()
        rig.sim.network.block(["db-1"], ["db-0"])
        before = offsets(await rig.ask("db-0", "ROLE"))[rig.link("db-1")]
        await rig.ask("db-0", "SET", "k", "v")
        assert await rig.ask("db-0", "WAIT", 2, 200) == 1
        assert await rig.ask("db-1", "GET", "k") == b"v"
        assert offsets(await rig.ask("db-0", "ROLE"))[rig.link("db-1")] <= before + 100
        role = await rig.ask("db-0", "ROLE")
        assert offsets(role)[rig.link("db-1")] < role[1] <= offsets(role)[rig.link("db-2")] + 100

    simulate(main)


def test_replicas_confirm_once_a_second_unasked():
    async def main(rig: Rig) -> None:
        await rig.store()
        await rig.ask("db-0", "SET", "k", "v")
        offset = (await rig.ask("db-0", "ROLE"))[1]
        assert all(seen < offset for seen in offsets(await rig.ask("db-0", "ROLE")).values())
        await asyncio.sleep(1.1)
        assert all(seen >= offset for seen in offsets(await rig.ask("db-0", "ROLE")).values())

    simulate(main)


def test_a_node_without_replicas_that_hear_takes_no_writes_where_it_needs_one():
    async def main(rig: Rig) -> None:
        settings = {"min-replicas-to-write": "1", "min-replicas-max-lag": "2"}
        await rig.store(settings=settings)
        await rig.ask("db-0", "SET", "k", "v")
        rig.sim.network.cut(["db-0"], ["db-1", "db-2"])
        await asyncio.sleep(1)
        assert await rig.ask("db-0", "SET", "k", "v") == b"OK"
        await asyncio.sleep(3)
        reply = await rig.ask("db-0", "SET", "k", "v")
        assert isinstance(reply, ServerError) and reply.code == "NOREPLICAS"

    simulate(main)


# ------------------------------------------------------------------------------------------------- resync


def test_a_link_that_was_cut_goes_on_where_it_was():
    async def main(rig: Rig) -> None:
        await rig.store()
        primary = rig.nodes["db-0"].server
        rig.sim.network.cut(["db-1"], ["db-0"])
        for number in range(50):
            await rig.ask("db-0", "SET", "k", number)
        await asyncio.sleep(8)
        assert rig.link("db-1") not in offsets(await rig.ask("db-0", "ROLE"))
        assert await rig.ask("db-1", "GET", "k") is None
        rig.sim.network.heal()
        full = primary.full_resyncs
        await rig.until_async(lambda: _has(rig, "db-1", b"49"))
        assert (primary.full_resyncs, primary.partial_resyncs) == (full, 1)

    simulate(main)


def test_a_link_that_was_cut_for_longer_than_the_backlog_gets_everything_anew():
    async def main(rig: Rig) -> None:
        await rig.store(settings={"repl-backlog-size": "1000"})
        primary = rig.nodes["db-0"].server
        rig.sim.network.cut(["db-1"], ["db-0"])
        for number in range(200):
            await rig.ask("db-0", "SET", "k", number)
        await asyncio.sleep(8)
        rig.sim.network.heal()
        full = primary.full_resyncs
        await rig.until_async(lambda: _has(rig, "db-1", b"199"))
        assert primary.full_resyncs == full + 1

    simulate(main)


def test_a_replica_of_a_replica_follows_into_the_same_database_and_stays_after_a_promotion():
    async def main(rig: Rig) -> None:
        await rig.store(replicas=1)
        await rig.ask("db-0", "SELECT", 3)
        await rig.ask("db-0", "SET", "k", 0)
        assert await rig.ask("db-0", "WAIT", 1, 1000) == 1
        await rig.node("db-2", "db-1")
        await rig.ask("db-2", "SELECT", 3)
        await rig.until_async(lambda: _has(rig, "db-2", b"0"))
        await rig.ask("db-0", "SET", "k", 1)
        await rig.until_async(lambda: _has(rig, "db-2", b"1"))
        await rig.ask("db-1", "REPLICAOF", "NO", "ONE")
        await rig.ask("db-1", "SELECT", 3)
        await rig.ask("db-1", "SET", "k", 2)
        await rig.until_async(lambda: _has(rig, "db-2", b"2"))
        upper, lower = (rig.nodes[name].server.stream.id for name in ("db-1", "db-2"))
        assert upper == lower

    simulate(main)


async def _has(rig: Rig, name: str, value: bytes) -> bool:
    return await rig.ask(name, "GET", "k") == value


def test_a_function_reaches_a_replica_as_a_whole_or_not_at_all():
    halves = set()

    async def main(rig: Rig) -> None:
        await rig.store(replicas=1)
        await rig.ask("db-0", "FUNCTION", "LOAD", LIBRARY)
        assert await rig.ask("db-0", "WAIT", 1, 1000) == 1
        rig.sim.network.slow(["db-0"], ["db-1"], 0.05)
        connection = await rig.connect("db-0")
        call = pack("FCALL", "both", 2, "a", "b", b"x" * 20_000)
        await connection.execute(call, within_s=1.0)
        await asyncio.sleep(0.05)
        rig.sim.network.cut(["db-0"], ["db-1"])
        await asyncio.sleep(1)
        both = await rig.ask("db-1", "GET", "a"), await rig.ask("db-1", "GET", "b")
        assert both[0] == both[1]
        halves.add(both[0] is None)

    for seed in range(8):
        simulate(main, seed=seed, chop=0.9)
    assert True in halves  # the cut did come too early for some


# --------------------------------------------------------------------------------------------- promotion


def test_a_promotion_loses_what_the_promoted_replica_had_not_heard_of():
    async def main(rig: Rig) -> None:
        await rig.store()
        await rig.ask("db-0", "SET", "k", "old")
        assert await rig.ask("db-0", "WAIT", 2, 1000) == 2
        rig.sim.network.cut(["db-2"], ["db-0"])
        await rig.ask("db-0", "SET", "k", "new")
        assert await rig.ask("db-0", "WAIT", 1, 1000) == 1  # db-1 has it
        rig.sim.processes["db-0"].kill()
        await rig.ask("db-2", "REPLICAOF", "NO", "ONE")
        await rig.ask("db-1", "REPLICAOF", *rig.address("db-2"))
        await rig.until_async(lambda: _has(rig, "db-1", b"old"))
        assert await rig.ask("db-2", "GET", "k") == b"old"

    simulate(main)


def test_the_other_replica_goes_on_from_the_promoted_one_where_both_were_alike():
    async def main(rig: Rig) -> None:
        await rig.store()
        await rig.ask("db-0", "SELECT", 3)
        await rig.ask("db-0", "SET", "k", 1)
        assert await rig.ask("db-0", "WAIT", 2, 1000) == 2
        await asyncio.sleep(1)
        rig.sim.processes["db-0"].kill()
        await rig.ask("db-1", "REPLICAOF", "NO", "ONE")
        await rig.ask("db-2", "REPLICAOF", *rig.address("db-1"))
        promoted = rig.nodes["db-1"].server
        await rig.until(lambda: promoted.partial_resyncs == 1)
        await rig.ask("db-1", "SELECT", 3)
        await rig.ask("db-1", "INCR", "k")
        assert await rig.ask("db-1", "WAIT", 1, 1000) == 1
        await rig.ask("db-2", "SELECT", 3)
        assert await rig.ask("db-2", "GET", "k") == b"2"
        assert promoted.full_resyncs == 0

    simulate(main)


def test_a_former_primary_drops_what_only_it_has():
    async def main(rig: Rig) -> None:
        await rig.store()
        rig.sim.network.cut(["db-0"], ["db-1", "db-2"])
        await rig.ask("db-0", "SET", "k", "mine")
        await rig.ask("db-1", "REPLICAOF", "NO", "ONE")
        await rig.ask("db-1", "SET", "k", "other")
        rig.sim.network.heal()
        await rig.ask("db-0", "REPLICAOF", *rig.address("db-1"))
        await rig.until_async(lambda: _has(rig, "db-0", b"other"))

    simulate(main)


def test_a_demoted_primary_ends_its_waits_and_refuses_writes():
    async def main(rig: Rig) -> None:
        await rig.store()
        for name in ("db-1", "db-2"):
            rig.sim.processes[name].pause()
        connection = await rig.connect("db-0")
        commands = [pack("SET", "k", 1), pack("WAIT", 2, 9000), pack("SET", "k", 2)]
        waiting = asyncio.ensure_future(connection.execute(*commands, within_s=20.0))
        await asyncio.sleep(0.1)
        assert await rig.ask("db-0", "REPLICAOF", *rig.address("db-1")) == b"OK"
        with pytest.raises(Exception, match="UNBLOCKED force unblock"):
            await waiting
        reply = await rig.ask("db-0", "SET", "k", 3)
        assert isinstance(reply, ServerError) and reply.code == "READONLY"
        assert await rig.ask("db-0", "GET", "k") == b"1"

    simulate(main)


def test_a_library_is_there_after_a_promotion_and_asks_anew_who_it_is():
    async def main(rig: Rig) -> None:
        await rig.node("db-0")
        await rig.ask("db-0", "FUNCTION", "LOAD", LIBRARY)
        assert await rig.ask("db-0", "FCALL", "kept", 0, "db-0") == b"db-0"
        assert await rig.ask("db-0", "FCALL", "kept", 0, "again") == b"db-0"
        ids = {await rig.ask("db-0", "FCALL", "own_id", 0)}
        for name in ("db-1", "db-2"):
            await rig.node(name, "db-0")
            await rig.until(lambda name=name: rig.link(name) in _attached(rig))
            await rig.ask(name, "REPLICAOF", "NO", "ONE")
            assert await rig.ask(name, "FCALL", "kept", 0, name) == name.encode()
            ids.add(await rig.ask(name, "FCALL", "own_id", 0))
        assert len(ids - {None}) == 3

    simulate(main)


def _attached(rig: Rig) -> list[str]:
    return [f"{link.host}:{link.port}" for link in rig.nodes["db-0"].server.links.online]


def test_a_replica_cut_off_answers_as_it_is_told_to():
    async def main(rig: Rig) -> None:
        await rig.store()
        rig.sim.processes["db-0"].kill()
        await asyncio.sleep(0.1)
        assert await rig.ask("db-1", "GET", "k") is None
        await rig.ask("db-1", "CONFIG", "SET", "replica-serve-stale-data", "no")
        reply = await rig.ask("db-1", "GET", "k")
        assert isinstance(reply, ServerError) and reply.code == "MASTERDOWN"
        assert (await rig.ask("db-1", "ROLE"))[3:] in ([b"connect", -1], [b"connecting", -1])

    simulate(main)


# ------------------------------------------------------------------------------------------- kill, restart


def test_a_killed_node_comes_back_with_what_it_wrote_and_a_new_run_id():
    async def main(rig: Rig) -> None:
        first = await rig.node("db-0")
        await rig.ask("db-0", "FUNCTION", "LOAD", LIBRARY)
        await rig.ask("db-0", "FCALL", "both", 2, "a", "b", "x")
        assert await rig.ask("db-0", "FCALL", "kept", 0, "first") == b"first"
        run_id = first.run_id
        for again in (b"second", b"third"):
            rig.sim.processes["db-0"].kill()
            node = await rig.node("db-0")
            assert node.run_id != run_id
            run_id = node.run_id
            assert await rig.ask("db-0", "GET", "b") == b"x"
            assert await rig.ask("db-0", "FCALL", "kept", 0, again) == again

    simulate(main)


@pytest.mark.parametrize(("fsync", "lost"), [("everysec", True), ("always", False)])
def test_a_loss_of_power_costs_the_last_second_unless_each_write_is_synced(fsync, lost):
    async def main(rig: Rig) -> None:
        await rig.node("db-0", settings={"appendfsync": fsync})
        await rig.ask("db-0", "SET", "k", "old")
        await asyncio.sleep(2.5)
        for number in range(50):
            await rig.ask("db-0", "SET", "k", number)
        rig.sim.processes["db-0"].kill()
        rig.disks["db-0"].lose_power(random.Random(3))
        await rig.node("db-0")
        value = await rig.ask("db-0", "GET", "k")
        assert (value != b"49") == lost
        assert value is not None

    simulate(main)


def test_a_wait_for_the_disk_returns_when_it_is_synced():
    async def main(rig: Rig) -> None:
        await rig.node("db-0")
        await asyncio.sleep(1.5)
        loop = asyncio.get_running_loop()
        await rig.ask("db-0", "SET", "k", 1)
        assert rig.disks["db-0"].synced < len(rig.disks["db-0"].entries)
        began = loop.time()
        assert await rig.ask("db-0", "WAITAOF", 1, 0, 1) == [0, 0]
        assert await rig.ask("db-0", "WAITAOF", 1, 0, 5000) == [1, 0]
        assert 0.001 <= loop.time() - began <= 1.1
        assert rig.disks["db-0"].synced == len(rig.disks["db-0"].entries)

    simulate(main)


def test_replicas_copy_the_emptiness_of_a_primary_that_comes_back_empty():
    async def main(rig: Rig) -> None:
        await rig.store()
        await rig.ask("db-0", "SET", "k", "v")
        assert await rig.ask("db-0", "WAIT", 2, 1000) == 2
        rig.sim.processes["db-0"].kill()
        rig.disks["db-0"].wipe()
        await rig.node("db-0")
        await rig.until_async(lambda: _lacks(rig, "db-1"))
        assert await rig.ask("db-1", "GET", "k") is None

    simulate(main)


async def _lacks(rig: Rig, name: str) -> bool:
    return await rig.ask(name, "GET", "k") is None


def test_a_disk_rolled_back_gives_the_data_of_then():
    async def main(rig: Rig) -> None:
        await rig.node("db-0")
        await rig.ask("db-0", "SET", "k", "then")
        snapshot = rig.disks["db-0"].copy()
        await rig.ask("db-0", "SET", "k", "now")
        rig.sim.processes["db-0"].kill()
        rig.disks["db-0"].restore(snapshot)
        await rig.node("db-0")
        assert await rig.ask("db-0", "GET", "k") == b"then"

    simulate(main)


def test_a_node_that_loads_says_so():
    async def main(rig: Rig) -> None:
        await rig.node("db-0")
        await rig.ask("db-0", "SET", "k", "v")
        rig.sim.processes["db-0"].kill()
        await rig.node("db-0", load_s=2.0)
        reply = await rig.ask("db-0", "GET", "k")
        assert isinstance(reply, ServerError) and reply.code == "LOADING"
        assert (await rig.ask("db-0", "ROLE"))[0] == b"master"
        await asyncio.sleep(2)
        assert await rig.ask("db-0", "GET", "k") == b"v"

    simulate(main)


def test_what_a_dead_client_had_sent_is_carried_out_all_the_same():
    async def main(rig: Rig) -> None:
        await rig.store(replicas=0)

        async def write(process: Process) -> None:
            connection = await rig.connect("db-0")
            connection.send(pack("SET", "k", "late"), 1, 1.0, lambda _: None)
            await process.loop.create_future()

        rig.sim.network.slow(["writer"], ["db-0"], 0.5)
        writer = rig.sim.spawn("writer", write)
        await asyncio.sleep(3.2)
        writer.kill()
        await asyncio.sleep(2)
        assert await rig.ask("db-0", "GET", "k") == b"late"

    simulate(main)


def test_a_seed_gives_the_same_ids_again():
    seen = []

    async def main(rig: Rig) -> None:
        await rig.store()
        seen.append([node.run_id for node in rig.nodes.values()])

    for seed in (4, 4, 5):
        simulate(main, seed=seed)
    assert seen[0] == seen[1] != seen[2]


def test_a_node_that_nobody_refers_to_is_gone():
    """Lua keeps none of them: a simulation makes thousands."""
    servers = []

    async def main(rig: Rig) -> None:
        await rig.store()
        await rig.ask("db-0", "FUNCTION", "LOAD", LIBRARY)
        await rig.ask("db-0", "FCALL", "both", 2, "a", "b", "x")
        servers.extend(weakref.ref(node.server) for node in rig.nodes.values())

    simulate(main)
    gc.collect()
    assert [server() for server in servers] == [None] * 3
