"""A whole mesh in one thread: real supervisor, wardens, handlers and clients, and what befalls them.

    result = simulate(7)                  # or simulate(plan): see mesh.testing.sim.plan
    assert result.ok, result.report()

Its processes are those of mesh.testing.sim.machines, its clients those of mesh.testing.sim.callers. A run has
five parts: the mesh comes up; calls and faults, as planned; faults stop; every call ends and the mesh
settles; the judge reads everything, and the checks say what they think.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from mesh.client.stats import ClientStats
from mesh.core.calling import MAX_DEATHS
from mesh.errors import SetupError
from mesh.testing.sim.callers import SETTLE_S, Callers
from mesh.testing.sim.checks import Checks
from mesh.testing.sim.drawing import draw
from mesh.testing.sim.faults import Faults
from mesh.testing.sim.loop import Stuck
from mesh.testing.sim.machines import ENTITIES, Machines
from mesh.testing.sim.plan import Plan
from mesh.testing.sim.result import Result
from mesh.testing.sim.simulation import Simulation, quiet_collector
from mesh.testing.sim.tracing import TracedHistory, failure, logged

_READY_S = 15.0
"""Virtual seconds that the mesh has for having replaced everyone once no fault is left: one that died before
anybody knew of it is missed after START_S, and may be started ever later (SupervisionConfig).
"""
_CALL_BOUND_S = 1.0
_BEATEN_S = 2.0
"""In which every handler beats once more."""
_PATIENT_S = 5.0


def simulate(seed_or_plan: int | Plan, **drawn: Any) -> Result:
    """Run one mesh from its beginning to its end.

    Args:
        seed_or_plan: a seed, of which the plan is drawn too, or a plan.
        drawn: what the plan of a seed is to have; see mesh.testing.sim.drawing.draw.
    """
    plan = draw(seed_or_plan, **drawn) if isinstance(seed_or_plan, int) else seed_or_plan
    with quiet_collector():
        return World(plan).run()


def sweep(seeds: Iterable[int], **drawn: Any) -> Iterator[Result]:
    """Run one seed after the other.

    Args:
        seeds: of each run.
        drawn: what their plans are to have; see mesh.testing.sim.drawing.draw.
    """
    return (simulate(seed, **drawn) for seed in seeds)


class World:
    """One run.

    Args:
        plan: what it is put through.
        observers: called with each line of the trace when it is written.
    """

    def __init__(
        self, plan: Plan, observers: Sequence[Callable[[float, str, object], None]] = ()
    ) -> None:
        self.plan = plan
        self.sim = Simulation(plan.seed)
        self.checks = Checks(plan.partitions)
        self.note = self.sim.note
        self.sim.observers += observers
        self.history = TracedHistory(lambda: self.sim.now, self.note)
        self.machines = Machines(self.sim, plan, self.checks)
        self.callers = Callers(self.sim, plan, self.machines, self.checks, self.history)
        self.faults = Faults(self.sim, self.machines, self.checks)

    def __repr__(self) -> str:
        return f"<World of {self.sim!r}>"

    def run(self) -> Result:
        """From the beginning to the end."""
        sim, checks = self.sim, self.checks
        with logged(self.note), sim:
            try:
                sim.run(self._run())
            except (Stuck, SetupError, TimeoutError) as error:
                checks.violated(sim.now, "the mesh settles", f"{type(error).__name__}: {error}")
            for told in sim.unhandled:
                name = getattr(told.get("process"), "name", "nobody")
                checks.violated(sim.now, "no step fails", f"{name}: {failure(told)}")
        self.history.end()
        return Result(
            self.plan,
            checks.violations,
            sim.trace,
            self.history,
            sim.network.digest,
            sim.now,
            sim.loop.steps,
            checks.gave_up,
        )

    # ------------------------------------------------------------------------------------------- the parts

    async def _run(self) -> None:
        plan, callers, until = self.plan, self.callers, self.machines.until
        await self.come_up()
        start = self.sim.now
        for fault in plan.faults:
            self.faults.schedule(fault, start)
        if plan.poison_at is not None:
            self.sim.spawn("poisoner", callers.poison)
        await asyncio.sleep(plan.length_s * 1.1)
        self.faults.stop()
        stopped_at = self.sim.now
        prober = self.sim.spawn("prober", callers.probe)
        bound = max((call.timeout for call in plan.calls), default=0.0) + _CALL_BOUND_S
        await until(lambda: not callers.left, bound)
        await until(lambda: not prober.alive, SETTLE_S)
        await until(lambda: not callers.poisoning, SETTLE_S)
        await until(lambda: self.machines.ready, _READY_S)
        await until(lambda: not self._astray(), SETTLE_S)
        if not self.machines.ready:
            why = f"{_READY_S:g} s after the last fault and call it still is not ready"
            self.checks.violated(self.sim.now, "the mesh settles", why)
        self.note("world", "settled")
        stats = {name: client.stats() for name, client in callers.clients.items()}
        judge = self.sim.spawn("judge", callers.judge)
        await until(lambda: not judge.alive, SETTLE_S)
        if self._is_undisturbed:
            await asyncio.sleep(_BEATEN_S)
        self.say(stopped_at, stats)

    async def come_up(self) -> None:
        """Start the mesh, and then its clients.

        Raises:
            SetupError: the mesh is not there in time.
        """
        await self.machines.come_up()
        await self.callers.come_up()

    def say(self, stopped_at: float, stats: dict[str, ClientStats]) -> None:
        """What the checks think of it.

        Args:
            stopped_at: when the last fault was mended.
            stats: of the clients in the history, by their names there.
        """
        now, checks, history, callers = self.sim.now, self.checks, self.history, self.callers
        checks.calls_ended(now, history, _CALL_BOUND_S + self._stopped_s())
        for name, counted in stats.items():
            checks.client_counts(now, name, history, counted)
        everybody = [*stats.values(), *(client.stats() for client in callers.askers)]
        checks.counts_add_up(now, everybody, undisturbed=self._is_undisturbed)
        checks.owners_answer(now, stopped_at, SETTLE_S, callers.answered)
        for entity, key in callers.silent:
            checks.violated(now, "every key answers at last", f"{entity} {key!r} does not")
        if len(self.machines.struck) > MAX_DEATHS:
            why = f"it has killed processes {self.machines.struck}"
            checks.violated(now, f"a call that killed {MAX_DEATHS} goes to no other", why)
        for line in self._astray():
            checks.violated(now, "every client learns who owns what", line)
        checks.were_told(now, history)
        if self.may_lose and checks.losses:
            return  # what is there is not what was acknowledged, and has been said not to be
        if not (self.may_lose or self.may_doubt):
            checks.nothing_is_said_to_be_lost(now)
        # Of keys on which nobody has repeated a call of his own: the search judges the others.
        repeated = {(o.entity, o.key) for o in history if o.idempotency_key is not None}
        final = {place: v for place, v in callers.final.items() if place not in repeated}
        checks.nothing_lost_or_doubled(now, history, final)
        checks.outcomes_stay(now, history)
        checks.linearizable(now, history, *ENTITIES)

    @property
    def _is_undisturbed(self) -> bool:
        """Nothing happens to any call: no fault, and no caller that gives it up or repeats it. Of a script,
        whose calls and meddling are in no plan, nobody knows.
        """
        calls = self.plan.calls
        patient = (
            call.cancel_s is None and call.idempotency_key is None and call.timeout >= _PATIENT_S
            for call in calls
        )
        return bool(calls) and not self.plan.faults and all(patient)

    @property
    def may_lose(self) -> bool:
        """Some of what was acknowledged may be gone for good: a primary is started again at once, on a disk
        that is not as it was, and its replicas follow it.
        """
        return any(f.in_place and f.left != "intact" for f in self.plan.faults)

    @property
    def may_doubt(self) -> bool:
        """Nothing is gone, and nobody can know it: whoever leads on one side cannot ask the leader, nor the
        member of the set, on the other what has been acknowledged there.
        """
        return any(f.kind == "cut" and {"primary", "leader"} <= {*f.who} for f in self.plan.faults)

    def _astray(self) -> list[str]:
        """Clients that take another process for a partition's owner than the leader does."""
        table = self.machines.table
        if table is None:
            return []
        lines: list[str] = []
        for name, client in self.callers.clients.items():
            for partition in range(len(table)):
                known, owner = client._core.owner(partition), table.owner(partition)
                if known is None or known.epoch != owner.epoch:
                    lines.append(f"{name} takes {known} for the owner of {partition}, not {owner}")
        return lines

    def _stopped_s(self) -> float:
        """How long clients themselves could not look at their clocks, or these went too slowly."""
        stops = ("pause", "starve", "clock")
        faults = (f for f in self.plan.faults if f.kind in stops and f.who[0].startswith("c-"))
        return sum(fault.for_s for fault in faults)
