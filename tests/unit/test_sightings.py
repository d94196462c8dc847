"""What two looks at a thread say, as measured on real ones."""

from __future__ import annotations

import pytest

from mesh.core.sightings import Condition, Eye, Sight, condition, is_still, own_s

BEGIN = Sight(10.0, "S", 5.0, 1.0, 1000, 6.0)


def after(
    state: str,
    cpu: float,
    delay: float,
    slices: int,
    process: float | None = None,
    span: float = 0.1,
) -> Sight:
    whole = cpu if process is None else process
    return Sight(10.0 + span, state, 5.0 + cpu, 1.0 + delay, 1000 + slices, 6.0 + whole)


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        (after("S", 0.001, 0.0, 4), Condition.WAKING),
        (after("R", 0.02, 0.01, 9), Condition.WAKING),
        (after("S", 0.0, 0.0, 0), Condition.BLOCKED),
        (after("D", 0.0, 0.0, 0), Condition.BLOCKED),
        (after("R", 0.1, 0.0, 1), Condition.BURNING),
        (after("S", 0.06, 0.0, 3), Condition.BURNING),
        (after("T", 0.0, 0.0, 0), Condition.STOPPED),
        (after("t", 0.05, 0.0, 1), Condition.STOPPED),
        (after("F", 0.0, 0.0, 0), Condition.STOPPED),
        (after("R", 0.0, 0.0, 0), Condition.STARVED),  # throttled: nothing is counted
        (after("R", 0.004, 0.09, 2), Condition.STARVED),
        (after("S", 0.004, 0.06, 2), Condition.STARVED),
        (after("S", 0.0005, 0.0, 20, process=0.1), Condition.BURNING),  # waits for the GIL
    ],
)
def test_what_a_thread_does_is_told_from_two_looks(seen: Sight, state: Condition) -> None:
    assert condition(BEGIN, seen) is state


def test_one_that_was_about_to_run_both_times_and_hardly_did_starves() -> None:
    runnable = Sight(10.0, "R", 5.0, 1.0, 1000, 6.0)
    assert condition(runnable, after("R", 0.01, 0.02, 1)) is Condition.STARVED


@pytest.mark.parametrize(
    ("seen", "own"),
    [
        (after("S", 0.0, 0.0, 0), 0.1),
        (after("R", 0.1, 0.0, 1), 0.1),
        (after("R", 0.0, 0.0, 0), 0.0),
        (after("R", 0.004, 0.09, 2), 0.004),
        (after("T", 0.0, 0.0, 0), 0.0),
    ],
)
def test_only_what_it_spends_of_its_own_will_counts_towards_its_limit(
    seen: Sight, own: float
) -> None:
    assert own_s(BEGIN, seen) == pytest.approx(own)


def test_looks_that_are_too_close_together_say_nothing() -> None:
    eye = Eye(0.05)
    eye.see(BEGIN, 1.0)
    eye.see(after("S", 0.0, 0.0, 0, span=0.01), 1.01)
    assert eye.condition is None
    eye.see(after("S", 0.0, 0.0, 0), 1.1)
    assert eye.condition is Condition.BLOCKED


def test_that_one_is_stopped_takes_a_single_look() -> None:
    eye = Eye(0.05)
    eye.see(Sight(10.0, "T", 5.0, 1.0, 1000, 6.0), 1.0)
    assert eye.condition is Condition.STOPPED


def test_one_that_has_ended_is_nothing_to_judge() -> None:
    eye = Eye(0.05)
    eye.see(BEGIN, 1.0)
    for state in "ZX":
        eye.see(after(state, 0.0, 0.0, 0), 1.1)
    assert eye.condition is None


@pytest.mark.parametrize(
    ("seen", "was", "still"),
    [
        (after("T", 0.0, 0.0, 0), "stopped", True),
        (after("F", 0.0, 0.0, 0), "stopped", True),
        (after("S", 0.0, 0.0, 0), "stopped", False),
        (after("R", 0.0, 0.0, 0), "stopped", False),
        (after("S", 0.0, 0.0, 0), "blocked", True),
        (after("S", 0.001, 0.0, 1), "blocked", False),
        (after("R", 0.0, 0.0, 0), "blocked", False),
        (after("R", 0.1, 0.0, 3), "burning", True),
        (after("T", 0.1, 0.0, 3), "burning", False),
        (after("Z", 0.1, 0.0, 3), "burning", False),
    ],
)
def test_a_warden_looks_again_whether_it_still_is_so(seen: Sight, was: str, still: bool) -> None:
    assert is_still(seen, was, 1000) is still
