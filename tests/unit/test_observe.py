"""Who subscribes hears of what happens, in order and as it is; who fails at it harms nobody."""

from __future__ import annotations

import logging
import threading

import msgpack
import pytest

from mesh import observe
from mesh.core.call import Call, Result
from mesh.core.outbox import Batch
from mesh.core.wire import Request, Status, pack_reply
from mesh.errors import DeadlineExceeded, EntityError
from mesh.net.watched import (
    WatchedCall,
    WatchedCommits,
    WatchedRequest,
    method_of,
    tell_tenure,
    watch_request,
)
from mesh.observe import (
    CallCompleted,
    CallFailed,
    CallStarted,
    CommitAcknowledged,
    HandlingCompleted,
    HandlingFailed,
    HandlingStarted,
    PartitionAdopted,
    PartitionLost,
    PartitionReleased,
    observers,
    subscribe,
)

PAYLOAD = msgpack.packb(["KV.incr", b"k", [1]])


@pytest.fixture
def heard():
    """All events of the test, as they came."""
    events: list[observe.Event] = []
    unsubscribe = subscribe(events.append)
    yield events
    unsubscribe()
    assert not observers.wanted


class Clock:
    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def now():
    return Clock()


# ---------------------------------------------------------------- subscribing


def test_a_subscriber_hears_of_the_types_it_named_and_no_others():
    some: list[observe.Event] = []
    unsubscribe = subscribe(some.append, PartitionLost, PartitionAdopted)
    try:
        assert observers.wanted == {PartitionLost, PartitionAdopted}
        for what in ("adopted", "released", "lost"):
            tell_tenure("h-0", what, 7, 3)
    finally:
        unsubscribe()
    assert some == [PartitionAdopted("h-0", 7, 3), PartitionLost("h-0", 7, 3)]
    assert [type(event) for event in some] == [PartitionAdopted, PartitionLost]


def test_without_a_type_it_hears_of_everything(heard):
    assert observers.wanted == set(observe.EVENTS)
    tell_tenure("h-0", "released", 7, 3)
    assert heard == [PartitionReleased("h-0", 7, 3)]


def test_every_subscriber_is_called_once_in_the_order_of_subscribing():
    calls: list[str] = []
    ends = [
        subscribe(lambda event: calls.append("a"), PartitionLost, PartitionLost),
        subscribe(lambda event: calls.append("b"), PartitionLost),
    ]
    tell_tenure("h-0", "lost", 1, 1)
    for end in ends:
        end()
    assert calls == ["a", "b"]


def test_who_unsubscribes_hears_of_nothing_more_however_often_he_does(heard):
    other: list[observe.Event] = []
    unsubscribe = subscribe(other.append)
    unsubscribe()
    unsubscribe()
    tell_tenure("h-0", "lost", 1, 1)
    assert (len(other), len(heard)) == (0, 1)


def test_one_function_may_subscribe_twice_and_end_one_of_them():
    events: list[observe.Event] = []
    first, second = subscribe(events.append), subscribe(events.append)
    first()
    tell_tenure("h-0", "lost", 1, 1)
    second()
    assert len(events) == 1


def test_a_subscriber_that_raises_is_logged_once_and_harms_nobody(caplog, heard):
    def fail(event: observe.Event) -> None:
        raise RuntimeError("no room")

    unsubscribe = subscribe(fail, PartitionLost)
    with caplog.at_level(logging.ERROR, "mesh.observe"):
        for partition in range(5):
            tell_tenure("h-0", "lost", partition, 1)
    unsubscribe()
    assert len(heard) == 5
    [record] = caplog.records
    assert "fail" in record.getMessage()
    assert "PartitionLost" in record.getMessage()
    assert record.exc_info and "no room" in str(record.exc_info[1])


def test_a_subscriber_may_end_its_own_subscription(heard):
    seen: list[observe.Event] = []

    def once(event: observe.Event) -> None:
        seen.append(event)
        unsubscribe()

    unsubscribe = subscribe(once)
    tell_tenure("h-0", "lost", 1, 1)
    tell_tenure("h-0", "lost", 2, 1)
    assert (len(seen), len(heard)) == (1, 2)


def test_what_is_no_event_is_refused_with_those_there_are():
    with pytest.raises(TypeError, match="<class 'int'> is no type of event; there are CallStarted"):
        subscribe(print, int)
    assert not observers.wanted


def test_threads_subscribe_and_end_while_events_happen(heard):
    def come_and_go() -> None:
        for _ in range(200):
            subscribe(lambda event: None)()

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for partition in range(500):
        tell_tenure("h-0", "lost", partition, 1)
    for thread in threads:
        thread.join()
    assert [event.partition for event in heard] == list(range(500))


def test_without_a_subscriber_nothing_is_made_of_a_request(now):
    conn = Conn()
    assert watch_request(conn, REQUEST, "h-0", now) is conn
    unsubscribe = subscribe(print, CallStarted)
    assert watch_request(conn, REQUEST, "h-0", now) is conn, "nobody wants to hear of requests"
    unsubscribe()


# ------------------------------------------------------------- a client's call


def begun(now, done=lambda result: None) -> tuple[WatchedCall, Call]:
    watched = WatchedCall(9, 5, PAYLOAD, done, now)
    call = Call(3, 5, PAYLOAD, now(), now() + 10, watched, 128, None)
    call.attempt = 2
    return watched, call


def test_a_call_is_told_when_it_begins_and_when_it_ends(heard, now):
    ends: list[Result] = []
    watched, call = begun(now, ends.append)
    watched.begun(call)
    now.at += 0.25
    watched(Result(b"x"))
    assert heard == [
        CallStarted((9, 3), "KV.incr", 5),
        CallCompleted((9, 3), "KV.incr", 5, 2, 0.25),
    ]
    assert ends == [Result(b"x")]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (EntityError("no", type="ValueError", details=[]), "entity_error"),
        (DeadlineExceeded("late"), "deadline_exceeded"),
    ],
)
def test_a_call_that_fails_is_told_with_its_error_and_the_kind_of_it(heard, now, error, outcome):
    watched, call = begun(now)
    watched.begun(call)
    watched(Result(error=error))
    assert heard[1:] == [CallFailed((9, 3), "KV.incr", 5, 2, 0.0, outcome, error)]


def test_a_call_that_is_cancelled_is_told_once(heard, now):
    watched, call = begun(now)
    watched.begun(call)
    watched.cancelled()
    watched.cancelled()
    assert heard[1:] == [CallFailed((9, 3), "KV.incr", 5, 2, 0.0, "cancelled", None)]


def test_a_cancel_that_meets_the_reply_changes_nothing(heard, now):
    watched, call = begun(now)
    watched.begun(call)
    watched(Result(b"x"))
    watched.cancelled()
    assert [type(event) for event in heard] == [CallStarted, CallCompleted]


def test_a_call_that_ends_as_it_begins_is_told_in_order(heard, now):
    ends: list[Result] = []
    watched, call = begun(now, ends.append)
    watched(Result(error=DeadlineExceeded("at once")))
    assert len(ends) == 1
    watched.begun(call)
    assert [type(event) for event in heard] == [CallStarted, CallFailed]


# ----------------------------------------------------------- a handler's request

REQUEST = Request(9, 3, 3, 5, 1, 9000, 0, 1, 128, PAYLOAD)


class Conn:
    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, frame: bytes) -> None:
        self.sent.append(frame)

    def flush(self) -> None:
        self.sent.append(b"flushed")


def test_a_request_is_told_when_it_arrives_and_when_it_is_answered(heard, now):
    conn = Conn()
    watched = watch_request(conn, REQUEST, "h-0", now)
    assert isinstance(watched, WatchedRequest)
    now.at += 0.5
    frame = pack_reply(3, Status.OK, b"\x01")
    watched.send(frame)
    about = ("h-0", (9, 3), "KV.incr", 5, 1)
    assert heard == [HandlingStarted(*about), HandlingCompleted(*about, 0.5)]
    assert conn.sent == [frame]


def test_that_a_request_was_taken_up_is_passed_on_at_once_and_is_no_answer(heard, now):
    conn = Conn()
    watched = watch_request(conn, REQUEST, "h-0", now)
    frame = pack_reply(3, Status.TAKEN_UP, b"")
    watched.send(frame)
    watched.flush()
    assert conn.sent == [frame, b"flushed"]
    watched.send(pack_reply(3, Status.OK, b"\x01"))
    assert [type(event) for event in heard] == [HandlingStarted, HandlingCompleted]


@pytest.mark.parametrize(
    "status", [status for status in Status if status not in (Status.OK, Status.TAKEN_UP)]
)
def test_any_other_answer_is_told_with_its_kind(heard, now, status):
    watched = watch_request(Conn(), REQUEST, "h-0", now)
    watched.send(pack_reply(3, status, b"\xc0"))
    assert isinstance(heard[1], HandlingFailed)
    assert heard[1].outcome == status.name.lower()


def test_a_commit_is_told_with_its_size_and_the_time_from_its_first_sending(heard, now):
    batch = Batch(0, 4, (object(), object()), ([object()], [object(), object()]))
    commits = WatchedCommits("h-0", now)
    commits.sent(batch)
    now.at += 1
    commits.sent(batch)
    now.at += 1
    commits.acknowledged(batch)
    assert heard == [CommitAcknowledged("h-0", 3, 2, 2.0)]


def test_a_commit_sent_before_anyone_listened_is_not_told(heard, now):
    WatchedCommits("h-0", now).acknowledged(Batch(0, 4, (), ()))
    assert heard == []


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (PAYLOAD, "KV.incr"),
        (msgpack.packb(["E" * 64 + "." + "m" * 180, b"k", []]), "E" * 64 + "." + "m" * 180),
        (msgpack.packb(["KV.put", b"k", [b"x" * 1000]]), "KV.put"),
        (b"", ""),
        (b"\x93", ""),
        (b"\x90", ""),
        (b"\x07", ""),
        (b"\xc1\xc1", ""),
        (b"\x93\xa7KV", ""),
        (b"\x93\xa2\xff\xff", ""),
        (b"\x93" + b"\x91" * 2000, ""),
        (msgpack.packb([7, b"k", []]), ""),
    ],
)
def test_a_methods_name_is_read_where_there_is_one_and_nothing_is_made_of_the_rest(payload, name):
    assert method_of(payload) == name
