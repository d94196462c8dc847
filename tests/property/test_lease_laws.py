"""Whatever clocks, delays and losses there are: where the leader holds a lease for over, its holder does."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.core.lease import Lease, LeaseTiming

timings = st.builds(
    LeaseTiming,
    duration_s=st.floats(0.5, 10.0),
    drift=st.sampled_from([0.0, 1e-3, 0.05]),
    margin_s=st.floats(0.0, 0.1),
)
steps = st.tuples(
    st.floats(0.0, 1.0),  # true time that passes before it
    st.floats(0.0, 0.2),  # until the store has it
    st.floats(0.0, 3.0),  # until its acknowledgement is heard
    st.sampled_from(["heard", "heard", "short", "lost"]),
)


@given(
    timing=timings,
    rates=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    offsets=st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)),
    sends=st.lists(steps, min_size=1, max_size=12),
)
def test_nobody_answers_under_a_lease_that_the_leader_has_waited_out(timing, rates, offsets, sends):
    """The leader revokes after the last of these writes was carried out; it sees each as soon as it can."""
    fast, slow = (1 + rate * timing.drift for rate in rates)

    def handlers(true: float) -> float:
        return offsets[0] + true * fast

    def leaders(true: float) -> float:
        return offsets[1] + true * slow

    lease, events, now = Lease(timing), [], 0.0
    first_seen = {}
    for number, (pause, way, back, fate) in enumerate(sends, 1):
        now += pause
        events.append((now, 0, number))
        if fate != "lost":
            first_seen[number] = leaders(now + way)
        if fate == "heard":
            events.append((now + way + back, 1, number))
    for at, kind, number in sorted(events):
        if kind == 0:
            lease.sent(number, handlers(at))
        else:
            lease.acknowledged(number)
    if not first_seen:
        assert not lease.holds(handlers(now))
        return
    # What the store keeps is the highest number; that is the one which the leader waits for.
    out_at = first_seen[max(first_seen)] + timing.out_s
    true_out = (out_at - offsets[1]) / slow
    assert not lease.holds(handlers(true_out + 1e-6))


@given(timing=timings, pauses=st.lists(st.floats(0.0, 0.1), max_size=40))
def test_whoever_renews_when_it_is_due_never_runs_out_while_the_store_answers(timing, pauses):
    lease, now, number = Lease(timing), 1000.0, 0
    for pause in pauses:
        if lease.is_due(now):
            number += 1
            lease.sent(number, now)
            lease.acknowledged(number)
        assert lease.holds(now)
        now += min(pause, (timing.valid_s - timing.renew_s) / 2)
