"""Where a client sends a call, and when it sends it again: same id, one connection at a time."""

import pytest
from unit.client_rig import A, B, C, Client, epoch

from mesh.core.call import Call
from mesh.core.calling import DEFAULT_PRIORITY
from mesh.core.wire import Status


def test_a_call_goes_to_the_owner_with_the_epoch_that_the_client_knows(client):
    client.call(1, timeout_s=2.5)
    nonce, request = client.last()
    assert nonce == B
    assert (request.session, request.counter, request.partition) == (7, 1, 1)
    assert (request.epoch, request.deadline_ms, request.age_ms, request.attempt) == (
        epoch(1),
        2500,
        0,
        0,
    )


def test_without_a_table_a_call_waits_for_one():
    client = Client()
    call = client.call()
    client.up(A)
    assert client.sent == []
    client.table((A, 1))
    assert client.where() == [A] and client.result(call) is None


def test_a_call_waits_for_the_connection_to_its_owner():
    client = Client()
    client.table((A, 1))
    client.call()
    assert client.sent == [] and A in client.connecting
    client.up(A)
    assert client.where() == [A]


def test_a_broken_connection_sends_the_call_again_under_the_same_id(client):
    call = client.call()
    client.now += 0.25
    client.down(A)
    assert len(client.sent) == 1
    client.up(A)
    (_, first), (_, second) = client.sent
    assert (second.session, second.counter) == (first.session, first.counter)
    assert (second.attempt, second.age_ms, second.deadline_ms) == (1, 250, 9750)
    client.reply(call, Status.OK, 5)
    assert client.result(call).error is None


def test_a_call_in_flight_follows_the_table_once_its_handler_has_left_it(client):
    client.call()
    client.table((B, 2), (B, 1))
    assert client.where() == [A, B] and client.disconnected == [A]


def test_a_call_in_flight_stays_where_it_is_while_its_handler_lives(client):
    """It may be running there; the handler itself says when it is not the owner."""
    client.call()
    client.table((B, 2), (B, 1), handlers=(A,))
    assert client.where() == [A]


def test_a_redirect_is_followed_and_learned(client):
    call = client.call()
    client.redirect(call, B, 2)
    assert client.where() == [A, B] and client.last()[1].epoch == epoch(2)
    client.call()
    assert client.where() == [A, B, B]


def test_a_redirect_to_a_process_in_no_table_is_dialled(client):
    call = client.call()
    client.redirect(call, C, 2)
    assert client.connecting[C].port and client.where() == [A]
    client.up(C)
    assert client.where() == [A, C]


def test_a_newer_table_replaces_what_a_redirect_taught_and_an_older_one_does_not(client):
    call = client.call()
    client.redirect(call, C, 2)
    client.table((A, 1), (B, 2))
    client.up(C)
    assert client.where() == [A, C], "the table's epoch for this partition is the old one"
    client.table((B, 3), (B, 2))
    assert client.where() == [A, C, B] and C in client.disconnected


def test_an_older_table_is_ignored(client):
    old = client.core.table
    client.table((B, 2), (B, 1))
    client.core.on_table(old, client.now)
    client.call()
    assert client.where() == [B]


def test_two_handlers_that_name_each_other_make_no_loop(client):
    call = client.call()
    client.redirect(call, B, 2)
    sent = len(client.sent)
    client.redirect(call, A, 1)
    client.redirect(call, A, 1, nonce=B)
    assert len(client.sent) == sent, "older than what it knows: it waits"
    client.later(0.05)
    assert client.last()[0] == B


def test_a_handler_that_is_not_ready_is_asked_again_ever_more_slowly(client):
    call = client.call()
    gaps = []
    for _ in range(8):
        client.reply(call, Status.NOT_READY, "soon")
        sent, before = len(client.sent), client.now
        client.now = client.core.next_timer()
        client.core.on_timer(client.now)
        assert len(client.sent) == sent + 1
        gaps.append(client.now - before)
    assert gaps == sorted(gaps) and gaps[-1] == pytest.approx(0.05)


def test_while_it_waits_a_call_is_sent_once_whatever_happens(client):
    call = client.call()
    client.reply(call, Status.NOT_READY, "soon")
    client.down(A)
    client.up(A)
    client.later(0.01)
    assert client.where() == [A, A]


def test_each_request_carries_the_lowest_counter_that_is_not_settled(client):
    first, second = client.call(), client.call()
    assert client.last()[1].lowest == 1
    client.reply(second, Status.OK)
    client.call()
    assert client.last()[1].lowest == 1
    client.reply(first, Status.OK)
    client.call()
    assert client.last()[1].lowest == 3


def test_a_call_that_takes_long_holds_up_the_forgetting_of_its_own_partition_only(client):
    client.call(0)
    for _ in range(3):
        other = client.call(1)
        assert client.last()[1].lowest == other.counter
        client.reply(other, Status.OK)
    assert client.call(0).counter == 5 and client.last()[1].lowest == 1


def test_a_request_bears_its_priority(client):
    client.call()
    assert client.last()[1].priority == DEFAULT_PRIORITY
    client.call(priority=255)
    assert client.last()[1].priority == 255


def test_a_resent_call_carries_the_lowest_counter_of_now(client):
    first, second = client.call(), client.call()
    client.reply(first, Status.OK)
    client.down(A)
    client.up(A)
    assert client.last()[1].counter == second.counter == client.last()[1].lowest


def test_a_refusal_that_comes_late_does_not_disturb_the_attempt_under_way(client):
    """The same chunk of bytes may bring the table that drops a handler, and that handler's replies."""
    call = client.call()
    client.table((B, 2), (B, 1))
    for status in (Status.NOT_READY, Status.OVERLOADED, Status.EXPIRED, Status.BAD_REQUEST):
        client.reply(call, status, "late", nonce=A)
    client.redirect(call, C, 9, nonce=A)
    assert client.result(call) is None and client.where() == [A, B] and call.conn == B


def test_a_late_success_counts(client):
    call = client.call()
    client.table((B, 2), (B, 1))
    client.reply(call, Status.OK, 5, nonce=A)
    assert client.result(call).error is None
    client.down(B)
    client.up(B)
    assert client.where() == [A, B], "nothing is sent for it any more"


def test_replies_of_calls_that_have_ended_are_ignored(client):
    call = client.call()
    client.reply(call, Status.OK, 5)
    client.core.on_reply(A, call.counter, Status.OK, b"\xc0", client.now)
    client.core.on_reply(A, 999, Status.OVERLOADED, b"\xc0", client.now)
    assert client.result(call).error is None


def test_a_call_ended_from_within_anothers_end_is_not_sent(client):
    """A caller may give up its other calls when one has ended."""
    client.down(A)
    others: list[Call] = []
    poison = client.core.call(
        0, b"", 1.0, client.now, lambda _: [client.core.cancel(other) for other in others]
    )
    poison.suspects = frozenset({C, b"h-4"})
    others.append(client.call())
    client.up(A)
    assert client.sent == [] and list(client.core.calls()) == []


def test_a_process_whose_redirect_was_replaced_is_parted_from(client):
    call = client.call()
    client.redirect(call, C, 2)
    assert client.connecting[C]
    client.up(C)
    client.redirect(call, b"h-4", 3)
    assert client.disconnected == [C]
    client.up(b"h-4")
    assert call.conn == b"h-4"


def test_a_process_that_another_redirect_or_the_table_names_is_kept(client):
    one, two = client.call(0), client.call(1)
    client.redirect(one, C, 2)
    client.redirect(two, C, 2)
    client.up(C)
    client.redirect(one, B, 3)
    assert client.disconnected == []
    client.redirect(two, A, 3)
    assert client.disconnected == [C]
    again = client.call(0)
    client.redirect(again, A, 4)
    assert client.disconnected == [C], "the table names it"
