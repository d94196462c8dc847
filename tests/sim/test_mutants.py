"""The simulator finds what is broken: each mechanism that is taken out, within a thousand seeds."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest
from sim.edits import LUA, Edit, NotThere
from sim.mutants import COVERED, MUTANTS

from mesh.core.epochs import next_epoch
from mesh.store import library
from mesh.testing.sim.world import simulate, sweep

MOST_SEEDS = 1000
CHUNK = 20
WORKERS = 2


def broken(name: str, seeds: range) -> tuple[int, str] | None:
    """The first of those seeds under which a promise is broken, and which one; with everything in its place
    the same plan breaks none.
    """
    mutant = MUTANTS[name]
    with mutant.applied():
        failing = next((r for r in sweep(seeds, **mutant.drawn) if not r.ok), None)
    if failing is None:
        return None
    whole = simulate(failing.plan)
    assert whole.ok, whole.report(traced=False)
    return failing.plan.seed, str(failing.violations[0])


@pytest.fixture(scope="module")
def workers() -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(WORKERS, context) as pool:
        yield pool


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", MUTANTS)
def test_it_is_found(name: str, workers: ProcessPoolExecutor) -> None:
    for start in range(0, MOST_SEEDS, CHUNK * WORKERS):
        chunks = [range(start + CHUNK * i, start + CHUNK * (i + 1)) for i in range(WORKERS)]
        found = [f for f in workers.map(broken, [name] * WORKERS, chunks) if f is not None]
        if found:
            seed, what = found[0]
            print(f"\n{name}: after {seed + 1} seeds, by {what:.200}")  # noqa: T201 - asked for
            return
    pytest.fail(f"{name}: not found within {MOST_SEEDS} seeds")


@pytest.mark.parametrize("name", [*MUTANTS, *COVERED])
def test_what_it_takes_out_is_there(name: str) -> None:
    mutant = MUTANTS.get(name) or COVERED[name]
    with mutant.applied():
        pass


def test_it_is_in_place_for_as_long_as_the_block_lasts() -> None:
    once = Edit("mesh.core.epochs:next_epoch", "return current + 1", "return current + 2")
    more = Edit("mesh.core.epochs:next_epoch", "return current + 2", "return current + 3")
    with once.applied():
        assert next_epoch(0x10001, 1) == 0x10003
        with more.applied():
            assert next_epoch(0x10001, 1) == 0x10004
        assert next_epoch(0x10001, 1) == 0x10003
    assert next_epoch(0x10001, 1) == 0x10002


def test_the_function_library_is_as_it_was_afterwards() -> None:
    before = library.source()
    with Edit(LUA, "if seq <= last then", "if false then").applied():
        assert "if seq <= last then" not in library.source()
    assert library.source() == before


@pytest.mark.parametrize(
    "edit",
    [
        Edit("mesh.core.epochs:next_epoch", "return current + 7", ""),
        Edit("mesh.core.epochs:next_epoch", "life", "life"),
        Edit("mesh.core.epochs:previous_epoch", "return", "return"),
        Edit(LUA, "if seq == last then", ""),
    ],
    ids=["gone", "more than once", "no such function", "gone from the library"],
)
def test_a_text_that_is_not_there_once_is_an_error(edit: Edit) -> None:
    with pytest.raises(NotThere), edit.applied():
        pass
