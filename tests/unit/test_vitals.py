"""What beats tell: turns, lag, a few timed calls, what keeps the loop; each since the last beat."""

from __future__ import annotations

import math

import pytest

from mesh.core.answers import Counts
from mesh.core.sightings import Sight
from mesh.core.wire import Status, pack_reply
from mesh.vitals import Running, Vitals


class Handler:
    """What vitals are asked of, set by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.counts = Counts(0, 0, 0)
        self.lease_until = -math.inf
        self.running: Running | None = None
        self.vitals = Vitals(
            b"nonce",
            lambda: self.now,
            lambda: self.counts,
            lambda: self.lease_until,
            lambda: self.running,
            30.0,
        )

    def beat(self, thread: Sight | None = None):
        return self.vitals.beat(thread, 80.0)


class Sink:
    """A connection that keeps what it is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.flushed = False

    def send(self, frame: bytes) -> None:
        self.sent.append(frame)

    def flush(self) -> None:
        self.flushed = True


def answer(status: Status = Status.OK) -> bytes:
    return pack_reply(1, status, b"")


def test_beats_are_numbered_and_say_how_often_the_loop_has_turned() -> None:
    h = Handler()
    assert (h.beat().number, h.beat().number) == (1, 2)
    h.vitals.turned(0.0)
    h.vitals.turned(0.0)
    assert (h.beat().turns, h.beat().turns) == (2, 2)


async def test_a_turn_that_is_not_over_yet_is_as_late_as_it_is() -> None:
    h = Handler()
    h.vitals.count_turns(10.0)
    h.vitals.turned(0.0)
    h.now += 9.0
    assert h.beat().lag_ms == 0
    h.now += 1.3
    assert h.beat().lag_ms == pytest.approx(300)
    h.now += 0.1
    assert h.beat().lag_ms == pytest.approx(400)
    h.vitals.turned(0.4)
    assert [round(h.beat().lag_ms) for _ in range(2)] == [400, 0]
    h.vitals.stop()


def test_the_worst_lag_since_the_last_beat_is_told_once() -> None:
    h = Handler()
    for late_s in (0.010, 0.045, 0.002):
        h.vitals.turned(late_s)
    assert h.beat().lag_ms == pytest.approx(45)
    assert h.beat().lag_ms == 0


def test_a_few_calls_of_each_turn_are_timed_and_no_more() -> None:
    h = Handler()
    assert not h.vitals.wants_sample, "not before the loop has turned"
    h.vitals.turned(0.0)
    timed = 0
    while h.vitals.wants_sample:
        conn = h.vitals.sample(Sink())
        h.now += 0.005
        conn.send(answer())
        timed += 1
    assert timed == 4
    beat = h.beat()
    assert (beat.timed, beat.latency_ms) == (4, pytest.approx(5))
    assert (h.beat().timed, h.beat().latency_ms) == (0, 0)


def test_a_timed_call_is_answered_as_any() -> None:
    h, sink = Handler(), Sink()
    h.vitals.turned(0.0)
    conn = h.vitals.sample(sink)
    conn.send(answer(Status.NOT_READY))
    conn.flush()
    assert sink.sent == [answer(Status.NOT_READY)]
    assert sink.flushed


def test_that_a_call_was_taken_up_is_no_answer() -> None:
    h = Handler()
    h.vitals.turned(0.0)
    conn = h.vitals.sample(Sink())
    conn.send(answer(Status.TAKEN_UP))
    assert h.beat().timed == 0
    h.now += 2.0
    conn.send(answer())
    assert h.beat().latency_ms == pytest.approx(2000)


def test_a_method_is_named_with_how_long_it_has_been_seen_to_run() -> None:
    h = Handler()
    call = object()
    h.running = Running(call, "Account.report", 60.0)
    assert (h.beat().method, h.beat().method_ms) == ("Account.report", 0)
    h.now += 1.5
    beat = h.beat()
    assert (beat.method_ms, beat.limit_ms) == (pytest.approx(1500), 60_000)
    h.running = Running(object(), "Account.report", 60.0)  # the same method, another call
    assert h.beat().method_ms == 0
    h.running = None
    beat = h.beat()
    assert (beat.method, beat.method_ms, beat.limit_ms) == ("", 0, 30_000)


def test_what_is_left_of_the_lease_is_told_and_one_that_never_was_is_out() -> None:
    h = Handler()
    assert h.beat().lease_ms < 0
    h.lease_until = h.now + 0.4
    assert h.beat().lease_ms == pytest.approx(400)
    h.now += 1.0
    assert h.beat().lease_ms == pytest.approx(-600)


def test_counts_and_the_loops_thread_are_passed_on() -> None:
    h = Handler()
    h.counts = Counts(3, 50, 2)
    seen = Sight(99.5, "S", 1.5, 0.25, 40, 2.5)
    beat = h.beat(seen)
    assert (beat.pending, beat.done, beat.errors) == (3, 50, 2)
    assert (beat.at_ms, beat.state, beat.cpu_ms) == (99_500, "S", 1500)
    assert (beat.delay_ms, beat.slices, beat.process_ms) == (250, 40, 2500)
    assert h.beat(None).state == ""
