"""Neither well nor dead: outliers lose their load within seconds, few at once, and get it back slowly."""

from __future__ import annotations

from itertools import pairwise

import pytest

from mesh.core.watch_signals import Joined, Reweigh
from tests.unit.test_detector import mesh_of
from tests.unit.watch_rig import Handler, Ring


def reweighed(ring: Ring) -> list[tuple[bytes, float]]:
    return [(r.nonce, r.weight) for r in ring.of(Reweigh)]


@pytest.mark.parametrize(
    "ill",
    [
        {"latency_ms": 15.0},
        {"errors_share": 0.5},
        {"lag_ms": 120.0},
        {"thread": ("S", 0.2, 0.5, True)},
    ],
    ids=["ten times slower", "failing half of its calls", "a loop that lags", "waiting for a CPU"],
)
def test_an_outlier_loses_its_load_within_five_seconds_of_the_first_sign(ill) -> None:
    ring, handlers = mesh_of()
    for h in handlers:
        h.latency_ms = 1.5
    ring.run(3.0)
    for name, value in ill.items():
        setattr(handlers[1], name, value)
    ring.run(5.0)
    assert reweighed(ring) == [(b"h-1", 0.0)]
    assert ring.of(Reweigh)[0].why == "gray"
    assert not ring.evictions


def test_what_all_of_them_have_is_no_sign() -> None:
    ring, handlers = mesh_of()
    for h in handlers:
        h.latency_ms, h.errors_share, h.lag_ms = 300.0, 0.9, 150.0
    ring.run(20.0)
    assert not ring.of(Reweigh)


def test_a_difference_that_nobody_would_feel_is_no_sign() -> None:
    ring, handlers = mesh_of()
    for h in handlers:
        h.latency_ms = 0.2
    handlers[0].latency_ms = 2.0
    ring.run(20.0)
    assert not ring.of(Reweigh)


def test_a_moment_of_slowness_is_no_sign() -> None:
    ring, handlers = mesh_of()
    for _ in range(5):
        handlers[0].latency_ms = 100.0
        ring.run(1.5)
        handlers[0].latency_ms = 1.0
        ring.run(3.0)
    assert not ring.of(Reweigh)


def test_of_too_few_calls_nothing_is_concluded() -> None:
    ring, handlers = mesh_of()
    handlers[0].latency_ms = 100.0
    handlers[0].pulse = {"timed": 0}
    ring.run(20.0)
    assert not ring.of(Reweigh)


@pytest.mark.parametrize(("number", "most"), [(2, 1), (4, 1), (6, 2), (9, 3)])
def test_no_more_than_a_third_is_shed_at_once_and_never_the_last(number: int, most: int) -> None:
    ring, handlers = mesh_of(number)
    for h in handlers[: number - 1]:
        h.latency_ms = 50.0
    for h in handlers[: number // 2]:
        h.errors_share = 0.9
    ring.run(9.0)
    assert len({n for n, w in reweighed(ring) if w == 0.0}) <= most


def test_a_third_that_is_ill_is_shed_and_no_more_of_them() -> None:
    ring, handlers = mesh_of(6)
    for h in handlers[:2]:
        h.latency_ms = 50.0
    ring.run(6.0)
    assert {n for n, _ in reweighed(ring)} == {b"h-0", b"h-1"}


def test_the_only_handler_has_nobody_to_be_compared_with() -> None:
    ring = Ring(Handler("h-0", latency_ms=500.0, errors_share=1.0))
    ring.run(10.0)
    assert not ring.of(Reweigh)


def test_one_that_is_well_again_gets_its_load_back_step_by_step() -> None:
    ring, (h, *_) = mesh_of()
    h.errors_share = 0.5
    ring.run(5.0)
    h.errors_share = 0.0
    ring.run(60.0)
    assert [w for _, w in reweighed(ring)] == [0.0, 0.1, 0.5, 1.0]
    times = [at for at, o in ring.orders if isinstance(o, Reweigh)]
    assert all(later - earlier >= ring.timing.well_s - 0.1 for earlier, later in pairwise(times))


def test_one_that_falls_ill_each_time_is_tried_ever_more_seldom() -> None:
    ring, (h, *_) = mesh_of()

    def ill_under_load() -> None:
        """It fails as soon as it has any load, and has nothing to fail at without."""
        for _ in range(5_000):
            weights = [w for n, w in reweighed(ring) if n == h.nonce]
            h.errors_share = 0.5 if not weights or weights[-1] > 0 else 0.0
            ring.run(0.1)

    ill_under_load()
    given = [at for at, o in ring.orders if isinstance(o, Reweigh) and o.weight > 0]
    gaps = [round(later - earlier) for earlier, later in pairwise(given)]
    assert gaps == sorted(gaps)
    assert gaps[-1] > 6 * gaps[0]


def test_what_it_was_asked_to_hold_is_what_it_gets_back() -> None:
    ring, _ = mesh_of(3)
    heavy = Handler("h-9", errors_share=0.8)
    ring.handlers[heavy.nonce] = heavy
    ring.step(Joined(heavy.nonce, heavy.id, "host-9", 2.5))
    ring.run(6.0)
    heavy.errors_share = 0.0
    ring.run(60.0)
    assert [w for _, w in reweighed(ring)] == [0.0, 0.25, 1.25, 2.5]
