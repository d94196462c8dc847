"""A whole mesh simulated: the real code keeps its promises under faults; a broken one is found and shrunk."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from mesh.core.handling import HandlerCore
from mesh.core.records import CommitReply, StoreStatus, Verdict
from mesh.store.redis import RedisStore
from mesh.testing.history import End
from mesh.testing.sim.drawing import draw
from mesh.testing.sim.grave import GRAVE
from mesh.testing.sim.misfortune import KINDS
from mesh.testing.sim.plan import Fault, Plan, PlannedCall
from mesh.testing.sim.result import Result
from mesh.testing.sim.shrink import shrink
from mesh.testing.sim.world import World, simulate, sweep

KEYS = ("c0", "c1", "c2")


def plan_of(*faults: Fault, seed: int = 1, calls: int = 40, length_s: float = 1.0) -> Plan:
    """Counters that three clients count up, evenly spread over the run."""
    planned = tuple(
        PlannedCall(length_s * i / calls, f"c-{i % 3}", "Counter.incr", KEYS[i % len(KEYS)])
        for i in range(calls)
    )
    return Plan(seed, planned, faults, length_s=length_s)


def lines(result: Result, who: str) -> list[str]:
    return [str(line.what) for line in result.trace if line.who == who]


def test_without_faults_every_call_returns_and_everything_adds_up() -> None:
    result = simulate(plan_of())
    assert result.ok, result.report()
    assert {operation.end for operation in result.history} == {End.RETURNED}
    judged = [o.value for o in result.history if o.client == "judge"]
    assert sum(judged) == 40


def test_the_checks_hear_of_every_commit_and_of_every_move() -> None:
    world = World(plan_of())
    commits: list[object] = []
    grants: list[object] = []
    world.checks.on_commit.append(lambda *commit: commits.append(commit))
    world.checks.on_grant.append(lambda *grant: grants.append(grant))
    assert world.run().ok
    assert len(commits) >= 10
    assert len(grants) == 16


def test_one_plan_is_one_run_to_the_last_byte() -> None:
    plan = draw(11, calls=60, faults=8, length_s=0.8)
    one, other = simulate(plan), simulate(plan)
    assert (one.digest, one.steps) == (other.digest, other.steps)
    assert str(one.trace) == str(other.trace)
    assert simulate(replace(plan, seed=12)).digest != one.digest


@pytest.mark.parametrize("kind", KINDS)
def test_promises_hold_under_faults_of_each_kind_alone(kind: str) -> None:
    for seed in range(2):
        result = simulate(seed, calls=40, faults=6, kinds=(kind,), length_s=0.8)
        assert result.ok, result.report()
        assert any(kind in line for line in lines(result, "faults"))


def test_plans_ask_for_whatever_can_be_asked_of_a_key() -> None:
    plan = draw(1)
    made = {call.method.partition(".")[2] for call in plan.calls}
    assert made == {"read", "write", "cas", "incr", "append", "~delete", "~exists", "~outcome"}
    named = {c.idempotency_key for c in plan.calls if not c.method.endswith("~outcome")}
    asked = {c.idempotency_key for c in plan.calls if c.method.endswith("~outcome")}
    assert None not in asked and asked <= named


def test_whoever_asks_after_a_call_before_it_was_made_rules_it_out() -> None:
    make = PlannedCall(0.3, "c-0", "Counter.incr", "k", idempotency_key="x")
    ask = replace(make, at=0.1, method="Counter.~outcome", args=("incr",))
    result = simulate(Plan(1, (make, ask, replace(make, at=0.5)), ()))
    assert result.ok, result.report()
    ends = {o.number: o.end for o in result.history if o.method == "incr"}
    assert list(ends.values()) == [End.NOT_EXECUTED] * 2


def test_promises_hold_under_all_faults_together() -> None:
    for result in sweep(range(8)):
        assert result.ok, result.report()
        assert len(result.history) >= 200
        assert not result.gave_up


def test_a_sweep_runs_each_seed_as_it_runs_alone() -> None:
    drawn = {"calls": 20, "faults": 2, "length_s": 0.3}
    swept = [result.digest for result in sweep(range(3), **drawn)]
    assert swept == [simulate(seed, **drawn).digest for seed in range(3)]


@pytest.mark.parametrize("kind", GRAVE)
def test_each_grave_fault_befalls_somebody_and_everybody_is_back_after_it(kind: str) -> None:
    plan = draw(5, calls=1, faults=0, grave=(kind,))
    world = World(plan)
    sim = world.sim

    async def main() -> None:
        await world.come_up()
        mine = [name for name in sim.processes if name[0] not in "cu"]
        for fault in plan.faults:
            world.faults.schedule(replace(fault, at=0.0, moment=""), sim.now)
        await asyncio.sleep(0.05)
        conditions = {sim.processes[name].condition for name in mine}
        assert conditions & {"dead", "paused"} or sim.network.blocked
        world.faults.stop()
        await asyncio.sleep(3.0)
        assert {sim.processes[name].condition for name in mine} == {"running"}
        assert not sim.network.blocked

    with sim:
        sim.run(main())


def test_a_fault_befalls_in_the_very_step_that_it_waits_for() -> None:
    stop = Fault(0.0, "pause", ("s-0",), for_s=0.1, moment="takeover")
    result = simulate(plan_of(Fault(0.2, "kill", ("h-0",)), stop))
    assert result.ok, result.report()
    [stopped] = [line.at for line in result.trace if "pause s-0" in str(line.what)][:1]
    moved = [line.at for line in result.trace if "1 revoked" in str(line.what)]
    assert stopped == moved[0]


def test_sentinels_promote_a_replica_and_the_former_primary_follows_it_when_it_is_back() -> None:
    world = World(Plan(1, (), (), sentinels=3))
    sim, stores = world.sim, world.machines.stores

    async def main() -> None:
        await world.machines.come_up()
        assert stores.primary == "db-0"
        assert stores.recorded_members == {"db-1", "db-2"}
        world.machines.crash("db-0")
        await world.machines.until(lambda: stores.primary != "db-0", 5.0)
        assert stores.primary in ("db-1", "db-2")
        world.machines.start("db-0", "power lost")
        await asyncio.sleep(0.1)
        assert sorted([stores.primary, *stores.replicas]) == ["db-0", "db-1", "db-2"]
        assert stores.nodes["db-0"].server.settings.number("replica-priority") == 0

    with sim:
        sim.run(main())


def test_a_primary_that_comes_back_in_place_is_the_primary_and_finds_its_disk_as_it_was_left() -> (
    None
):
    world = World(Plan(1, (), ()))
    stores = world.machines.stores

    async def main() -> None:
        await world.machines.come_up()
        stores.keep()
        for left, known in (("intact", True), ("rolled back", True), ("empty", False)):
            run_id = stores.nodes["db-0"].run_id
            world.machines.crash("db-0")
            world.machines.start("db-0", left, in_place=True)
            await asyncio.sleep(0.05)
            assert (stores.primary, bool(stores._life("db-0"))) == ("db-0", known)
            assert stores.nodes["db-0"].run_id != run_id

    with world.sim:
        world.sim.run(main())


def test_a_killed_handler_is_taken_over_and_replaced() -> None:
    result = simulate(plan_of(Fault(0.3, "kill", ("h-1",))))
    assert result.ok, result.report()
    assert sum("starts" in line for line in lines(result, "h-1")) == 2
    assert any("others have taken over" in line for line in lines(result, "s-0"))
    assert {operation.end for operation in result.history} == {End.RETURNED}


def test_a_dead_owners_last_bytes_come_after_its_takeover_and_change_nothing() -> None:
    """The one at which the fence stands; it is this fault that finds a mesh without one."""
    words = Fault(0.3, "last words", ("h-1",), ("db-0",), for_s=0.05, amount=0.2)
    result = simulate(plan_of(words, calls=200))
    assert result.ok, result.report()
    assert any("others have taken over" in line for line in lines(result, "s-0"))


def test_a_stopped_handler_answers_when_it_goes_on() -> None:
    result = simulate(plan_of(Fault(0.3, "pause", ("h-1",), for_s=0.4)))
    assert result.ok, result.report()
    waited = max(o.ended - o.begun for o in result.history)
    assert 0.3 < waited < 0.6


def test_without_a_replica_nothing_is_acknowledged_until_it_is_back() -> None:
    result = simulate(plan_of(Fault(0.3, "pause replica", ("db-1",), for_s=0.5)))
    assert result.ok, result.report()
    begun = [o for o in result.history if o.client != "judge"]
    start = begun[0].begun
    ended = [o.ended - start for o in begun if 0.31 < o.begun - start < 0.6]
    assert ended
    assert min(ended) > 0.8


def test_calls_that_are_cancelled_or_have_little_time_end_then_whatever_happens() -> None:
    calls = tuple(
        replace(call, timeout=0.1) if i % 2 else replace(call, cancel_s=0.0005)
        for i, call in enumerate(plan_of().calls)
    )
    cut = Fault(0.2, "cut", ("h-0", "h-1", "h-2"), ("c-0", "c-1", "c-2"), for_s=0.6)
    result = simulate(replace(plan_of(cut), calls=calls))
    assert result.ok, result.report()
    ends = {operation.end for operation in result.history}
    assert {End.CANCELLED, End.UNKNOWN} <= ends
    assert max(o.ended - o.begun for o in result.history) < 0.2


def test_a_lost_update_is_found_and_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mesh that answers before its commit is acknowledged loses what a kill cuts off."""

    def answers_early(run: Plan) -> bool:
        return any("lost" in v.what for v in simulate(run).violations)

    commit = RedisStore.commit

    def tell_first(self: RedisStore, *call: Any) -> asyncio.Future[CommitReply]:
        loop = asyncio.get_running_loop()
        told: asyncio.Future[CommitReply] = loop.create_future()
        verdicts = (Verdict.APPLIED,) * len(call[-1])
        told.set_result(CommitReply(StoreStatus.OK, verdicts, False, True, 1))
        loop.call_later(0.02, lambda: commit(self, *call))
        return told

    monkeypatch.setattr(RedisStore, "commit", tell_first)
    found = None
    for seed in range(40):
        plan = draw(seed, calls=60, faults=6, kinds=("kill", "chop"), length_s=0.6)
        if answers_early(plan):
            found = plan
            break
    assert found is not None
    small = shrink(found, answers_early, most_runs=60)
    assert answers_early(small)
    assert len(small.calls) + len(small.faults) < (len(found.calls) + len(found.faults)) // 2


def test_a_step_that_fails_anywhere_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: HandlerCore, now: float) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(HandlerCore, "on_timer", fails)
    result = World(plan_of(calls=3)).run()
    assert not result.ok


def test_shrinking_keeps_what_is_needed_and_nothing_else() -> None:
    plan = draw(3, calls=50, faults=12)
    needed = {plan.faults[4], plan.faults[9]}
    wanted = plan.calls[17]

    def fails(run: Plan) -> bool:
        return needed <= set(run.faults) and wanted in run.calls

    small = shrink(plan, fails)
    assert set(small.faults) == needed
    assert small.calls == (wanted,)


def test_observers_hear_every_line_when_it_is_written() -> None:
    heard: list[tuple[float, str, str]] = []
    world = World(plan_of(calls=5), [lambda at, who, what: heard.append((at, who, str(what)))])
    result = world.run()
    assert [(at, who) for at, who, _ in heard] == [(line.at, line.who) for line in result.trace]
