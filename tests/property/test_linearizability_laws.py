"""Histories of a real run are accepted; others are judged as trying every order would judge them.

The run is real: each call takes effect at one moment between its begin and its end, on the one state there
is. What may be said of a call is then up to the mesh: its reply, or that it is unknown, or, where it never
took effect, that it was not executed.
"""

from itertools import permutations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.testing.history import End, History, Operation
from mesh.testing.history_text import dump, parse
from mesh.testing.linearizability import check
from mesh.testing.models import KV, Model

MODEL = Model(KV)
VALUES = st.integers(0, 2)
CALLS = st.one_of(
    st.tuples(st.just("get")),
    st.tuples(st.just("incr")),
    st.tuples(st.just("~exists")),
    st.tuples(st.just("~delete")),
    st.tuples(st.just("append"), VALUES),  # an error, where the key holds a number
    st.tuples(st.just("put"), VALUES),
    st.tuples(st.just("cas"), VALUES, VALUES),
)


@st.composite
def histories(draw, most, keys=1):
    """A run of up to so many calls, by up to four clients at once."""
    history, states = History(lambda: 0.0), {}
    waiting: list[tuple[Operation, list]] = []
    left = draw(st.integers(1, most))
    while left or waiting:
        if left and (not waiting or (len(waiting) < 4 and draw(st.booleans()))):
            method, *args = draw(CALLS)
            key = f"k{draw(st.integers(1, keys))}"
            waiting.append((history.begin("c", f"KV.{method}", key, args), []))
            left -= 1
            continue
        at = draw(st.integers(0, len(waiting) - 1))
        operation, effect = waiting[at]
        if not effect:
            fate = draw(st.sampled_from(["takes effect"] * 5 + ["never does", "is refused"]))
            if fate == "is refused":
                history.finish(operation, End.NOT_EXECUTED)
                waiting.pop(at)
            elif fate == "never does":
                effect.append(None)
            else:
                state, reply, error = MODEL.run(states.get(operation.key), operation)
                states[operation.key] = state
                effect.append((reply, error))
            continue
        waiting.pop(at)
        fates = ["unknown", "nobody knows"] + (["told"] * 6 if effect[0] else [])
        fate = draw(st.sampled_from(fates))
        if fate == "unknown":
            # Its caller is told so now; it may take effect later, if it has not.
            history.finish(operation, End.UNKNOWN)
            if effect[0] is None and draw(st.booleans()):
                states[operation.key] = MODEL.run(states.get(operation.key), operation)[0]
        elif fate == "told":
            tell(history, operation, *effect[0])
    return history


def tell(history, operation, reply, error):
    if error is None:
        history.returned(operation, reply)
    else:
        history.finish(operation, End.RAISED, error)


def explainable(operations):
    """Whether some order of some of the calls explains all that was told: by trying all of them."""
    known = [o for o in operations if o.end in (End.RETURNED, End.RAISED, End.EXECUTED)]
    maybe = [o for o in operations if o.executed is None and not MODEL.is_query(o)]
    for chosen in range(1 << len(maybe)):
        some = known + [o for i, o in enumerate(maybe) if chosen >> i & 1]
        if any(fits(order) for order in permutations(some)):
            return True
    return False


def fits(order):
    state = None
    for i, operation in enumerate(order):
        # One whose outcome is unknown may take effect long after its caller was told so.
        ended = [later for later in order[i + 1 :] if later.executed is not None]
        if any(later.last < operation.first for later in ended):
            return False
        state, reply, error = MODEL.run(state, operation)
        if operation.executed is not None and not MODEL.fits(operation, reply, error):
            return False
    return True


@given(histories(most=60, keys=3))
def test_what_has_really_happened_is_accepted(history):
    judgement = check(history)
    assert judgement.ok, judgement


@given(histories(most=5), st.data())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_a_reply_that_was_changed_is_refused_unless_some_order_explains_it(history, data):
    told = [o for o in history if o.end is not End.RUNNING]
    if not told:
        return
    operation = data.draw(st.sampled_from(told))
    operation.end, operation.error = End.RETURNED, None
    operation.value = data.draw(st.sampled_from([None, True, False, 0, 1, 2, 3, [0]]))
    judgement = check(history)
    assert not judgement.gave_up
    assert judgement.ok == explainable(list(history)), judgement


@given(histories(most=5), st.data())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_a_not_executed_call_that_was_executed_is_refused_unless_some_order_explains_it(
    history, data
):
    told = [o for o in history if o.end is End.RETURNED]
    if not told:
        return
    operation = data.draw(st.sampled_from(told))
    operation.end = End.NOT_EXECUTED
    assert check(history).ok == explainable([o for o in history if o is not operation])


@given(histories(most=6), st.data())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_a_counterexample_is_the_shortest_prefix(history, data):
    told = [o for o in history if o.end is End.RETURNED]
    if not told:
        return
    operation = data.draw(st.sampled_from(told))
    operation.value = data.draw(st.sampled_from([None, True, False, 0, 1, 2, 3, [0]]))
    for found in check(history).counterexamples:
        end = found.operation.last
        assert not explainable(up_to(history, end))
        assert explainable(up_to(history, end - 1))


def up_to(history, last):
    """The history as it was known then."""
    again = parse(dump(o for o in history if o.first <= last))
    known = [o for o in history if o.first <= last]
    for one, copy in zip(known, again, strict=True):
        copy.first, copy.last = one.first, one.last
        if one.last > last:
            copy.end = End.RUNNING
    return list(again)


@given(histories(most=20, keys=2))
def test_a_histories_text_is_judged_as_the_history_is(history):
    again = parse(dump(history))
    assert dump(again) == dump(history)
    assert check(again).ok
