"""Whose call is it? Redirect, hold, release, and what ends a tenure."""

import pytest
from unit.rigs import KEYS, PARTITIONS, Handler, row

from mesh.core.handling import HandlingConfig
from mesh.core.messages import Adopted, Release, Released
from mesh.core.wire import Redirect, Status

K = KEYS[0]
HINT_S, RELEASE_S = HandlingConfig().hint_wait_s, HandlingConfig().release_wait_s


@pytest.fixture
def other(server, leader, handler):
    """A second process, enrolled, owning nothing."""
    leader.takeover({}, enroll=[b"h-2"])
    return Handler(server, b"h-2")


def tell(leader, *handlers):
    for one in handlers:
        one.core.on_grant(leader.grant(one.nonce), one.now)


def hand_over(leader, partition, giver, taker):
    """The leader's half of a planned move, once it was released; nobody is told yet."""
    giver.core.on_release(leader.release(partition))
    giver.core.settle(giver.now)
    leader.takeover({partition: taker.nonce})


def redirect_to(leader, partition):
    nonce, epoch = leader.owners[partition]
    r = row(nonce)
    return Redirect(partition, epoch, r.id, nonce, r.host, r.port)


def test_a_call_for_anothers_partition_is_redirected_by_the_table(handler, other, leader):
    hand_over(leader, 0, handler, other)
    other.core.on_table(leader.table(), other.now)
    handler.core.on_table(leader.table(), handler.now)
    caller = handler.call("Account.deposit", K, 1)
    assert caller.status == Status.REDIRECT and caller.answer.value == redirect_to(leader, 0)
    assert handler.core.is_idle and handler.load() == 0, "nothing of it stays"


def test_a_table_gives_nothing(handler, other, leader):
    hand_over(leader, 0, handler, other)
    other.core.on_table(leader.table(), other.now)
    caller = other.call("Account.deposit", K, 1)
    assert caller.answer is None and other.load() == 0
    tell(leader, other)
    other.flush()
    assert caller.status == Status.OK


def test_a_call_waits_for_the_leaders_word_where_the_table_names_this_handler(
    handler, other, leader
):
    """The leader waits for another's lease; sent away the call would come back a hundred times."""
    hand_over(leader, 0, handler, other)
    other.core.on_table(leader.table(), other.now)
    caller = other.call("Account.deposit", K, 1)
    other.now += RELEASE_S - 0.1
    other.core.on_timer(other.now)
    assert caller.answer is None
    tell(leader, other)
    other.flush()
    assert caller.status == Status.OK


def test_an_older_table_is_ignored(handler, other, leader):
    old = leader.table()
    hand_over(leader, 0, handler, other)
    handler.core.on_table(leader.table(), handler.now)
    handler.core.on_table(old, handler.now)
    assert handler.call("Account.deposit", K, 1).status == Status.REDIRECT


def test_a_caller_that_knows_of_a_newer_epoch_is_held_and_no_grant_is_made_of_it(handler, leader):
    """F9(c): the client may hear of a takeover before its new owner does."""
    newer = leader.owners[0][1] + 1
    caller = handler.call("Account.deposit", K, 1, epoch=newer)
    assert caller.answer is None and handler.load() == 0
    handler.now += HINT_S - 0.001
    handler.core.on_timer(handler.now)
    assert caller.answer is None
    handler.now += 0.002
    handler.core.on_timer(handler.now)
    assert caller.status == Status.NOT_READY
    assert handler.core.is_idle


def test_a_held_call_runs_when_the_grant_arrives(handler, other, leader):
    hand_over(leader, 0, handler, other)
    caller = other.call("Account.deposit", K, 1, epoch=leader.owners[0][1])
    tell(leader, other)
    other.flush()
    assert caller.status == Status.OK


def test_a_held_call_of_an_epoch_still_unknown_does_not_keep_the_others_waiting(
    handler, other, leader
):
    hand_over(leader, 0, handler, other)
    newest = other.call("Account.deposit", K, 1, epoch=leader.owners[0][1] + 1)
    usual = other.call("Account.deposit", K, 1)
    tell(leader, other)
    other.flush()
    assert usual.status == Status.OK and newest.answer is None


def test_the_deadline_of_a_held_call_goes_on(handler, other, leader):
    hand_over(leader, 0, handler, other)
    caller = other.call("Account.deposit", K, 1, deadline_ms=80)
    other.now += 0.05
    tell(leader, other)
    other.now += 0.04
    other.flush()
    assert caller.status == Status.EXPIRED


def test_while_it_is_given_up_a_partition_admits_nothing_more_then_redirects(
    handler, other, leader
):
    before = handler.call("Account.deposit", K, 1)
    handler.load()
    batch = handler.send()
    handler.core.on_release(leader.release(0))
    late = handler.call("Account.deposit", K, 2)
    handler.core.settle(handler.now)
    assert handler.messages() == [], "not settled yet"
    handler.deliver(batch)
    assert before.status == Status.OK
    [released] = handler.messages()
    assert released == Released(handler.nonce, leader.token, [(0, leader.owners[0][1])], [])
    assert late.answer is None
    leader.takeover({0: other.nonce})
    handler.core.on_table(leader.table(), handler.now)
    assert late.status == Status.REDIRECT and late.answer.value == redirect_to(leader, 0)


def test_a_partition_is_settled_with_its_queue_empty_too(handler, leader):
    handler.warm_up()
    handler.call("Account.deposit", K, 1)
    first = handler.send()
    handler.call("Account.deposit", K, 1)
    handler.core.on_release(leader.release(0))
    handler.deliver(first)
    assert handler.messages() == []
    handler.deliver(handler.send())
    assert len(handler.messages()) == 1


def test_calls_that_wait_for_a_load_go_with_the_partition(handler, other, leader):
    caller = handler.call("Account.deposit", K, 1)
    hand_over(leader, 0, handler, other)
    handler.core.on_table(leader.table(), handler.now)
    assert caller.status == Status.REDIRECT
    assert handler.load() == 0 and handler.core.is_idle


def test_a_call_waits_for_the_next_owner_only_so_long(handler, leader):
    handler.core.on_release(leader.release(0))
    caller = handler.call("Account.deposit", K, 1)
    handler.core.settle(handler.now)
    handler.now += RELEASE_S + 0.001
    handler.core.on_timer(handler.now)
    assert caller.status == Status.NOT_READY


def test_a_released_epoch_is_never_taken_up_again(handler, leader):
    """M2: the leader's periodic tell crosses the release."""
    handler.core.on_release(leader.release(0))
    handler.core.settle(handler.now)
    tell(leader, handler)
    caller = handler.call("Account.read", K)
    assert caller.answer is None and handler.load() == 0
    leader.takeover({0: handler.nonce})
    tell(leader, handler)
    handler.flush()
    assert caller.status == Status.OK, "under a new epoch it is"


def test_asked_again_for_what_it_released_it_says_so_again(handler, leader):
    ask = leader.release(0)
    handler.core.on_release(ask)
    handler.core.settle(handler.now)
    handler.core.on_release(ask)
    one, two = handler.messages()
    assert one == two


def test_asked_for_an_epoch_it_does_not_hold_it_says_so_and_keeps_what_it_has(handler, leader):
    handler.core.on_release(Release(leader.token, [(0, leader.owners[0][1] + 1)]))
    [said] = handler.messages()
    assert said.partitions == [] and said.not_held == [(0, leader.owners[0][1] + 1)]
    handler.call("Account.deposit", K, 1)
    handler.flush()
    assert handler.call("Account.read", K).status == Status.OK


def test_words_under_a_token_below_the_highest_are_ignored(handler, leader):
    """F9: a deposed leader wakes up and tells what it once decided."""
    grant, release = leader.grant(handler.nonce), leader.release(0)
    newer = grant.__class__(leader.token + 1, *(getattr(grant, f) for f in grant.__slots__[1:]))
    handler.core.on_grant(newer, handler.now)
    handler.messages()
    handler.core.on_release(release)
    handler.core.on_grant(grant, handler.now)
    assert handler.messages() == []
    assert handler.call("Account.deposit", K, 1).status != Status.REDIRECT


def test_an_older_version_of_the_grant_is_ignored(handler, other, leader):
    old = leader.grant(other.nonce)
    hand_over(leader, 0, handler, other)
    tell(leader, other)
    other.core.on_grant(old, other.now)
    caller = other.call("Account.deposit", K, 1)
    other.flush()
    assert caller.status == Status.OK
    assert other.messages() == [Adopted(other.nonce, leader.life, leader.versions[other.nonce])]


def test_anothers_grant_is_ignored(handler, other, leader):
    handler.core.on_grant(leader.grant(other.nonce), handler.now)
    assert handler.core.held_epochs() == leader.grant(handler.nonce).epochs


def test_a_grant_under_a_new_epoch_starts_from_the_store(handler, leader):
    handler.warm_up()
    handler.call("Account.deposit", K, 5)
    handler.flush()
    leader.takeover({0: handler.nonce})
    tell(leader, handler)
    caller = handler.call("Account.read", K)
    assert caller.answer is None
    assert handler.load() == 1 and caller.answer.value == 5


def test_its_own_list_names_what_it_holds(handler, leader):
    assert handler.core.held_epochs() == leader.grant(handler.nonce).epochs
    handler.core.on_release(leader.release(*range(PARTITIONS)))
    handler.core.settle(handler.now)
    assert handler.core.held_epochs() == bytes(4 * PARTITIONS)


def test_a_partition_that_the_mesh_does_not_have_is_a_bad_request(handler):
    assert handler.call("Account.read", K, partition=PARTITIONS).status == Status.BAD_REQUEST
