"""How a call ends: once, typed, and "not executed" only where that is certain."""

import msgpack
import pytest
from unit.client_rig import A, B, C, Client, epoch

from mesh.core.wire import Status
from mesh.errors import (
    BadRequest,
    DeadlineExceeded,
    EntityError,
    IdempotencyConflict,
    OutcomeUnknown,
    Overloaded,
    ProtocolError,
    Unavailable,
)


def test_a_reply_ends_the_call_with_its_payload(client):
    call = client.call()
    client.reply(call, Status.OK, {"a": 1})
    assert msgpack.unpackb(client.result(call).payload) == {"a": 1}


def test_an_entity_error_was_executed_and_says_where(client):
    call = client.call()
    client.reply(call, Status.ENTITY_ERROR, ["ValueError", "not covered", [-4]])
    error = client.error(call)
    assert isinstance(error, EntityError) and error.executed is True
    assert (error.type, error.message, error.details) == ("ValueError", "not covered", [-4])
    assert (error.handler, error.partition) == ("h-1", 0)


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (Status.BAD_REQUEST, BadRequest),
        (Status.CONFLICT, IdempotencyConflict),
        (Status.OVERLOADED, Overloaded),
    ],
)
def test_a_refusal_is_not_executed_unless_an_earlier_attempt_broke_off(client, status, cls, broken):
    """F8(a)"""
    call = client.call()
    if broken:
        client.down(A)
        client.up(A)
    client.reply(call, status, "no")
    assert type(client.error(call)) is cls
    assert client.error(call).executed is (None if broken else False)


def test_a_partition_that_cannot_be_read_ends_the_call_and_is_named(client):
    sure, unsure = client.call(0), client.call(1)
    client.down(B)
    client.up(B)
    for call in (sure, unsure):
        client.reply(call, Status.UNREADABLE, "partition 0 cannot be read: WRONGTYPE")
    assert isinstance(client.error(sure), Unavailable)
    assert (client.error(sure).executed, client.error(sure).partition) == (False, 0)
    assert client.error(sure).message == "partition 0 cannot be read: WRONGTYPE"
    assert isinstance(client.error(unsure), OutcomeUnknown)


def test_expired_is_not_executed_unless_an_earlier_attempt_broke_off(client):
    sure, unsure = client.call(0, 0.5), client.call(1, 0.5)
    client.down(B)
    client.up(B)
    while client.result(sure) is None:
        for call in (sure, unsure):
            if call.conn is not None:
                client.reply(call, Status.EXPIRED, "late")
        client.later(client.core.next_timer() - client.now)
    assert sure.attempt > 2, "a handler waits shorter than a caller may: it is asked again"
    assert type(client.error(sure)) is DeadlineExceeded and client.error(sure).executed is False
    assert type(client.error(unsure)) is OutcomeUnknown and client.error(unsure).executed is None


@pytest.mark.parametrize("key", [None, "order-17"])
@pytest.mark.parametrize(
    ("status", "value"),
    [
        (Status.ENTITY_ERROR, ["ValueError", "no", []]),
        (Status.RULED_OUT, None),
        (Status.BAD_REQUEST, "no"),
        (Status.CONFLICT, "no"),
        (Status.UNKNOWN, "no"),
        (Status.OVERLOADED, "no"),
        (Status.OVERLOADED, ["no", 7.5]),
        (Status.UNREADABLE, "no"),
        (Status.EXPIRED, "no"),
    ],
)
def test_every_error_says_what_was_asked_of_whom_and_under_which_key(client, status, value, key):
    call = client.call(1, timeout_s=0.5, idempotency_key=key)
    client.reply(call, status, value)
    client.later(1.0)
    error = client.error(call)
    assert (error.handler, error.partition, error.epoch) == ("h-2", 1, epoch(1))
    assert error.idempotency_key == key


def test_what_the_client_itself_ends_bears_the_callers_key(client):
    late, closed = client.call(0, 0.5, idempotency_key="a"), client.call(1, idempotency_key="b")
    client.later(1.0)
    client.core.close("closed here")
    errors = [client.error(late), client.error(closed)]
    assert [(e.idempotency_key, e.partition, e.handler) for e in errors] == [
        ("a", 0, "h-1"),
        ("b", 1, "h-2"),
    ]


def test_a_call_that_was_ruled_out_was_not_executed_whatever_became_of_its_first_attempt(client):
    call = client.call(0, idempotency_key="order-17")
    client.down(A)
    client.up(A)
    client.reply(call, Status.RULED_OUT)
    assert type(client.error(call)) is IdempotencyConflict
    assert client.error(call).executed is False and "'order-17'" in client.error(call).message


def test_a_refusal_for_want_of_room_says_when_to_try_again(client):
    call = client.call()
    client.reply(call, Status.OVERLOADED, ["full", 12.5])
    error = client.error(call)
    assert (type(error), error.retry_after, error.message) == (
        Overloaded,
        12.5,
        "full; try again in 12.5 s",
    )


def test_a_session_is_answered_once_every_attempt_has_its_answer(client):
    assert client.core.is_answered
    call, given_up = client.call(0), client.call(1)
    assert not client.core.is_answered
    client.reply(call, Status.OK)
    conn = given_up.conn
    client.core.cancel(given_up)
    assert not client.core.is_answered, "it may still be read, and run"
    client.core.on_reply(conn, given_up.counter, Status.OK, b"", client.now)
    assert client.core.is_answered


@pytest.mark.parametrize("given_up_first", [True, False])
def test_a_session_with_an_attempt_on_a_broken_connection_stays_in_doubt(client, given_up_first):
    call = client.call(0)
    if given_up_first:
        client.core.cancel(call)
    client.down(A)
    client.up(A)
    if not given_up_first:
        client.reply(call, Status.OK)
    assert not list(client.core.calls()) and not client.core.is_answered


def test_the_age_of_a_call_counts_from_its_first_attempt_not_from_its_wait_for_an_owner():
    client = Client()
    client.call(timeout_s=86_400)
    client.later(50_000)
    client.core.on_slept(3600)
    client.table((A, 1), (B, 1))
    client.up(A)
    assert client.last()[1].age_ms == 0
    client.later(2)
    client.down(A)
    client.up(A)
    assert client.last()[1].age_ms == 2000


def test_the_age_of_a_resent_call_counts_the_time_that_the_machine_slept(client):
    call = client.call(0)
    client.later(1)
    client.core.on_slept(3600)
    client.down(A)
    client.up(A)
    assert client.last()[1].age_ms == 3_601_000
    fresh = client.call(0)
    assert (fresh.slept, client.last()[1].age_ms) == (0, 0)
    del call


def test_an_unknown_answer_stays_unknown(client):
    call = client.call()
    client.reply(call, Status.UNKNOWN, "given up before")
    assert type(client.error(call)) is OutcomeUnknown and client.error(call).executed is None


def test_a_deadline_in_flight_is_unknown(client):
    call = client.call(timeout_s=1.0)
    client.later(0.999)
    assert client.result(call) is None
    client.later(0.002)
    error = client.error(call)
    assert type(error) is OutcomeUnknown and isinstance(error, TimeoutError)
    assert (error.handler, error.partition, error.epoch) == ("h-1", 0, 0x10001)


def test_a_deadline_before_anything_was_sent_is_not_executed():
    client = Client()
    call = client.call(timeout_s=1.0)
    client.later(1.0)
    assert type(client.error(call)) is DeadlineExceeded and client.error(call).executed is False


def test_a_deadline_after_refusals_only_is_not_executed_and_names_the_last_address(client):
    call = client.call(timeout_s=0.5)
    while client.result(call) is None:
        if call.conn:
            client.reply(call, Status.NOT_READY, "soon")
        client.later(client.core.next_timer() - client.now)
    assert type(client.error(call)) is DeadlineExceeded
    assert "127.0.0.1:" in client.error(call).message


@pytest.mark.parametrize("why", ["broken", "maybe"])
def test_a_deadline_after_an_attempt_of_unknown_fate_is_unknown(client, why):
    call = client.call(timeout_s=0.5)
    if why == "broken":
        client.down(A)
    else:
        client.reply(call, Status.MAYBE, "moved")
        client.down(A)
    client.later(1.0)
    assert type(client.error(call)) is OutcomeUnknown


def test_a_moved_commit_is_settled_by_the_next_owner_under_the_same_id(client):
    call = client.call()
    client.reply(call, Status.MAYBE, "moved")
    client.table((B, 2), (B, 1))
    client.later(0.01)
    assert client.last()[0] == B and client.last()[1].counter == call.counter
    client.reply(call, Status.OK, 5)
    assert client.result(call).error is None


def test_a_call_that_two_processes_died_of_goes_to_no_third(client):
    """F8(g). The first is not asked to say that it has begun: that would cost every call something."""
    call = client.call()
    client.table((B, 2), (B, 1))
    client.down(A)
    client.reply(call, Status.TAKEN_UP)
    client.table((C, 3), (C, 2))
    client.up(C)
    assert client.where() == [A, B]
    assert type(client.error(call)) is OutcomeUnknown
    assert "2 handler processes that died" in client.error(call).message


def test_a_process_that_was_dead_before_a_resent_call_reached_it_is_not_held_against_the_call(
    client,
):
    call = client.call()
    for number, dead in enumerate((B, C), 2):
        client.table((dead, number), (dead, number), handlers=(b"h-4",))
        client.up(dead)
    client.table((b"h-4", 4), (b"h-4", 4))
    client.up(b"h-4")
    assert client.where() == [A, B, C, b"h-4"] and client.result(call) is None
    assert [request.deaths for _, request in client.sent] == [0, 1, 1, 1]
    client.reply(call, Status.TAKEN_UP)
    client.table((A, 5), (A, 5))
    client.up(A)
    assert client.last()[0] == A, "that one has not died after all"
    client.table((C, 6), (C, 6))
    client.up(C)
    assert type(client.error(call)) is OutcomeUnknown


def test_that_a_call_was_taken_up_counts_for_the_attempt_that_it_was_said_of(client):
    call = client.call()
    client.table((B, 2), (B, 1), handlers=(C,))
    client.reply(call, Status.TAKEN_UP, nonce=A)
    client.reply(call, Status.TAKEN_UP)
    client.reply(call, Status.NOT_READY, "the partition moved on")
    client.table((C, 3), (C, 2), handlers=(b"h-4",))
    client.up(C)
    client.later(0.01)
    client.table((b"h-4", 4), (b"h-4", 4))
    client.up(b"h-4")
    assert client.where() == [A, B, C, b"h-4"] and client.result(call) is None


def test_a_process_that_is_asked_again_is_not_among_the_deaths_that_it_is_told_of(client):
    call = client.call()
    client.down(A)
    client.up(A)
    client.table((B, 2), (B, 1))
    client.reply(call, Status.TAKEN_UP)
    client.down(B)
    client.up(B)
    assert client.where() == [A, A, B, B]
    assert [request.deaths for _, request in client.sent] == [0, 0, 1, 1]


def test_that_a_call_was_taken_up_is_no_answer_to_it(client):
    call, given_up = client.call(0), client.call(1)
    conn = given_up.conn
    client.core.cancel(given_up)
    client.reply(call, Status.TAKEN_UP)
    client.core.on_reply(conn, given_up.counter, Status.TAKEN_UP, b"", client.now)
    client.reply(call, Status.OK, 3)
    assert msgpack.unpackb(client.result(call).payload) == 3
    assert not client.core.is_answered, "the other one may still be run"


def test_broken_connections_to_living_processes_are_no_deaths(client):
    call = client.call()
    for _ in range(5):
        client.down(A)
        client.up(A)
    client.redirect(call, B, 2)
    client.down(B)
    client.up(B)
    assert client.where() == [A] * 6 + [B] * 2 and client.result(call) is None


def test_a_call_that_was_only_refused_by_those_that_died_goes_on(client):
    call = client.call()
    client.reply(call, Status.NOT_READY, "soon")
    client.table((B, 2), (B, 1))
    client.later(0.01)
    client.reply(call, Status.NOT_READY, "soon")
    client.table((C, 3), (C, 2))
    client.up(C)
    client.later(0.01)
    assert client.where() == [A, B, C]


def test_a_cancelled_call_ends_silently_and_is_not_sent_again(client):
    call = client.call()
    client.core.cancel(call)
    client.core.cancel(call)
    client.down(A)
    client.up(A)
    client.later(20)
    assert client.where() == [A] and client.result(call) is None
    client.call()
    assert client.last()[1].lowest == 2


def test_closing_ends_every_call_and_says_which_were_sent(client):
    sent, broken = client.call(1), client.call(0)
    client.down(A)
    parked = client.call(0)
    client.core.close("closed here")
    assert type(client.error(sent)) is OutcomeUnknown
    assert type(client.error(broken)) is OutcomeUnknown
    assert type(client.error(parked)) is Unavailable and client.error(parked).executed is False
    client.up(A)
    client.later(20)
    assert len(client.sent) == 2


def test_a_call_that_cannot_be_sent_ends_and_those_behind_it_go_on(client, monkeypatch):
    client.down(A)
    calls = [client.call(0) for _ in range(3)]
    send = client.send

    def fail_first(nonce, frame):
        if not client.sent:
            client.sent.append((nonce, None))
            raise KeyError("no such connection")
        send(nonce, frame)

    monkeypatch.setattr(client, "send", fail_first)
    client.up(A)
    assert isinstance(client.error(calls[0]), OutcomeUnknown)
    assert [call.conn for call in calls[1:]] == [A, A]


@pytest.mark.parametrize(
    ("status", "executed"), [(Status.ENTITY_ERROR, True), (Status.BAD_REQUEST, None)]
)
@pytest.mark.parametrize("payload", [b"\xc1", b"", b"\x01", b"\x81\x91\x01\x02"])
def test_a_refusal_that_cannot_be_decoded_ends_the_call(client, status, executed, payload):
    call = client.call()
    client.core.on_reply(A, call.counter, status, payload, client.now)
    error = client.error(call)
    if (status, payload) == (Status.BAD_REQUEST, b"\x01"):
        assert isinstance(error, BadRequest)
        return
    assert isinstance(error, ProtocolError)
    assert error.executed is executed
