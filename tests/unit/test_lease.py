"""A lease by itself: what counts, from when, and when it is time for the next renewal."""

import math

import pytest

from mesh.core.lease import Lease, LeaseTiming

T = LeaseTiming()


def renewed(at: float) -> Lease:
    lease = Lease(T)
    lease.sent(1, at)
    lease.acknowledged(1)
    return lease


def test_there_is_none_before_the_first_acknowledgement():
    lease = Lease(T)
    assert not lease.holds(0.0)
    lease.sent(1, 0.0)
    assert not lease.holds(0.0)
    lease.acknowledged(1)
    assert lease.holds(0.0)


def test_it_counts_from_the_send_and_not_from_the_acknowledgement():
    lease = Lease(T)
    lease.sent(1, 10.0)
    lease.acknowledged(1)  # whenever that was heard
    assert lease.until == 10.0 + T.valid_s
    assert lease.holds(10.0 + T.valid_s - 1e-6) and not lease.holds(10.0 + T.valid_s)


def test_the_acknowledgement_of_one_send_says_nothing_of_another():
    lease = Lease(T)
    lease.sent(1, 10.0)
    lease.sent(2, 10.5)
    lease.acknowledged(1)
    assert lease.until == 10.0 + T.valid_s
    lease.acknowledged(2)
    assert lease.until == 10.5 + T.valid_s


def test_an_acknowledgement_that_comes_late_takes_nothing_back():
    lease = Lease(T)
    lease.sent(1, 10.0)
    lease.sent(2, 10.5)
    lease.acknowledged(2)
    lease.acknowledged(1)
    assert lease.until == 10.5 + T.valid_s


def test_a_number_that_failed_or_is_unknown_does_not_count():
    lease = Lease(T)
    lease.sent(1, 10.0)
    lease.failed(1)
    lease.acknowledged(1)
    lease.acknowledged(7)
    assert not lease.holds(10.0)


@pytest.mark.parametrize("again", [5, 4, 0])
def test_a_number_is_used_once_and_they_grow(again):
    lease = Lease(T)
    lease.sent(5, 1.0)
    with pytest.raises(ValueError, match=f"renewal {again} after 5: numbers have to grow"):
        lease.sent(again, 2.0)


def test_what_nobody_hears_of_is_not_kept_for_ever():
    lease = Lease(T)
    for number in range(1000):
        lease.sent(number, number * 0.01)
    assert len(lease._sent) <= T.valid_s / 0.01 + 1


def test_once_the_grant_is_over_nothing_is_covered_whatever_is_still_acknowledged():
    lease = renewed(10.0)
    lease.sent(2, 10.1)
    lease.end()
    assert not lease.holds(10.1)
    lease.acknowledged(2)
    lease.sent(3, 10.2)
    lease.acknowledged(3)
    assert not lease.holds(10.2) and not lease.is_due(1000.0)


def test_it_is_time_for_a_renewal_at_once_and_then_each_renew_s():
    lease = Lease(T)
    assert lease.is_due(0.0)
    lease = renewed(10.0)
    assert not lease.is_due(10.0 + T.renew_s - 1e-6)
    assert lease.is_due(10.0 + T.renew_s)


def test_one_that_may_still_count_is_waited_for_and_one_that_failed_is_sent_again_soon():
    lease = renewed(10.0)
    lease.sent(2, 10.25)
    assert not lease.is_due(10.25 + T.renew_s - 1e-6)
    assert lease.is_due(10.25 + T.renew_s)
    lease.failed(2)
    assert not lease.is_due(10.25)
    assert lease.is_due(10.25 + T.renew_s / 2)


def test_what_is_written_meanwhile_puts_it_off():
    lease = renewed(10.0)
    lease.sent(2, 10.2)
    lease.acknowledged(2)
    assert not lease.is_due(10.3)


def test_the_leader_waits_for_longer_than_any_clock_may_make_it():
    assert T.valid_s == pytest.approx(0.949)
    assert T.out_s == pytest.approx(1.001)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"duration_s": 0.3}, "renew_s 0.25 must be below the 0.25 s .* of duration_s 0.3"),
        ({"renew_s": 2.0}, "renew_s 2.0 must be below the 0.949 s .* of duration_s 1.0"),
        ({"margin_s": 0.75}, "margin_s 0.75"),
        ({"read_s": 1.5}, "read_s 1.5 must not be above duration_s 1.0"),
        ({"duration_s": 0}, "duration_s is a number of seconds above 0, not 0"),
        ({"renew_s": -1.0}, "renew_s is a number of seconds above 0, not -1.0"),
        ({"read_s": math.nan}, "read_s is a number of seconds above 0, not nan"),
        ({"duration_s": math.inf}, "duration_s is a number of seconds above 0, not inf"),
        ({"margin_s": -0.1}, "margin_s is 0 or a number of seconds, not -0.1"),
        ({"drift": 1.0}, "drift is a part of a second, 0 up to 1, not 1.0"),
        ({"drift": -0.1}, "drift is a part of a second, 0 up to 1, not -0.1"),
    ],
)
def test_a_timing_that_cannot_work_is_refused_with_both_values(values, said):
    with pytest.raises(ValueError, match=said):
        LeaseTiming(**values)
