"""Sentinels fail over as the real ones do: by agreement, by a choice out of old INFO, and lossily."""

from __future__ import annotations

import asyncio

import pytest
from sim.store_rig import Rig, simulate

from mesh.store.address import Sentinels, StoreAddress
from mesh.store.sentinel import check_quorum, find_nodes
from mesh.testing.sim.store.sentinel_view import Instance, chosen_replica, elected

NOW = 100.0


def replica(number: int, **changed) -> Instance:
    view = Instance((f"10.0.0.{number}", 6379), 0.0, NOW, NOW, connected=True)
    view.info_at, view.role, view.link_up = NOW - 1, "slave", True
    view.run_id, view.offset = f"{number}", 1000
    for name, value in changed.items():
        setattr(view, name, value)
    return view


def chosen(*replicas: Instance, down_for_s: float | None = 1.0) -> Instance | None:
    since = None if down_for_s is None else NOW - down_for_s
    return chosen_replica(replicas, now=NOW, primary_down_since=since, down_after_s=0.5)


# ------------------------------------------------------------------------------------------- the choice


def test_priority_comes_before_offset_and_offset_before_run_id():
    ahead, preferred = replica(5, offset=2000), replica(2, priority=10, offset=1)
    assert chosen(ahead, preferred) is preferred
    assert chosen(replica(3), ahead) is ahead
    first = replica(1)
    assert chosen(replica(2), first, replica(3)) is first


@pytest.mark.parametrize(
    "unfit",
    [
        {"priority": 0},
        {"down_since": NOW - 1},
        {"connected": False},
        {"available_at": NOW - 6},
        {"info_at": NOW - 6},
        {"info_at": None},
        {"link_down_s": 7.0},
    ],
)
def test_who_cannot_be_relied_on_is_not_promoted_however_far_it_is(unfit):
    behind = replica(2, offset=1)
    assert chosen(replica(1, offset=9999, **unfit), behind) is behind
    assert chosen(replica(1, **unfit)) is None


def test_the_offset_that_counts_is_the_one_of_the_last_info():
    # It may be five seconds old when the primary is down: the other one has long overtaken it.
    old = replica(1, offset=2000, info_at=NOW - 4)
    assert chosen(old, replica(2, offset=1999, info_at=NOW)) is old


def test_without_a_majority_nobody_is_elected():
    assert elected(["a", "a", "b"], voters=3, quorum=2) == "a"
    assert elected(["a", "b"], voters=3, quorum=2) == ""
    assert elected(["a", "a"], voters=5, quorum=2) == ""
    assert elected(["a", "a", "a"], voters=5, quorum=4) == ""


# ------------------------------------------------------------------------------------------- failing over


def of(rig: Rig, count: int = 3) -> StoreAddress:
    nodes = tuple(rig.address(f"se-{i}") for i in range(count))
    return StoreAddress((), sentinels=Sentinels(nodes, "m"))


def primaries(rig: Rig, *names: str) -> list[str]:
    return [name for name in names or sorted(rig.nodes) if rig.role(name) == "primary"]


async def promoted(rig: Rig, within_s: float = 10.0) -> str:
    """Which of the two replicas became the primary."""
    others = ("db-1", "db-2")
    await rig.until(lambda: len(primaries(rig, *others)) == 1, within_s)
    return primaries(rig, *others)[0]


def test_a_killed_primary_is_replaced_and_the_other_replica_follows_the_new_one():
    async def main(rig: Rig) -> None:
        await rig.watched()
        began = asyncio.get_running_loop().time()
        rig.sim.processes["db-0"].kill()
        new = await promoted(rig)
        assert 0.5 < asyncio.get_running_loop().time() - began < 3.0
        (other,) = {"db-1", "db-2"} - {new}
        await rig.ask(new, "SET", "k", "v")
        await rig.until_async(lambda: _gives(rig, other, b"v"))
        for number in range(3):
            sentinel = rig.sentinels[f"se-{number}"]
            await rig.until(lambda s=sentinel: s.config.primary == rig.address(new))
        assert {s.config.config_epoch for s in rig.sentinels.values()} == {1}

    for seed in range(6):
        simulate(main, seed=seed)


async def _gives(rig: Rig, name: str, value: bytes) -> bool:
    return await rig.ask(name, "GET", "k") == value


def test_the_former_primary_becomes_a_replica_when_it_comes_back():
    async def main(rig: Rig) -> None:
        await rig.watched()
        rig.sim.processes["db-0"].kill()
        new = await promoted(rig)
        await rig.node("db-0")
        assert rig.role("db-0") == "primary"
        await rig.until(lambda: rig.role("db-0") == "replica", 40.0)
        await rig.ask(new, "SET", "k", "v")
        await rig.until_async(lambda: _gives(rig, "db-0", b"v"))

    simulate(main)


def test_the_majority_side_promotes_and_what_the_minority_acknowledged_is_lost():
    async def main(rig: Rig) -> None:
        await rig.watched()
        rig.sim.network.cut(["db-0", "db-1", "se-0", "client"], ["db-2", "se-1", "se-2"])
        await rig.ask("db-0", "SET", "k", "lost")
        assert await rig.ask("db-0", "WAIT", 1, 1000) == 1
        await rig.until(lambda: rig.role("db-2") == "primary", 10.0)
        assert primaries(rig) == ["db-0", "db-2"]
        await asyncio.sleep(3)
        rig.sim.network.heal()
        await rig.ask("db-2", "SET", "k", "kept")
        await rig.until(lambda: primaries(rig) == ["db-2"], 40.0)
        for name in ("db-0", "db-1"):
            await rig.until_async(lambda name=name: _gives(rig, name, b"kept"))

    simulate(main)


def test_too_few_sentinels_promote_nobody():
    async def main(rig: Rig) -> None:
        await rig.watched()
        for name in ("se-0", "se-1"):
            rig.sim.processes[name].kill()
        await asyncio.sleep(1)
        rig.sim.processes["db-0"].kill()
        await asyncio.sleep(20)
        assert primaries(rig, "db-1", "db-2") == []

    simulate(main)


def test_a_node_at_priority_0_is_never_promoted():
    async def main(rig: Rig) -> None:
        await rig.watched()
        await rig.ask("db-1", "CONFIG", "SET", "replica-priority", 0)
        await asyncio.sleep(11)  # INFO is that old
        rig.sim.processes["db-0"].kill()
        assert await promoted(rig) == "db-2"

    for seed in range(4):
        simulate(main, seed=seed)


def test_a_priority_set_a_moment_ago_is_not_known_yet():
    names = set()

    async def main(rig: Rig) -> None:
        await rig.watched()
        await rig.ask("db-1", "CONFIG", "SET", "replica-priority", 0)
        rig.sim.processes["db-0"].pause()
        names.add(await promoted(rig))

    for seed in range(8):
        simulate(main, seed=seed)
    assert "db-2" in names


def test_clients_are_cut_off_when_their_node_is_promoted():
    async def main(rig: Rig) -> None:
        await rig.watched()
        connections = {name: await rig.connect(name) for name in ("db-1", "db-2")}
        rig.sim.processes["db-0"].kill()
        new = await promoted(rig)
        await rig.until(lambda: connections[new].closed)

    simulate(main)


@pytest.mark.parametrize(("tilt_s", "ends"), [(4.0, True), (10.0, False)])
def test_sentinels_that_were_paused_judge_nothing_for_a_while(tilt_s, ends):
    """And after a while that is too long for ever: replicas have been without a primary for more than ten
    times down-after then, counted from when the Sentinel looked again, and none is fit.
    """

    async def main(rig: Rig) -> None:
        await rig.watched(tilt_s=tilt_s)
        for name in ("se-0", "se-1"):
            rig.sim.processes[name].pause()
        await asyncio.sleep(3)
        for name in ("se-0", "se-1"):
            rig.sim.processes[name].resume()
        await asyncio.sleep(0.5)
        rig.sim.processes["db-0"].kill()
        await asyncio.sleep(tilt_s - 0.6)
        assert primaries(rig, "db-1", "db-2") == []
        await asyncio.sleep(30)
        assert bool(primaries(rig, "db-1", "db-2")) == ends

    simulate(main)


def test_a_vote_is_given_once_an_epoch_and_remembered_by_a_restart():
    async def main(rig: Rig) -> None:
        await rig.store()
        config = rig.config(0, 3)
        await rig.sentinel("se-0", config)
        host, port = rig.address("db-0")
        asked = ("SENTINEL", "IS-MASTER-DOWN-BY-ADDR", host, port)
        assert await rig.ask("se-0", *asked, 5, "candidate-a") == [0, b"candidate-a", 5]
        assert await rig.ask("se-0", *asked, 5, "candidate-b") == [0, b"candidate-a", 5]
        rig.sim.processes["se-0"].kill()
        await rig.sentinel("se-0", config)
        assert await rig.ask("se-0", *asked, 5, "candidate-b") == [0, b"candidate-a", 5]
        assert await rig.ask("se-0", *asked, 6, "candidate-b") == [0, b"candidate-b", 6]

    simulate(main)


# ------------------------------------------------------------------------------------- what raymesh asks


def test_the_store_names_its_nodes_and_its_quorum_through_sentinels():
    async def main(rig: Rig) -> None:
        await rig.watched()
        address = of(rig)
        nodes = await find_nodes(address, tls=None, within_s=1.0)
        assert nodes[0] == rig.address("db-0")
        assert set(nodes) == {rig.address(f"db-{i}") for i in range(3)}
        await check_quorum(address)
        for name in ("se-0", "se-1"):
            rig.sim.processes[name].kill()
        await asyncio.sleep(2)
        with pytest.raises(Exception, match=r"too few to fail over.*NOQUORUM"):
            await check_quorum(address)

    simulate(main)


def test_a_replica_that_is_down_is_listed_as_such():
    async def main(rig: Rig) -> None:
        await rig.watched()
        rig.sim.processes["db-1"].kill()
        await asyncio.sleep(1.5)
        rows = await rig.ask("se-0", "SENTINEL", "REPLICAS", "m")
        flags = {}
        for row in rows:
            fields = dict(zip(row[::2], row[1::2], strict=True))
            flags[fields[b"port"], fields[b"ip"].decode()] = fields[b"flags"]
        by_host = {host: said for (_, host), said in flags.items()}
        assert b"s_down" in by_host[rig.address("db-1")[0]]
        assert b"s_down" not in by_host[rig.address("db-2")[0]]
        (master,) = await rig.ask("se-0", "SENTINEL", "MASTERS")
        fields = dict(zip(master[::2], master[1::2], strict=True))
        assert fields[b"flags"] == b"master"
        assert int(fields[b"last-ok-ping-reply"]) <= 700

    simulate(main)


def test_a_failover_may_be_asked_for():
    async def main(rig: Rig) -> None:
        await rig.watched()
        assert await rig.ask("se-0", "SENTINEL", "FAILOVER", "m") == b"OK"
        new = await promoted(rig)
        await rig.until(lambda: rig.role("db-0") == "replica", 40.0)
        assert rig.sentinels["se-0"].config.primary == rig.address(new)

    simulate(main)
