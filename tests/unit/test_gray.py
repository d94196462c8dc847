"""Neither well nor dead: outliers lose their load in seconds, few at once, and get it back slowly."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from mesh.core.watch_signals import Joined, Reweigh
from tests.unit.test_detector import mesh_of
from tests.unit.watch_rig import Handler, Ring

A_CLIENT = ("10.0.0.1",)
SEVERAL = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
FALLING = [0.9, 0.5, 0.0]
RISING = [0.1, 0.5, 1.0]


def reweighed(ring: Ring) -> list[tuple[bytes, float]]:
    return [(r.nonce, round(r.weight, 9)) for r in ring.of(Reweigh)]


def make(handler: Handler, **ill: Any) -> None:
    for name, value in ill.items():
        setattr(handler, name, value)


ILLNESSES: dict[str, dict[str, Any]] = {
    "ten times slower": {"latency_ms": 15.0},
    "failing half of its calls": {"errors_share": 0.5},
    "a loop that lags": {"lag_ms": 120.0},
    "waiting for a CPU": {"thread": ("S", 0.2, 0.5, True)},
    "a CPU of its own": {"thread": ("S", 0.8, 0.0, True)},
    "many calls in memory": {"pulse": {"pending": 100}},
    "much memory": {"pulse": {"memory_mib": 700.0}},
}


@pytest.mark.parametrize("ill", ILLNESSES.values(), ids=ILLNESSES)
def test_an_outlier_that_a_client_sees_loses_its_load_within_five_seconds(
    ill: dict[str, Any],
) -> None:
    ring, handlers = mesh_of()
    for h in handlers:
        h.latency_ms = 1.5
    ring.run(3.0)
    make(handlers[1], **ill, seen_by=A_CLIENT)
    ring.run(5.0)
    assert reweighed(ring) == [(b"h-1", weight) for weight in FALLING]
    assert {r.why for r in ring.of(Reweigh)} == {"gray"}
    assert not ring.evictions


@pytest.mark.parametrize("ill", ILLNESSES.values(), ids=ILLNESSES)
def test_an_outlier_that_no_client_minds_keeps_everything(ill: dict[str, Any]) -> None:
    ring, handlers = mesh_of()
    make(handlers[1], **ill)
    ring.run(20.0)
    assert not ring.of(Reweigh)


@pytest.mark.parametrize(
    "busy",
    [
        {"thread": ("S", 0.4, 0.0, True)},
        {"pulse": {"pending": 40}},
        {"pulse": {"memory_mib": 350.0}},
        {"lag_ms": 40.0},
        {"latency_ms": 2.5},
    ],
    ids=["CPU", "calls in memory", "memory", "loop lag", "latency"],
)
def test_one_that_is_busier_than_others_and_not_by_far_keeps_everything(
    busy: dict[str, Any],
) -> None:
    ring, handlers = mesh_of()
    make(handlers[0], **busy, seen_by=A_CLIENT)
    ring.run(20.0)
    assert not ring.of(Reweigh)


def test_a_client_that_is_ill_itself_or_lies_moves_nothing() -> None:
    ring, handlers = mesh_of()
    ring.machines = 1
    make(handlers[0], seen_by=A_CLIENT, seen={"latency_s": 9.0, "failed": 1.0})
    ring.run(20.0)
    assert not ring.of(Reweigh)


def test_what_several_clients_see_of_one_whose_beats_are_as_usual_is_believed() -> None:
    ring, handlers = mesh_of()
    make(handlers[0], seen_by=SEVERAL)
    ring.run(5.0)
    assert reweighed(ring) == [(b"h-0", weight) for weight in FALLING]
    assert "3 of 4 clients" in ring.said("handler_weight")[0]["sign"]


def test_several_clients_out_of_many_have_bad_networks_of_their_own() -> None:
    ring, handlers = mesh_of()
    ring.machines = 10
    make(handlers[0], seen_by=SEVERAL)
    ring.run(20.0)
    assert not ring.of(Reweigh)


def test_what_several_clients_hardly_feel_is_no_sign_by_itself() -> None:
    ring, handlers = mesh_of()
    make(handlers[0], seen_by=SEVERAL, seen={"latency_s": 0.006})
    ring.run(20.0)
    assert not ring.of(Reweigh)


def test_what_a_client_saw_a_while_ago_says_nothing() -> None:
    ring, handlers = mesh_of()
    make(handlers[0], seen_by=A_CLIENT)
    ring.run(5.0)
    make(handlers[0], seen_by=())
    ring.run(2.0)
    make(handlers[0], latency_ms=15.0)
    ring.run(20.0)
    assert not ring.of(Reweigh)


def test_what_all_of_them_have_is_no_sign() -> None:
    ring, handlers = mesh_of()
    for h in handlers:
        make(h, latency_ms=300.0, errors_share=0.9, lag_ms=150.0, seen_by=A_CLIENT)
    ring.run(20.0)
    assert not ring.of(Reweigh)


def test_a_difference_that_nobody_would_feel_is_no_sign() -> None:
    ring, handlers = mesh_of()
    for h in handlers:
        h.latency_ms = 0.2
    make(handlers[0], latency_ms=2.0, seen_by=A_CLIENT)
    ring.run(20.0)
    assert not ring.of(Reweigh)


def test_a_moment_of_slowness_is_no_sign() -> None:
    ring, handlers = mesh_of()
    for _ in range(5):
        make(handlers[0], latency_ms=100.0, seen_by=A_CLIENT)
        ring.run(1.5)
        make(handlers[0], latency_ms=1.0, seen_by=())
        ring.run(3.0)
    assert not ring.of(Reweigh)


def test_of_too_few_calls_nothing_is_concluded() -> None:
    ring, handlers = mesh_of()
    make(handlers[0], latency_ms=100.0, pulse={"timed": 0}, seen_by=A_CLIENT)
    ring.run(20.0)
    assert not ring.of(Reweigh)


@pytest.mark.parametrize(("number", "most"), [(2, 1), (4, 1), (6, 2), (9, 3)])
def test_no_more_than_a_third_is_relieved_at_once_and_never_the_last(
    number: int, most: int
) -> None:
    ring, handlers = mesh_of(number)
    for h in handlers[: number - 1]:
        make(h, latency_ms=50.0, seen_by=A_CLIENT)
    for h in handlers[: number // 2]:
        h.errors_share = 0.9
    ring.run(9.0)
    assert len({n for n, _ in reweighed(ring)}) <= most


def test_a_third_that_is_ill_is_relieved_and_no_more_of_them() -> None:
    ring, handlers = mesh_of(6)
    for h in handlers[:2]:
        make(h, latency_ms=50.0, seen_by=A_CLIENT)
    ring.run(6.0)
    assert {n for n, _ in reweighed(ring)} == {b"h-0", b"h-1"}


def test_the_only_handler_has_nobody_to_be_compared_with() -> None:
    ring = Ring(Handler("h-0", latency_ms=500.0, errors_share=1.0, seen_by=SEVERAL))
    ring.run(10.0)
    assert not ring.of(Reweigh)


def test_a_mistake_costs_a_tenth() -> None:
    ring, (h, *_) = mesh_of()
    make(h, errors_share=0.5, seen_by=A_CLIENT)
    while not ring.of(Reweigh):
        ring.run(0.1)
    make(h, errors_share=0.0, seen_by=())
    h.pulse = {"errors": 0}
    ring.run(60.0)
    assert [w for _, w in reweighed(ring)] == [0.9, 0.91, 0.95, 1.0]


def test_receivers_that_are_the_worse_for_it_are_waited_for() -> None:
    ring, handlers = mesh_of()
    make(handlers[0], latency_ms=200.0, seen_by=A_CLIENT)
    while len(ring.of(Reweigh)) < 1:
        ring.run(0.1)
    for h in handlers[1:]:
        h.latency_ms = 30.0
    ring.run(1.6)
    taken = len(ring.of(Reweigh))
    ring.run(10.0)
    assert len(ring.of(Reweigh)) == taken < 3
    for h in handlers[1:]:
        h.latency_ms = 1.0
    ring.run(4.0)
    assert [w for _, w in reweighed(ring)] == FALLING


def test_one_that_is_well_again_gets_its_load_back_step_by_step() -> None:
    ring, (h, *_) = mesh_of()
    make(h, errors_share=0.5, seen_by=A_CLIENT)
    ring.run(5.0)
    make(h, errors_share=0.0, seen_by=())
    ring.run(60.0)
    assert [w for _, w in reweighed(ring)] == [*FALLING, *RISING]
    times = [at for at, o in ring.orders if isinstance(o, Reweigh)][len(FALLING) - 1 :]
    assert all(later - earlier >= ring.timing.well_s - 0.1 for earlier, later in pairwise(times))


def test_one_that_was_relieved_is_looked_at_more_closely() -> None:
    ring, (h, *_) = mesh_of()
    make(h, latency_ms=50.0, seen_by=A_CLIENT)
    ring.run(5.0)
    assert reweighed(ring)[-1] == (h.nonce, 0.0)
    h.latency_ms = 4.0  # which would be no sign of one that has its load
    ring.run(60.0)
    assert reweighed(ring)[-1] == (h.nonce, 0.0)


def test_one_that_falls_ill_each_time_is_tried_ever_more_seldom() -> None:
    ring, (h, *_) = mesh_of()

    def ill_under_load() -> None:
        """It fails as soon as it has any load, and has nothing to fail at without."""
        for _ in range(5_000):
            weights = [w for n, w in reweighed(ring) if n == h.nonce]
            is_ill = not weights or weights[-1] > 0
            make(h, errors_share=0.5 if is_ill else 0.0, seen_by=A_CLIENT if is_ill else ())
            ring.run(0.1)

    ill_under_load()
    given = [at for at, o in ring.orders if isinstance(o, Reweigh) and o.why == "well"]
    gaps = [round(later - earlier) for earlier, later in pairwise(given)]
    assert gaps == sorted(gaps)
    assert gaps[-1] > 6 * gaps[0]


def test_one_that_recovers_makes_room_for_one_that_falls_ill() -> None:
    ring, (first, second, *_) = mesh_of()
    make(first, errors_share=0.5, seen_by=A_CLIENT)
    ring.run(5.0)
    make(first, errors_share=0.0, seen_by=())
    while reweighed(ring)[-1] != (first.nonce, 0.1):
        ring.run(0.1)
    make(second, errors_share=0.5, seen_by=A_CLIENT)
    ring.run(6.0)
    assert reweighed(ring)[-5:] == [
        (first.nonce, 0.5),
        (first.nonce, 1.0),
        *((second.nonce, weight) for weight in FALLING),
    ]


def test_what_it_was_asked_to_hold_is_what_it_gets_back() -> None:
    ring, _ = mesh_of(3)
    heavy = Handler("h-9", errors_share=0.8, seen_by=A_CLIENT)
    ring.handlers[heavy.nonce] = heavy
    ring.step(Joined(heavy.nonce, heavy.id, "host-9", 2.5))
    ring.run(6.0)
    make(heavy, errors_share=0.0, seen_by=())
    ring.run(60.0)
    assert [w for _, w in reweighed(ring)] == [2.25, 1.25, 0.0, 0.25, 1.25, 2.5]


def test_fewer_clients_are_believed_where_it_is_set_so() -> None:
    ring, handlers = mesh_of(timing=replace(Ring().timing, gray_clients=2))
    ring.machines = 2
    make(handlers[0], seen_by=SEVERAL[:2])
    ring.run(5.0)
    assert reweighed(ring)[-1] == (b"h-0", 0.0)
