"""A share moves a step at a time, and no faster than its receiver can take."""

from __future__ import annotations

import pytest

from mesh.core.ramp import Ramp


def test_a_share_goes_a_tenth_a_half_and_all_of_its_way() -> None:
    ramp = Ramp(4.0, 0.0, 1.0, 10.0)
    shares = [ramp.share for now in (10.0, 11.0, 12.0) if ramp.step(now, clear=True)]
    assert shares == [pytest.approx(3.6), pytest.approx(2.0), 0.0]
    assert ramp.is_over
    assert not ramp.step(99.0, clear=True)


def test_no_step_is_taken_before_it_is_due() -> None:
    ramp = Ramp(0.0, 1.0, 5.0, 10.0)
    assert not ramp.step(9.9, clear=True)
    assert ramp.step(10.0, clear=True)
    assert not ramp.step(14.9, clear=True)
    ramp.put_off(30.0)
    assert not ramp.step(29.0, clear=True)
    assert ramp.step(30.0, clear=True)


def test_a_receiver_that_is_not_clear_is_waited_for_and_no_step_is_skipped() -> None:
    ramp = Ramp(1.0, 0.0, 1.0, 0.0)
    assert not any(ramp.step(float(now), clear=False) for now in range(20))
    assert ramp.step(20.0, clear=True)
    assert ramp.share == pytest.approx(0.9)
    assert not ramp.step(20.5, clear=True)


def test_one_that_is_in_haste_takes_its_steps_sooner_and_takes_each() -> None:
    ramp = Ramp(0.0, 1.0, 10.0, 0.0)
    assert ramp.step(0.0, clear=True)
    ramp.hasten(2.0, 0.5)
    assert [now / 2 for now in range(4, 8) if ramp.step(now / 2, clear=True)] == [2.0, 2.5]
    assert ramp.share == 1.0


def test_what_is_under_way_already_goes_on_from_where_it_is() -> None:
    ramp = Ramp(0.5, 1.0, 1.0, 0.0)
    shares = [ramp.share for now in range(3) if ramp.step(float(now), clear=True)]
    assert shares == [pytest.approx(0.55), pytest.approx(0.75), 1.0]
