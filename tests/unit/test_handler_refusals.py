"""What a handler makes of a store that says no: what was not executed, what may have been."""

from dataclasses import replace

import pytest
from unit.rigs import KEYS, Handler

from mesh.core.records import CommitReply, StoreStatus
from mesh.core.wire import Status

K = KEYS[0]


@pytest.fixture
def moved(server, leader, handler):
    """h-1 has a batch ready for partition 0; meanwhile the leader gave that to h-2."""
    handler.warm_up()
    caller = handler.call("Account.deposit", K, 5)
    batch = handler.send()
    leader.takeover({0: b"h-2"}, enroll=[b"h-2"])
    return handler, caller, batch


def test_a_batch_refused_at_its_first_sending_was_not_executed(moved):
    handler, caller, batch = moved
    assert handler.deliver(batch)
    assert caller.status == Status.NOT_READY


def test_a_batch_refused_after_its_connection_broke_may_have_been_executed(moved, server):
    """F3(a)"""
    handler, caller, batch = moved
    server.break_connection(carried_out=False)
    assert not handler.deliver(batch)
    assert handler.deliver(batch)
    assert caller.status == Status.MAYBE


def test_a_batch_refused_after_it_was_written_short_may_have_been_executed(server, leader, handler):
    caller = handler.call("Account.deposit", K, 5)
    handler.load()
    batch = handler.send()
    server.pause(server.links[0])
    assert not handler.deliver(batch)
    server.resume(server.links[0])
    leader.takeover({0: b"h-2"}, enroll=[b"h-2"])
    assert handler.deliver(batch)
    assert caller.status == Status.MAYBE


def test_what_was_queued_behind_a_refused_batch_was_not_executed(moved):
    handler, _, batch = moved
    queued = handler.call("Account.deposit", K, 1)
    handler.deliver(batch)
    assert queued.status == Status.NOT_READY
    assert handler.send() is None and handler.core.is_idle


def test_after_a_refusal_the_partition_is_gone_and_the_others_stay(moved):
    handler, _, batch = moved
    handler.deliver(batch)
    assert handler.call("Account.read", K).answer is None
    assert handler.call("Account.read", KEYS[1]).status == Status.OK


def test_of_a_mixed_batch_each_partition_gets_its_own_verdict(server, leader, handler):
    handler.warm_up()
    lost, kept = (handler.call("Account.deposit", k, 5) for k in KEYS[:2])
    batch = handler.send()
    leader.takeover({0: b"h-2"}, enroll=[b"h-2"])
    handler.deliver(batch)
    assert (lost.status, kept.status) == (Status.NOT_READY, Status.OK)


def test_a_commit_that_was_applied_is_answered_though_the_partition_has_moved_since(
    server, leader, handler
):
    caller = handler.call("Account.deposit", K, 5)
    handler.load()
    batch = handler.send()
    reply = server.commit(0, handler.core.grant, 1, 1, batch.entries)._replace(acknowledged=True)
    leader.takeover({0: b"h-2"}, enroll=[b"h-2"])
    handler.core.on_grant(leader.grant(handler.nonce), handler.now)
    assert caller.answer is None
    handler.core.on_commit(batch, reply, handler.now)
    assert caller.status == Status.OK


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("status", [StoreStatus.REVOKED, StoreStatus.GAP])
def test_a_grant_that_is_over_ends_the_process_and_answers_every_call(handler, status, clean):
    handler.warm_up()
    caller = handler.call("Account.deposit", K, 5)
    batch = handler.send()
    batch.clean = clean
    queued = handler.call("Account.deposit", K, 5)
    loading = handler.call("Account.read", KEYS[1])
    held = handler.call("Account.read", K, epoch=0xFFFFFFFF)
    assert handler.core.on_commit(batch, CommitReply(status), handler.now)
    assert caller.status == (Status.NOT_READY if clean else Status.MAYBE)
    assert queued.status == held.status == Status.NOT_READY and loading.status == Status.OK
    assert handler.core.revoked and handler.core.is_idle
    assert handler.call("Account.read", K).status == Status.NOT_READY


def test_a_revoked_process_takes_up_nothing_ever_again(handler, leader):
    grant = leader.grant(handler.nonce)
    handler.core.on_grant(replace(grant, active=False), handler.now)
    handler.core.on_grant(grant, handler.now)
    assert handler.core.revoked and not any(handler.core.held_epochs())
    assert handler.messages() == []


def test_revocation_is_believed_whatever_version_it_names(handler, leader):
    """R3: it may be of a life that this process never heard of."""
    handler.core.on_grant(
        replace(leader.grant(handler.nonce), active=False, version=0), handler.now
    )
    assert handler.core.revoked


@pytest.mark.parametrize("status", [StoreStatus.CLOSED, StoreStatus.OLDER])
def test_a_store_that_is_closed_or_went_back_takes_nothing_away(handler, server, status):
    """F3(b): this memory may be the only copy."""
    handler.warm_up()
    caller = handler.call("Account.deposit", K, 5)
    batch = handler.send()
    assert not handler.core.on_commit(batch, CommitReply(status), handler.now)
    assert caller.answer is None
    assert handler.deliver(batch), "the very same batch, when the store is itself again"
    assert caller.status == Status.OK and server.grants[b"h-1"].seqs[:2] == [1, 0]


def test_a_batch_of_an_earlier_life_is_not_applied_in_a_later_one(handler, server, leader):
    """M1: granted again in life 3, it re-sends what it had under way in life 1."""
    handler.warm_up()
    caller = handler.call("Account.deposit", K, 5)
    batch = handler.send()
    server.restart()
    leader.open_life()
    assert not handler.deliver(batch), "closed: it keeps everything"
    other = Handler(server, b"h-2")
    leader.takeover(dict.fromkeys(range(4), b"h-2"), enroll=[b"h-2"])
    other.core.on_grant(leader.grant(b"h-2"), other.now)
    other.call("Account.deposit", K, 100)
    other.flush()
    server.restart()
    leader.open_life()
    leader.takeover(dict.fromkeys(range(4), b"h-1"), enroll=[b"h-1"])
    handler.core.on_grant(leader.grant(b"h-1"), handler.now)
    handler.deliver(batch)
    assert caller.status in (Status.MAYBE, Status.NOT_READY)
    read = handler.call("Account.read", K)
    handler.flush()
    assert read.answer.value == 100
