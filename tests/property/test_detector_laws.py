"""Whatever befalls them and whoever watches: no handler that only lacks a CPU, or a network, is killed; one
that is stopped for good always ends.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh.core.watch_signals import Condemn, OrderKill
from tests.unit.watch_rig import CROWDED, IDLE, POLLING, STOPPED, THROTTLED, Handler, Ring

_FOR_S = st.integers(1, 60).map(lambda n: n / 10)


def ring_of(number: int, shared: bool) -> Ring:
    handlers = [
        Handler(f"h-{i}", warden="w" if shared else f"w-{i}", domain="a" if shared else f"d-{i}")
        for i in range(number)
    ]
    ring = Ring(*handlers)
    ring.run(1.0)
    return ring


@st.composite
def starving(draw: st.DrawFn) -> list[tuple[int, bool, float, float, float]]:
    """Which handler; throttled, or one of many; for how long; how late its warden; how long it runs after."""
    one = st.tuples(
        st.integers(0, 3), st.booleans(), _FOR_S, st.sampled_from([0.0, 30.0, 90.0, 400.0]), _FOR_S
    )
    return draw(st.lists(one, min_size=1, max_size=6))


@given(spells=starving(), shared=st.booleans(), judge_sleeps_s=st.floats(0.0, 5.0))
def test_a_handler_that_starves_is_never_evicted(
    spells: list[tuple[int, bool, float, float, float]], shared: bool, judge_sleeps_s: float
) -> None:
    ring = ring_of(4, shared)
    handlers = list(ring.handlers.values())
    for which, throttled, span_s, warden_lag_ms, after_s in spells:
        h = handlers[which]
        ring.wardens[h.warden] = warden_lag_ms
        h.does(THROTTLED if throttled else CROWDED, beats=not throttled)
        ring.run(span_s)
        ring.sleep(judge_sleeps_s)
        h.recovers()
        h.turned += 1
        ring.run(after_s)
    assert not ring.evictions


@given(
    cuts=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7), _FOR_S), min_size=1, max_size=6)
)
def test_a_handler_that_renews_and_that_someone_reaches_is_never_evicted(
    cuts: list[tuple[int, int, float]],
) -> None:
    """Its beats, the leader's probes, its warden: whichever of them is cut off."""
    ring = ring_of(4, shared=False)
    handlers = list(ring.handlers.values())
    for which, cut, span_s in cuts:
        h = handlers[which]
        h.beats, h.answers = not cut & 1, not cut & 2
        if cut & 4:
            ring.wardens.pop(h.warden, None)
        ring.run(span_s)
        h.beats = h.answers = True
        ring.wardens[h.warden] = 0.0
        ring.run(0.5)
    assert not ring.evictions


@given(
    warden=st.sampled_from(["there", "silent", "gone"]),
    obeys=st.booleans(),
    number=st.integers(2, 5),
    shared=st.booleans(),
)
def test_a_handler_that_is_stopped_for_good_ends_within_a_second_and_a_half(
    warden: str, obeys: bool, number: int, shared: bool
) -> None:
    ring = ring_of(number, shared)
    ring.obeys = obeys
    h = next(iter(ring.handlers.values()))
    if warden == "silent":
        ring.wardens.pop(h.warden)
    elif warden == "gone":
        ring.lose_warden(h.warden)
    h.does(STOPPED, beats=False)
    ring.run(1.5)
    ended = {o.nonce for o in [*ring.of(OrderKill), *ring.of(Condemn)]}
    assert ended == {h.nonce}
    if not obeys or warden != "there":
        assert {o.nonce for o in ring.of(Condemn)} == {h.nonce}


@given(thread=st.sampled_from([IDLE, POLLING]), spans=st.lists(_FOR_S, min_size=1, max_size=5))
def test_whoever_turns_now_and_then_is_never_killed(
    thread: tuple[str, float, float, bool], spans: list[float]
) -> None:
    ring = ring_of(3, shared=True)
    h = next(iter(ring.handlers.values()))
    for span_s in spans:
        h.does(thread, method="Account.slow")
        ring.run(span_s)
        h.recovers()
        ring.run(0.2)
    assert not ring.of(OrderKill)
