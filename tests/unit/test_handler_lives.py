"""A new life of the store: what a handler keeps of the one before, and what it must not."""

from dataclasses import replace

import pytest
from unit.rigs import KEYS, PARTITIONS, Answer, key_in

from mesh.core.epochs import NOT_HELD
from mesh.core.messages import Dropped
from mesh.core.records import CommitReply, StoreStatus, Verdict
from mesh.core.wire import Status

K, L = KEYS[:2]


def ok(value):
    return Answer(Status.OK, value)


@pytest.fixture
def owner(handler):
    handler.warm_up()
    handler.call("Account.deposit", K, 5)
    handler.call("Account.deposit", L, 7)
    handler.flush()
    return handler


def new_life(server, leader, handler, **moves):
    """The primary is another one; `moves` is what its leader gives to whom before it tells anybody."""
    server.restart()
    leader.open_life()
    if moves:
        leader.takeover(**moves)


def tell(leader, *handlers):
    for one in handlers:
        one.core.on_grant(leader.grant(one.nonce), one.now)


def test_a_partition_named_under_its_epoch_goes_on_with_memory_queue_and_batch(
    owner, server, leader
):
    flying = owner.call("Account.deposit", K, 1)
    batch = owner.send()
    queued = owner.call("Account.deposit", K, 1)
    new_life(server, leader, owner)
    assert not owner.deliver(batch)
    tell(leader, owner)
    assert owner.deliver(batch)
    owner.flush()
    assert (flying.answer, queued.answer) == (ok(6), ok(7))
    assert owner.load() == 0, "nothing had to be read again"
    assert server.grants[owner.nonce].seqs[:2] == [3, 0], "the same batch under the same number"


def test_a_batch_that_the_new_primary_has_is_not_applied_twice(owner, server, leader):
    caller = owner.call("Account.deposit", K, 1)
    batch = owner.send()
    server.break_connection(carried_out=True)
    assert not owner.deliver(batch)
    new_life(server, leader, owner)
    tell(leader, owner)
    assert owner.deliver(batch)
    assert caller.answer == ok(6)


@pytest.mark.parametrize("broke", [False, True])
def test_a_partition_that_was_given_away_is_cut_out_of_the_batch_and_the_rest_goes_on(
    owner, server, leader, broke
):
    """M1: its values are those of an earlier tenure. Whoever has its callers wait hears what is known."""
    gone, stays = owner.call("Account.deposit", K, 1), owner.call("Account.deposit", L, 1)
    batch = owner.send()
    queued = owner.call("Account.deposit", K, 1)
    if broke:
        server.break_connection(carried_out=False)
        assert not owner.deliver(batch)
    new_life(server, leader, owner, moves={0: b"h-2"}, enroll=[b"h-2"])
    assert not owner.deliver(batch)
    tell(leader, owner)
    assert queued.status is Status.NOT_READY, "it was never sent"
    assert owner.deliver(batch)
    assert [(e.epoch == NOT_HELD, bool(e.fields)) for e in batch.entries] == [
        (True, False),
        (False, True),
    ]
    assert gone.status is (Status.MAYBE if broke else Status.NOT_READY)
    assert stays.answer == ok(8)
    assert owner.core.is_idle
    assert not any(isinstance(message, Dropped) for message in owner.messages())


def test_what_was_cut_out_costs_the_partition_nothing_under_its_next_epoch(owner, server, leader):
    """The store's verdict on what was cut out is not about what is held now."""
    owner.call("Account.deposit", K, 1)
    batch = owner.send()
    new_life(server, leader, owner, moves={0: owner.nonce})
    assert not owner.deliver(batch)
    tell(leader, owner)
    assert owner.deliver(batch)
    read = owner.call("Account.read", K)
    owner.flush()
    assert read.answer == ok(5)
    leader.takeover({0: b"h-2"}, enroll=[b"h-2"])
    tell(leader, owner)
    assert owner.core.to_repeat() == []


def test_verdicts_of_a_batch_that_was_cut_are_still_of_the_same_partitions(owner, server, leader):
    """A store that had it before says again which partition it could not write."""
    server.wrong_type.add(1)
    gone, foreign = owner.call("Account.deposit", K, 1), owner.call("Account.deposit", L, 1)
    batch = owner.send()
    server.break_connection(carried_out=True)
    assert not owner.deliver(batch)
    new_life(server, leader, owner, moves={0: owner.nonce})
    tell(leader, owner)
    assert owner.deliver(batch)
    assert (gone.status, foreign.status) == (Status.MAYBE, Status.MAYBE)
    assert not owner.core._tenures.epochs[1], "the one that cannot be written is lost"
    assert owner.core._tenures.epochs[0], "the one that was cut is not"


def test_a_batch_of_which_nothing_is_left_is_sent_all_the_same_to_keep_the_sequence(
    owner, server, leader
):
    owner.call("Account.deposit", K, 1)
    batch = owner.send()
    new_life(server, leader, owner, moves={0: owner.nonce})
    tell(leader, owner)
    assert owner.deliver(batch)
    assert server.grants[owner.nonce].seqs[:2] == [2, 0]
    next_one = owner.call("Account.deposit", L, 1)
    owner.flush()
    assert next_one.answer == ok(8)


@pytest.mark.parametrize("status", [StoreStatus.CLOSED, StoreStatus.OLDER])
def test_what_a_closed_life_refuses_is_kept_until_the_leader_says_what_goes_on(
    owner, server, leader, status
):
    call = owner.call("Account.deposit", K, 1)
    batch = owner.send()
    owner.core.send(batch, owner.now)
    for _ in range(2):
        assert not owner.core.on_commit(batch, CommitReply(status), owner.now)
    assert call.answer is None and owner.messages() == []
    new_life(server, leader, owner)
    tell(leader, owner)
    assert owner.deliver(batch)
    assert call.answer == ok(6)


def test_a_renewal_that_a_closed_life_refuses_is_none(owner, server):
    server.restart()
    renewal = owner.core.renew(owner.now)
    until = owner.core.home.lease.until
    reply = owner.store.commit_at_once(0, owner.core.grant, 0, renewal, ())
    owner.core.on_renewed(renewal, owner.core.grant, reply, owner.now)
    assert reply.status is StoreStatus.CLOSED
    assert owner.core.home.lease.until == until


def test_a_later_life_is_believed_whatever_its_version_and_an_earlier_one_never(
    owner, server, leader
):
    old = leader.grant(owner.nonce)
    new_life(server, leader, owner)
    grant = leader.grant(owner.nonce)
    owner.core.on_grant(replace(grant, version=1), owner.now)
    assert (owner.core.grant.life, owner.core.grant.version) == (2, 1)
    owner.core.on_grant(replace(old, token=grant.token, version=99), owner.now)
    assert owner.core.grant.life == 2


def test_words_of_a_leader_below_the_highest_token_are_refused(owner, leader):
    """F9: whoever was deposed and does not know it."""
    assert owner.core.hears(leader.token + 1)
    assert not owner.core.hears(leader.token)
    leader.takeover({0: b"h-2"}, enroll=[b"h-2"])
    tell(leader, owner)
    owner.core.on_release(leader.release(1))
    owner.core.settle(owner.now)
    assert owner.messages() == []
    assert owner.core.held_epochs()[:8] != bytes(8)
    assert not owner.core.revoked


def test_the_highest_set_version_under_which_something_was_acknowledged_is_known(owner):
    """It tells which node has all of it, after a failover (R2)."""
    assert owner.core.set_version == 1
    owner.call("Account.deposit", K, 1)
    batch = owner.send()
    owner.core.send(batch, owner.now)
    short = CommitReply(StoreStatus.OK, (Verdict.APPLIED,), set_version=5)
    assert not owner.core.on_commit(batch, short, owner.now)
    assert owner.core.set_version == 1, "nobody was told of anything under that one"
    owner.core.send(batch, owner.now)
    assert owner.core.on_commit(batch, short._replace(acknowledged=True, set_version=4), owner.now)
    assert owner.core.set_version == 4
    owner.call("Account.deposit", K, 1)
    batch = owner.send()
    owner.core.send(batch, owner.now)
    assert owner.core.on_commit(batch, short._replace(acknowledged=True, set_version=3), owner.now)
    assert owner.core.set_version == 4


def test_a_process_that_was_revoked_over_a_life_ends_when_it_hears_of_it(owner, server, leader):
    """R3: told by the leader, since it would wait for ever on a life that is over."""
    caller = owner.call("Account.deposit", K, 1)
    batch = owner.send()
    everything = dict.fromkeys(range(PARTITIONS), b"h-2")
    new_life(server, leader, owner, moves=everything, enroll=[b"h-2"], revoke=[owner.nonce])
    assert not owner.deliver(batch)
    tell(leader, owner)
    assert owner.core.revoked
    assert owner.call("Account.read", K).status is Status.NOT_READY
    assert caller.answer is None, "its process ends, and the end of its connection is its answer"


def test_two_lanes_go_on_each_with_its_own_batch(owner, server, leader):
    one, two = owner.call("Account.deposit", K, 1), owner.call("Account.deposit", L, 1)
    batches = [owner.send(0)]
    owner.call("Account.deposit", KEYS[2], 1)
    batches.append(owner.send(1))
    new_life(server, leader, owner)
    assert not any(owner.deliver(batch) for batch in batches)
    tell(leader, owner)
    assert all(owner.deliver(batch) for batch in reversed(batches))
    assert (one.answer, two.answer) == (ok(6), ok(8))


def test_what_a_leader_had_asked_for_is_kept_when_another_one_leads_before_it_is_settled(
    owner, leader
):
    """It would be released to somebody whom nobody listens to, and nobody serve it from then on."""
    flying = owner.call("Account.deposit", K, 1)
    batch = owner.send()
    owner.core.on_release(leader.release(0))
    late = owner.call("Account.deposit", K, 1)
    assert not owner.core.on_leading(leader.token - 1, owner.now)
    owner.core.settle(owner.now)
    assert late.answer is None
    assert owner.core.on_leading(leader.token + 1, owner.now)
    assert owner.deliver(batch)
    owner.core.settle(owner.now)
    owner.flush()
    assert (flying.answer, late.answer) == (ok(6), ok(7))
    assert owner.messages() == []


def test_calls_whose_key_was_read_while_it_was_to_be_released_go_on_when_it_is_kept(
    handler, leader
):
    busy = handler.call("Account.deposit", KEYS[0], 1)
    handler.load()
    batch = handler.send()
    reading = handler.call("Account.read", key_in(0, nth=1))
    handler.core.on_release(leader.release(0))
    handler.load()
    assert reading.answer is None
    assert handler.core.on_leading(leader.token + 1, handler.now)
    assert reading.answer == ok(0)
    assert handler.deliver(batch) and busy.status is Status.OK
    assert handler.core.is_idle


def test_what_was_released_stays_released_whoever_leads(owner, leader):
    """M2"""
    owner.core.on_release(leader.release(0))
    owner.core.settle(owner.now)
    [released] = owner.messages()
    owner.core.on_leading(leader.token + 1, owner.now)
    assert owner.call("Account.read", K).answer is None
    owner.core.on_release(replace(leader.release(0), token=leader.token + 1))
    assert owner.messages() == [replace(released, token=leader.token + 1)]
