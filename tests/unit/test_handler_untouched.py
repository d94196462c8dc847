"""A partition that was granted and that nobody has asked for yet is held like any other."""

import pytest
from unit.rigs import KEYS, PARTITIONS, Handler

from mesh.core.epochs import NOT_HELD, pack_epochs
from mesh.core.messages import Dropped, Released
from mesh.core.wire import Status


@pytest.fixture
def other(server, leader, handler):
    """A second process, enrolled, owning nothing."""
    leader.takeover({}, enroll=[b"h-2"])
    return Handler(server, b"h-2")


@pytest.fixture
def seen(handler):
    """What is told of the handler's partitions from now on."""
    told = []
    handler.core.on_tenure = lambda *what: told.append(what)
    return told


def tell(leader, *handlers):
    for one in handlers:
        one.core.on_grant(leader.grant(one.nonce), one.now)


def in_memory(handler):
    return sorted(handler.core._tenures.in_memory)


def test_a_grant_makes_nothing_in_memory_and_a_call_only_what_it_is_for(handler):
    assert in_memory(handler) == []
    handler.call("Account.deposit", KEYS[2], 1)
    assert in_memory(handler) == [2]
    handler.flush()
    assert handler.call("Account.read", KEYS[2]).answer.value == 1


def test_it_is_on_the_handlers_own_list(handler, leader):
    assert handler.core.held_epochs() == leader.grant(handler.nonce).epochs
    assert len(handler.core._tenures) == PARTITIONS and in_memory(handler) == []
    assert f"{PARTITIONS} partitions" in repr(handler.core)


def test_it_is_released_under_its_epoch(handler, leader, seen):
    epoch = leader.owners[1][1]
    handler.core.on_release(leader.release(1))
    handler.core.settle(handler.now)
    assert handler.messages() == [Released(handler.nonce, leader.token, [(1, epoch)], [])]
    assert seen == [("released", 1, epoch)]
    assert handler.core.held_epochs()[4:8] == bytes(4) and in_memory(handler) == []
    tell(leader, handler)
    assert handler.core.held_epochs()[4:8] == bytes(4), "M2: never taken up again"


def test_one_of_another_epoch_is_not_released(handler, leader):
    release = leader.release(1)
    leader.takeover({1: handler.nonce})
    tell(leader, handler)
    handler.messages()
    handler.core.on_release(release)
    handler.core.settle(handler.now)
    [said] = handler.messages()
    assert (said.partitions, said.not_held) == ([], release.partitions)


def test_a_grant_that_names_it_no_more_ends_it(handler, other, leader, seen):
    epoch = leader.owners[1][1]
    leader.takeover({1: other.nonce})
    tell(leader, handler)
    assert seen == [("lost", 1, epoch)]
    assert handler.core.held_epochs() == leader.grant(handler.nonce).epochs


def test_a_new_epoch_ends_the_old_one_first(handler, leader, seen):
    old = leader.owners[1][1]
    leader.takeover({1: handler.nonce})
    tell(leader, handler)
    assert seen == [("lost", 1, old), ("adopted", 1, leader.owners[1][1])]
    handler.call("Account.deposit", KEYS[1], 1)
    handler.flush()
    assert handler.call("Account.read", KEYS[1]).answer.value == 1, "written under the new epoch"


def test_a_grant_that_says_the_same_again_is_told_of_once(handler, leader, seen):
    tell(leader, handler)
    leader.takeover({1: handler.nonce})
    tell(leader, handler)
    tell(leader, handler)
    assert [what[:2] for what in seen] == [("lost", 1), ("adopted", 1)]


def test_a_call_that_knows_a_newer_owner_is_redirected(handler, other, leader):
    leader.takeover({1: other.nonce})
    handler.core.on_table(leader.table(), handler.now)
    caller = handler.call("Account.read", KEYS[1], epoch=leader.owners[1][1])
    assert caller.status == Status.REDIRECT
    assert in_memory(handler) == [1], "only looked at: it is held until the grant says otherwise"


def test_a_call_that_is_held_for_it_runs_once_it_is_granted(handler, other, leader):
    caller = other.call("Account.deposit", KEYS[1], 1)
    handler.core.on_release(leader.release(1))
    handler.core.settle(handler.now)
    leader.takeover({1: other.nonce})
    assert caller.answer is None and in_memory(other) == []
    tell(leader, other)
    other.flush()
    assert caller.status == Status.OK


def test_when_the_grant_ends_it_ends(handler, leader, seen):
    handler.call("Account.deposit", KEYS[0], 1)
    leader.takeover({}, revoke=[handler.nonce])
    tell(leader, handler)
    assert sorted(what[:2] for what in seen) == [("lost", p) for p in range(PARTITIONS)]
    assert handler.core.held_epochs() == bytes(4 * PARTITIONS)
    assert handler.call("Account.read", KEYS[1]).status == Status.NOT_READY


def test_one_that_was_lost_is_told_and_not_taken_up_from_the_same_grant(handler, other, leader):
    epoch = leader.owners[1][1]
    leader.takeover({1: other.nonce})
    caller = handler.call("Account.deposit", KEYS[1], 1)
    handler.load()
    assert caller.status == Status.NOT_READY, "the store says that it is not held"
    assert Dropped(handler.nonce, [(1, epoch)]) in handler.messages()
    assert handler.core.to_repeat() == [Dropped(handler.nonce, [(1, epoch)])]
    tell(leader, handler)
    assert handler.core.to_repeat() == []
    assert handler.core.held_epochs() == leader.grant(handler.nonce).epochs


def test_a_lost_one_is_held_again_under_the_epoch_that_follows(handler, leader):
    again = leader.grant(handler.nonce)
    handler.core._ownership.lose(1)
    handler.core.on_grant(again, handler.now)
    assert handler.core.held_epochs()[4:8] == bytes(4)
    leader.takeover({1: handler.nonce})
    tell(leader, handler)
    assert handler.core.held_epochs() == leader.grant(handler.nonce).epochs
    assert handler.core.to_repeat() == []


def test_it_counts_no_keys_until_it_is_read_ahead(handler, leader):
    handler.call("Account.deposit", KEYS[1], 1)
    handler.flush()
    assert handler.core.beat().keys == 1
    leader.takeover({1: handler.nonce})
    tell(leader, handler)
    assert handler.core.beat().keys == 0
    handler.warm_up()
    assert handler.core.beat().keys == 1 and in_memory(handler) == list(range(PARTITIONS))


def test_each_one_is_swept_once_in_the_order_of_its_coming(handler, leader):
    leader.takeover({1: handler.nonce})
    tell(leader, handler)
    assert [t.partition for t in handler.core.next_sweep()] == [0, 1, 2, 3]
    assert handler.core.next_sweep() == []


def test_what_is_given_up_or_gone_is_not_read_ahead(handler, other, leader):
    handler.core.on_release(leader.release(0))
    leader.takeover({1: other.nonce})
    tell(leader, handler)
    assert [t.partition for t in handler.core.next_sweep()] == [2, 3]
    handler.warm_up()
    assert not handler.core._tenures[0].warm and 1 not in handler.core._tenures


def test_who_holds_nothing_has_an_empty_list(other):
    assert other.core.held_epochs() == pack_epochs([NOT_HELD] * PARTITIONS)
    with pytest.raises(KeyError, match="partition 0 is not held"):
        other.core._tenures[0]
