"""What is written down of a client's calls, and histories as text."""

import asyncio
import datetime as dt
import math

import pytest

import mesh
from mesh.client.outcome import Outcome
from mesh.errors import (
    BadRequest,
    EntityError,
    IdempotencyConflict,
    OutcomeUnknown,
    Overloaded,
    ProtocolError,
)
from mesh.testing.history import End, History
from mesh.testing.history_text import dump, events, parse
from mesh.testing.recorder import BlockingRecorder, Recorder


@mesh.entity(name="Diary")
class Diary:
    last: dt.date | None = None

    @mesh.command
    def write(self, day: dt.date) -> dt.date | None:
        before, self.last = self.last, day
        return before


class Canned:
    """A client that answers what the test says, in place of a mesh."""

    def __init__(self, *ends):
        self.ends = list(ends)
        self.called = []

    def answer(self, *call):
        self.called.append(call)
        end = self.ends.pop(0)
        if isinstance(end, BaseException):
            raise end
        return end

    async def call(self, method, key, *args, **options):
        return self.answer(method, key, args, options)

    async def delete(self, entity, key, **options):
        return self.answer("delete", key, options)

    async def exists(self, entity, key, **options):
        return self.answer("exists", key, options)

    async def outcome(self, method, key, idempotency_key, **options):
        return self.answer("outcome", key, idempotency_key, options)


class CannedBlocking(Canned):
    def call(self, method, key, *args, **options):
        return self.answer(method, key, args, options)

    def delete(self, entity, key, **options):
        return self.answer("delete", key, options)

    def exists(self, entity, key, **options):
        return self.answer("exists", key, options)

    def outcome(self, method, key, idempotency_key, **options):
        return self.answer("outcome", key, idempotency_key, options)


class Hand:
    """A clock."""

    def __init__(self):
        self.now = 1.0

    def __call__(self):
        self.now += 0.5
        return self.now


@pytest.fixture
def history():
    return History(Hand())


def recorder(history, *ends):
    return Recorder(Canned(*ends), history, "a")


async def test_a_call_is_written_down_with_what_it_was_given_and_told(history):
    client = recorder(history, 7)
    value = await client.call(
        mesh.KV.incr, "k", 2, timeout=3.0, idempotency_key="order-1", metadata={"who": "me"}
    )
    assert value == 7
    [operation] = history
    assert str(operation) == "#1 a: KV.incr('k', 2, idempotency_key='order-1') -> 7"
    assert (operation.begun, operation.ended, operation.deadline) == (1.5, 2.0, 4.5)
    assert operation.executed is True and operation.first < operation.last
    [(_, _, args, options)] = client.client.called
    assert args == (2,) and options["metadata"] == {"who": "me"} and options["timeout"] == 3.0


@pytest.mark.parametrize(
    ("error", "end", "executed"),
    [
        (EntityError("no", type="ValueError", details=[]), End.RAISED, True),
        (Overloaded("later"), End.NOT_EXECUTED, False),
        (BadRequest("never"), End.NOT_EXECUTED, False),
        (OutcomeUnknown("who knows"), End.UNKNOWN, None),
        (ProtocolError("unreadable", executed=True), End.EXECUTED, True),
        (asyncio.CancelledError(), End.CANCELLED, None),
        (RuntimeError("not ours"), End.UNKNOWN, None),
    ],
)
async def test_an_error_is_written_down_as_what_is_known_and_goes_on_to_the_caller(
    history, error, end, executed
):
    with pytest.raises(type(error)):
        await recorder(history, error).call("KV.incr", "k")
    [operation] = history
    assert operation.end is end and operation.executed is executed
    if isinstance(error, EntityError):
        assert operation.error == ("ValueError", "no")


async def test_deletes_and_questions_after_keys_are_operations_too(history):
    client = recorder(history, True, False)
    await client.delete(mesh.KV, "k")
    await client.exists("KV", b"\xff")
    assert [o.call for o in history] == ["delete(KV, 'k')", "exists(KV, b'\\xff')"]


def test_a_blocking_client_is_written_down_the_same_way(history):
    client = BlockingRecorder(
        CannedBlocking(1, True, False, Outcome(executed=True, _reply=1)), history, "b"
    )
    assert client.call(mesh.KV.incr, "k") == 1
    assert client.delete(mesh.KV, "k") and not client.exists(mesh.KV, "k")
    assert client.outcome(mesh.KV.incr, "k", "x").executed
    assert [o.call for o in history] == [
        "KV.incr('k')",
        "delete(KV, 'k')",
        "exists(KV, 'k')",
        "outcome(KV, 'k', 'incr', 'x')",
    ]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (Outcome(executed=True, _reply=5), "-> 5"),
        (
            Outcome(executed=True, _error=EntityError("no", type="ValueError", details=[])),
            "raised ValueError('no')",
        ),
        (Outcome(executed=False, _error=IdempotencyConflict("ruled out")), "not executed"),
    ],
)
async def test_what_the_mesh_says_later_settles_every_unknown_call_under_that_key(
    history, said, shown
):
    lost = OutcomeUnknown("sent, and no verdict")
    client = recorder(history, lost, lost, 9, said)
    for _ in range(2):
        with pytest.raises(OutcomeUnknown):
            await client.call("KV.incr", "k", idempotency_key="x")
    await client.call("KV.incr", "k", idempotency_key="other")
    ended = [o.ended for o in history]
    await client.outcome("KV.incr", "k", "x")
    assert [o.outcome for o in history][:3] == [shown, shown, "-> 9"]
    assert [o.ended for o in history][:3] == ended, "their callers were released when they were"
    assert all(o.last > history.operations[3].last for o in history.operations[:2])


@pytest.mark.parametrize("end", [End.UNKNOWN, End.CANCELLED])
def test_what_another_caller_is_told_of_a_running_call_is_known_when_it_ends_unknown(history, end):
    operation = history.begin("a", "KV.incr", "k", idempotency_key="x")
    history.settle(operation, End.NOT_EXECUTED)
    assert (operation.end, operation.told) == (End.NOT_EXECUTED, End.RUNNING)
    history.finish(operation, end)
    assert (operation.end, operation.told) == (End.NOT_EXECUTED, end)
    assert operation.first < operation.last < operation.released
    text = dump(history)
    assert dump(parse(text)) == text


def test_what_its_own_caller_is_told_of_a_running_call_counts(history):
    operation = history.begin("a", "KV.incr", "k", idempotency_key="x")
    history.settle(operation, End.NOT_EXECUTED)
    history.returned(operation, 4)
    assert (operation.outcome, operation.told) == ("-> 4", End.RETURNED)
    assert "settled" not in dump(history)


def test_an_operation_ends_once(history):
    operation = history.begin("a", "KV.get", "k")
    history.returned(operation, 1)
    with pytest.raises(ValueError, match="ends a second time"):
        history.finish(operation, End.CANCELLED)


def test_a_begin_in_the_instant_of_an_end_comes_after_it():
    history = History(lambda: 1.0)
    one = history.begin("a", "KV.get", "k")
    history.returned(one, None)
    two = history.begin("b", "KV.get", "k")
    assert one.ended == two.begun and one.last < two.first


# ----------------------------------------------------------------------------------------------- as text


def eventful(history):
    def begin(client, name, key, *args, **options):
        return history.begin(client, name, key, args, **options)

    a = begin("a", "KV.append", "k", {"deep": [1, None, b"\0"]}, timeout=2.0, idempotency_key="x y")
    b = begin("b", "KV.~delete", b"\xff\x00")
    c = begin("c", "Diary.write", "k", dt.date(2026, 2, 3))
    d = begin("d", "odd name.do", "k", "two  spaces  -> 5", math.inf)
    history.returned(a, 1)
    history.failed(b, OutcomeUnknown("it's\nover"))
    history.returned(c, dt.date(2026, 2, 2))
    history.finish(d, End.CANCELLED)
    begin("a", "KV.get", "k")
    history.settle(b, End.NOT_EXECUTED)
    e = history.begin("a", "KV.incr", "k", kwargs={"by": 5})
    history.failed(e, EntityError("no 'number'", type="TypeError", details=[]))


def test_a_history_is_read_back_as_it_was(history):
    eventful(history)
    text = dump(history, Diary)
    again = parse(text, Diary)
    assert dump(again, Diary) == text
    for one, other in zip(history, again, strict=True):
        for what in ("client", "entity", "method", "key", "args", "kwargs", "begun", "timeout"):
            assert getattr(one, what) == getattr(other, what), (one, what)
        assert (one.end, one.value, one.idempotency_key) == (
            other.end,
            other.value,
            other.idempotency_key,
        )
        assert (one.ended, one.settled) == (other.ended, other.settled)


def test_the_text_has_a_line_for_each_begin_and_end_in_their_order(history):
    eventful(history)
    lines = [event.line for event in events(history, Diary)]
    assert lines[0] == (
        "a  #1  KV.append('k', {'deep': [1, None, b'\\x00']}, idempotency_key='x y', timeout=2.0)"
    )
    assert lines[2].startswith("c  #3  Diary.write('k', packed('"), (
        "no value that Python reads back"
    )
    assert "b  #2  settled not executed" in lines
    assert lines[-1] == """a  #6  raised TypeError("no 'number'")"""
    assert [event.at for event in events(history, Diary)] == sorted(
        event.at for event in events(history, Diary)
    )


@pytest.mark.parametrize(
    "line",
    [
        "now  a  #1  KV.get('k')",
        "1.0 a #1 KV.get('k')",
        "1.0  a  #1  KV.get(",
        "1.0  a  #1  -> 5",
        "1.0  a  #1  'k'",
        "1.0  a  #1  KV.get(__import__('os'))",
    ],
)
def test_what_is_no_history_is_refused_with_its_line(line):
    with pytest.raises(ValueError, match="line 2"):
        parse(f"0.5  b  #9  KV.get('k')\n{line}\n")
