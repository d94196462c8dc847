"""No seed breaks a promise: whole meshes of the real code under ten faults and 200 calls each.

SIM_SEEDS sets how many meshes are run (1,000), SIM_FIRST_SEED which is the first; `make soak` runs 50,000.
All cores take chunks of them. Of a failing seed the plan is shown, what shrinking left of it, and the command
that replays it.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import pytest

from mesh.testing.sim.drawing import draw
from mesh.testing.sim.plan import Plan
from mesh.testing.sim.result import Result
from mesh.testing.sim.shrink import shrink
from mesh.testing.sim.world import simulate, sweep

SEEDS = int(os.environ.get("SIM_SEEDS", "1000"))
FIRST = int(os.environ.get("SIM_FIRST_SEED", "0"))
CHUNK = 20
MOST_SHOWN = 3
_SHRINKING_RUNS = 150
_S_A_SEED = 2.0
"""Far more than any takes, on a machine however busy: for what hangs."""


class Chunk(NamedTuple):
    """What became of some seeds."""

    calls: int
    faults: int
    failures: list[str]


def run(seeds: range) -> Chunk:
    """In a process of its own."""
    calls = faults = 0
    failures: list[str] = []
    for result in sweep(seeds):
        calls += len(result.plan.calls)
        faults += len(result.plan.faults)
        if not result.ok:
            failures.append(explained(result))
    return Chunk(calls, faults, failures)


def explained(result: Result) -> str:
    """All that one needs to look into it."""
    promise = result.violations[0].what

    def fails(plan: Plan) -> bool:
        return any(violation.what == promise for violation in simulate(plan).violations)

    small = shrink(result.plan, fails, most_runs=_SHRINKING_RUNS)
    replay = f"simulate({result.plan.seed}).report()"
    lines = [result.report(traced=False), "", "shrunk:", str(small), *map(str, small.calls)]
    lines += ["", "replay:"]
    lines.append(f"  python -c 'from mesh.testing.sim.world import simulate; print({replay})'")
    return "\n".join(lines)


def chunks(seeds: range) -> Iterator[range]:
    for first in range(seeds.start, seeds.stop, CHUNK):
        yield range(first, min(first + CHUNK, seeds.stop))


@pytest.mark.timeout(60 + SEEDS * _S_A_SEED)
def test_no_seed_breaks_a_promise() -> None:
    calls = faults = 0
    failures: list[str] = []
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        for chunk in pool.map(run, chunks(range(FIRST, FIRST + SEEDS))):
            calls += chunk.calls
            faults += chunk.faults
            failures += chunk.failures
    assert calls >= 200 * SEEDS
    assert faults >= 10 * SEEDS
    shown = "\n\n".join(failures[:MOST_SHOWN])
    assert not failures, f"{len(failures)} of {SEEDS} seeds from {FIRST} on fail\n\n{shown}"


def test_a_failing_seed_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.testing.sim.machines.UP_S", 0.5)
    monkeypatch.setattr("mesh.testing.sim.machines.Machines.ready", False)
    plan = draw(7, calls=4, faults=2)
    assert "the mesh did not come up" in (said := explained(simulate(plan)))
    assert "shrunk:\nseed 7: 0 calls, 0 faults" in said
    assert "simulate(7).report()" in said
