"""What a short in-sync set has acknowledged is kept, and sent again to a primary that lacks it (F11)."""

from dataclasses import replace

import pytest
from unit.history_rig import SHORT, complete, copied, owner_of_all, promote, tell
from unit.rigs import KEYS, PARTITIONS, Account, Answer, Handler

import mesh
from mesh.core.handling_config import HandlingConfig
from mesh.core.messages import Missing, Released
from mesh.core.wire import Status
from mesh.core.writing import PATIENCE_S

K, L = KEYS[:2]


def ok(value):
    return Answer(Status.OK, value)


@pytest.fixture
def owner(leader):
    return owner_of_all(leader)


def deposit(owner, key, amount, lane=0):
    """Acknowledged; the answer."""
    caller = owner.call("Account.deposit", key, amount)
    assert owner.deliver(owner.send(lane))
    return caller.answer


def is_lost(owner, leader, behind):
    """Whether it has to give up, and says so, when that copy is promoted."""
    promote(leader, behind)
    tell(leader, owner)
    owner.messages()
    assert owner.deliver(owner.core.next_first(0))
    if not owner.core.revoked:
        return False
    assert owner.messages() == [Missing(owner.nonce, leader.life, PARTITIONS)]
    return True


def stored(leader, *keys):
    """What a process reads that takes everything over."""
    heir = Handler(leader.server, b"h-2", SHORT)
    moves = dict.fromkeys(range(PARTITIONS), heir.nonce)
    leader.takeover(moves, enroll=[heir.nonce], revoke=[b"h-1"])
    tell(leader, heir)
    heir.warm_up()
    return [heir.call("Account.read", key).answer.value for key in keys]


def test_what_only_lost_nodes_had_is_sent_again_and_there_for_whoever_comes_next(owner, leader):
    deposit(owner, K, 1)
    behind = copied(leader.server)
    deposit(owner, K, 2)
    deposit(owner, L, 3)
    deposit(owner, K, 4)
    promote(leader, behind)
    tell(leader, owner)
    assert owner.core.is_behind
    assert owner.catch_up() == [(0, 2), (0, 3), (0, 4)]
    assert owner.core.resent == 3
    assert deposit(owner, K, 1) == ok(8)
    assert stored(leader, K, L) == [8, 3]


def test_a_call_that_only_lost_nodes_had_a_record_of_is_not_carried_out_again(owner, leader):
    behind = copied(leader.server)
    deposit(owner, K, 2)
    promote(leader, behind)
    tell(leader, owner)
    owner.catch_up()
    assert stored(leader, K) == [2]
    heir = Handler(leader.server, b"h-3", SHORT)
    leader.takeover(dict.fromkeys(range(PARTITIONS), b"h-3"), enroll=[b"h-3"], revoke=[b"h-2"])
    tell(leader, heir)
    heir.warm_up()
    assert heir.call("Account.deposit", K, 2, counter=1).answer == ok(2)
    assert heir.call("Account.read", K).answer == ok(2)


def test_a_primary_that_has_everything_is_asked_and_sent_nothing(owner, leader):
    deposit(owner, K, 1)
    deposit(owner, L, 1, lane=1)
    promote(leader, copied(leader.server))
    tell(leader, owner)
    assert owner.core.comes_first
    assert owner.catch_up() == []
    assert (owner.core.resent, owner.core.is_behind) == (0, False)


def test_a_complete_set_leaves_nothing_to_be_kept(leader):
    owner = owner_of_all(leader, replace(SHORT, replicas=2))
    behind = copied(leader.server)
    deposit(owner, K, 1)
    assert is_lost(owner, leader, behind)


@pytest.mark.parametrize("by", ["a batch", "a renewal"])
def test_what_is_kept_is_over_once_a_complete_set_has_acknowledged_something(owner, leader, by):
    behind = copied(leader.server)
    deposit(owner, K, 1)
    complete(leader)
    if by == "a batch":
        deposit(owner, K, 1)
    else:
        renewal, grant = owner.core.renew(owner.now), owner.core.grant
        reply = owner.store.commit_at_once(0, grant, 0, renewal, ())
        owner.core.on_renewed(renewal, grant, reply, owner.now)
    assert is_lost(owner, leader, behind)


def test_it_is_kept_until_the_larger_set_has_acknowledged_something(owner, leader):
    behind = copied(leader.server)
    deposit(owner, K, 1)
    complete(leader)
    promote(leader, behind)
    tell(leader, owner)
    assert owner.catch_up() == [(0, 1)]


def test_it_is_kept_over_lives_for_as_long_as_the_set_is_short(owner, leader):
    behind = copied(leader.server)
    for life in range(1, 4):
        deposit(owner, K, 1)
        promote(leader, behind)
        tell(leader, owner)
        assert owner.catch_up() == [(0, seq) for seq in range(1, life + 1)]
    assert stored(leader, K) == [3]


def test_two_lanes_are_sent_in_the_order_in_which_they_were_acknowledged(owner, leader):
    """Each lane alone in its own order would reverse what the partition had."""
    behind = copied(leader.server)
    for amount, lane in ((1, 0), (2, 1), (4, 1), (8, 0)):
        deposit(owner, K, amount, lane)
    promote(leader, behind)
    tell(leader, owner)
    assert owner.catch_up() == [(0, 1), (1, 1), (1, 2), (0, 2)]
    assert stored(leader, K) == [15]


def test_while_it_is_sent_nothing_is_read_and_nothing_released(owner, leader):
    behind = copied(leader.server)
    deposit(owner, K, 1)
    promote(leader, behind)
    tell(leader, owner)
    owner.messages()
    leader.enrolled[b"h-2"] = None
    owner.core.on_release(leader.release(0))
    owner.core.settle(owner.now)
    assert not [m for m in owner.messages() if isinstance(m, Released)]
    owner.catch_up()
    owner.core.settle(owner.now)
    assert [m for m in owner.messages() if isinstance(m, Released)]


def test_a_key_that_is_not_in_memory_is_read_once_it_is_there_again(leader):
    owner = owner_of_all(leader, replace(SHORT, cache_bytes=1))
    behind = copied(leader.server)
    deposit(owner, K, 7)
    deposit(owner, L, 1)  # and K is evicted
    promote(leader, behind)
    tell(leader, owner)
    reader = owner.call("Account.read", K)
    assert (owner.core.has_wants, owner.load(), reader.answer) == (False, 0, None)
    owner.catch_up()
    assert owner.core.has_wants
    owner.load()
    assert reader.answer == ok(7)


def test_a_batch_that_was_on_its_way_waits_until_what_came_before_it_is_there(owner, leader):
    behind = copied(leader.server)
    deposit(owner, K, 1, lane=1)
    caller = owner.call("Account.deposit", K, 2)
    flying = owner.send(0)
    assert not owner.core.waits(flying)
    promote(leader, behind)
    tell(leader, owner)
    assert owner.core.waits(flying)
    assert owner.catch_up() == [(1, 1), (0, 1)]
    assert caller.answer == ok(3)
    assert stored(leader, K) == [3]


def test_a_store_that_has_refused_to_say_what_it_has_takes_new_commands_once_it_does(owner, leader):
    deposit(owner, K, 1)
    promote(leader, copied(leader.server))
    tell(leader, owner)
    asked = owner.core.next_first(0)
    waiting = owner.call("Account.deposit", L, 1)
    for _ in range(2):
        owner.core.on_refused(asked, "too few replicas follow", owner.now, transient=True)
        owner.now += PATIENCE_S
    assert owner.call("Account.deposit", K, 1).status is Status.OVERLOADED
    assert owner.deliver(asked)
    taken = owner.call("Account.deposit", K, 1)
    owner.flush()
    assert (waiting.answer, taken.answer) == (ok(1), ok(2))


def test_another_life_in_the_middle_begins_it_anew(owner, leader):
    behind = copied(leader.server)
    deposit(owner, K, 1)
    deposit(owner, K, 2)
    promote(leader, behind)
    tell(leader, owner)
    assert owner.deliver(owner.core.next_first(0)), "the last number"
    half = owner.core.next_first(0)
    promote(leader, behind)
    tell(leader, owner)
    assert owner.core.waits(half), "it is of the life that is over"
    assert owner.catch_up() == [(0, 1), (0, 2)]


def test_the_last_word_of_a_primary_that_was_left_is_not_taken_for_an_acknowledgement(
    owner, leader
):
    behind = copied(leader.server)
    caller = owner.call("Account.deposit", K, 1)
    batch = owner.send()
    renewal = owner.core.send(batch, owner.now)
    reply = owner.store.commit_at_once(0, owner.core.grant, 1, renewal, batch.entries)
    promote(leader, behind)
    tell(leader, owner)
    assert not owner.core.on_commit(batch, reply, owner.now)
    assert caller.answer is None
    assert owner.deliver(batch)
    assert caller.answer == ok(1)
    assert stored(leader, K) == [1]


def test_what_went_to_another_meanwhile_is_refused_by_its_epoch_and_the_rest_is_there(
    owner, leader
):
    """M1: the values are those of an earlier tenure. The number of the batch is used up all the same."""
    behind = copied(leader.server)
    owner.call("Account.deposit", K, 1)
    owner.call("Account.deposit", L, 1)
    assert owner.deliver(owner.send())
    promote(leader, behind)
    leader.takeover({0: b"h-2"}, enroll=[b"h-2"])
    tell(leader, owner)
    assert owner.catch_up() == [(0, 1)]
    assert deposit(owner, L, 1) == ok(2)
    assert leader.server.partitions.get(0, {}) == {}


def test_what_its_owner_had_given_up_since_is_written_where_nobody_has_it_yet(owner, leader):
    """The node that was left behind knows nothing of that: there the owner still holds it."""
    behind, owners = copied(leader.server), dict(leader.owners)
    deposit(owner, K, 3)
    owner.core.on_release(leader.release(0))
    owner.core.settle(owner.now)
    leader.takeover({0: b"h-2"}, enroll=[b"h-2"])
    tell(leader, owner)
    leader.enrolled, leader.owners = {b"h-1": None}, owners
    promote(leader, behind)
    tell(leader, owner)
    assert owner.deliver(owner.core.next_first(0))
    again = owner.core.next_first(0)
    leader.server.break_connection(carried_out=False)
    assert not owner.deliver(again)
    leader.takeover({1: b"h-3"}, enroll=[b"h-3"])
    tell(leader, owner)
    assert owner.deliver(again), "whatever its grant says of others meanwhile"
    assert stored(leader, K) == [3]


def test_a_number_that_is_missing_and_was_not_kept_ends_the_grant(leader):
    owner = owner_of_all(leader, replace(SHORT, replicas=2))
    behind = copied(leader.server)
    deposit(owner, K, 1)
    leader.server.links.pop()
    promote(leader, copied(leader.server))
    tell(leader, owner)
    deposit(owner, K, 1)
    assert is_lost(owner, leader, behind)
    assert not owner.core.comes_first


def test_without_a_limit_of_bytes_nothing_is_kept(leader):
    owner = owner_of_all(leader, replace(SHORT, history_bytes=0))
    behind = copied(leader.server)
    deposit(owner, K, 1)
    assert is_lost(owner, leader, behind)


# -------------------------------------------------------------------------------------- when it is full


@pytest.fixture
def full(leader):
    """There is no room for a second batch, and one is on its way."""
    owner = owner_of_all(leader, replace(SHORT, history_bytes=1))
    deposit(owner, K, 1)
    owner.waiting = owner.call("Account.deposit", K, 2)
    owner.batch = owner.send()
    assert not owner.deliver(owner.batch)
    return owner


def test_full_nothing_is_acknowledged_until_the_set_is_complete(full, leader):
    assert full.waiting.answer is None
    assert not full.deliver(full.batch)
    complete(leader)
    assert full.deliver(full.batch)
    assert full.waiting.answer == ok(3)
    assert stored(leader, K) == [3]


def test_full_the_lease_is_renewed_all_the_same(leader):
    owner = owner_of_all(leader, replace(SHORT, history_bytes=1), leased=False)
    deposit(owner, K, 1)
    owner.now += 5.0
    assert not owner.core.home.is_leased()
    owner.call("Account.deposit", K, 2)
    assert not owner.deliver(owner.send())
    assert owner.call("Account.read", K).answer == ok(1), "what is acknowledged"


def test_full_new_commands_are_refused_after_a_while_and_are_told_why(full, leader):
    patient = full.call("Account.deposit", K, 4)
    full.now += PATIENCE_S
    assert not full.deliver(full.batch)
    full.call("Account.deposit", L, 1)
    full.send(1)
    refused = full.call("Account.deposit", K, 4)
    assert refused.status is Status.OVERLOADED
    assert "history_bytes" in str(refused.answer)
    complete(leader)
    assert full.deliver(full.batch)
    full.flush()
    assert patient.answer == ok(7)


def test_what_is_kept_takes_little_more_than_its_bytes(leader):
    """Else the limit would say nothing of the memory that it is about."""
    owner = owner_of_all(leader)
    for _ in range(100):
        deposit(owner, K, 1)
    history = owner.core._history
    assert len(history) == 100
    assert 100 * 160 < history.size < 100 * 400


# ---------------------------------------------------------------------------------------- other classes


@mesh.entity(durability="async")
class Note:
    text: str = ""

    @mesh.command
    def write(self, text: str) -> None:
        self.text = text


def test_async_writes_are_not_kept_and_keep_nothing_else_from_being_sent_again(leader):
    """The partition goes on without its memory, which reads what was sent again."""
    owner = owner_of_all(leader, entities=(Account, Note))
    behind = copied(leader.server)
    owner.call("Note.write", K, "gone")
    assert owner.deliver(owner.send(3))
    deposit(owner, K, 5)
    promote(leader, behind)
    tell(leader, owner)
    assert owner.catch_up() == [(0, 1)]
    reader = owner.call("Account.read", K)
    owner.load()
    assert reader.answer == ok(5)


def test_what_a_store_lacks_that_was_said_to_keep_everything_is_told_before_anything_else(leader):
    """F19: it has gone back, behind an address that stays the same. Nobody need write to find out."""
    owner = owner_of_all(leader, HandlingConfig())
    behind = copied(leader.server)
    deposit(owner, K, 1, lane=1)
    promote(leader, behind)
    tell(leader, owner)
    owner.messages()
    assert owner.core.next_first(0) is None, "nothing was acknowledged there"
    assert owner.deliver(owner.core.next_first(1))
    assert owner.core.revoked
    assert owner.messages() == [Missing(owner.nonce, leader.life, PARTITIONS)]


def test_a_gap_outside_of_a_new_life_ends_the_grant_as_ever(owner, leader):
    deposit(owner, K, 1)
    owner.call("Account.deposit", K, 1)
    batch = owner.send()
    batch.seq += 1
    owner.messages()
    assert owner.deliver(batch)
    assert owner.core.revoked
    assert owner.messages() == [Missing(owner.nonce, leader.life, PARTITIONS)]
