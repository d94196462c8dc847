"""Calls under a caller's key at a handler: once for all who call with it, kept for the window, capped."""

from collections.abc import Iterable
from typing import Any

import msgpack
import pytest
from unit.rigs import KEYS, PARTITIONS, Answer, Caller, Handler

from mesh.codec import PLAIN_CODEC
from mesh.core.callerkeys import CallerKeys, caller_digest, caller_field, is_same_call
from mesh.core.handling import HandlingConfig
from mesh.core.outcomes import Outcome, Seen
from mesh.core.payload import Meta, pack_call
from mesh.core.retention import Retention
from mesh.core.wire import Status

K, L = KEYS[0], KEYS[1]
DAY = 86_400
KEEP = DAY + DAY // 24


def call(
    handler: Handler,
    key: str | None,
    method: str = "Account.deposit",
    args: Iterable[Any] = (5,),
    *,
    of: str = K,
    meta: Meta | None = None,
    **header: Any,
) -> Caller:
    """A call under that key; each from a client session of its own unless the header says otherwise."""
    meta = meta or Meta(key or "")
    payload = pack_call(PLAIN_CODEC, method, of.encode(), list(args), {}, meta.encode())
    header = {"session": 1000 + handler.counter, **header}
    return handler.call(method, of, payload=payload, **header)


def ask(handler: Handler, key: str, method: str = "Account.deposit", of: str = K) -> Caller:
    return call(handler, key, method, (), of=of, meta=Meta(key, asks=True))


def balance(handler: Handler, of: str = K) -> Any:
    caller = handler.call("Account.read", of)
    handler.flush()
    assert caller.answer is not None
    return caller.answer.value


def successor(handler: Handler, leader: Any, server: Any, config: HandlingConfig | None = None):
    """Another process that takes everything over; nothing of the first one's memory is in it."""
    other = Handler(server, b"h-2", config)
    other.now = handler.now
    other.core.retention.now = handler.core.retention.now
    leader.takeover(
        dict.fromkeys(range(PARTITIONS), other.nonce), enroll=[other.nonce], revoke=[handler.nonce]
    )
    other.core.on_grant(leader.grant(other.nonce), other.now)
    return other


# ----------------------------------------------------------------------- one effect


def test_a_second_call_with_the_key_gets_the_first_ones_reply_from_whatever_client(handler):
    first = call(handler, "order-17", session=1)
    handler.flush()
    second = call(handler, "order-17", session=2, counter=77)
    handler.flush()
    assert first.answer == second.answer == Answer(Status.OK, 5)
    assert balance(handler) == 5


def test_without_a_key_or_under_another_key_entity_or_key_it_is_another_call(handler):
    for key, of in [("a", K), ("b", K), (None, K), (None, K), ("a", L)]:
        call(handler, key, of=of)
    call(handler, "a", "KV.put", (1,))
    handler.flush()
    assert (balance(handler), balance(handler, L)) == (20, 5)


def test_racing_duplicates_of_other_clients_join_the_first_each_under_its_own_number(handler):
    handler.warm_up()
    frames: list[bytes] = []
    callers = [call(handler, "a", session=s, counter=s) for s in (1, 2, 3)]
    for caller in callers:
        caller.send = frames.append
    handler.flush()
    assert sorted(msgpack.unpackb(f[17:]) for f in frames) == [5, 5, 5]
    assert sorted(int.from_bytes(f[8:16], "big") for f in frames) == [1, 2, 3]
    assert balance(handler) == 5


def test_duplicates_that_wait_for_the_same_read_run_once(handler):
    callers = [call(handler, "a") for _ in range(3)]
    handler.flush()
    assert [c.answer for c in callers] == [Answer(Status.OK, 5)] * 3
    assert balance(handler) == 5


def test_errors_replay(handler):
    first = call(handler, "a", "Account.withdraw", (7,))
    handler.flush()
    call(handler, None, "Account.deposit", (100,))
    again = call(handler, "a", "Account.withdraw", (7,))
    handler.flush()
    assert first.status is Status.ENTITY_ERROR and again.answer == first.answer
    assert balance(handler) == 100


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("method", "args"), [("Account.deposit", (6,)), ("Account.withdraw", (5,))]
)
def test_the_key_with_other_arguments_or_another_method_is_a_conflict(
    handler, finished, method, args
):
    handler.warm_up()
    call(handler, "a")
    if finished:
        handler.flush()
    other = call(handler, "a", method, args)
    handler.flush()
    assert other.status is Status.CONFLICT
    assert balance(handler) == 5


def test_other_metadata_is_no_other_call(handler):
    call(handler, "a", meta=Meta("a", metadata={"trace": "1"}))
    again = call(handler, "a", meta=Meta("a", metadata={"trace": "2"}))
    handler.flush()
    assert again.answer == Answer(Status.OK, 5) and balance(handler) == 5


def test_the_record_is_in_the_commit_of_the_state(handler, server):
    handler.warm_up()
    call(handler, "a")
    [entry] = handler.send().entries
    assert sorted(name[:1] for name in entry.fields) == [b"c", b"s"], "and no record of the session"


def test_what_was_not_committed_is_new_again(handler, leader, server):
    handler.warm_up()
    call(handler, "a")
    handler.send()  # and never delivered
    other = successor(handler, leader, server)
    retry = call(other, "a")
    other.flush()
    assert retry.answer == Answer(Status.OK, 5) and balance(other) == 5


@pytest.mark.parametrize("warm", [True, False])
def test_the_next_owner_knows_the_key_before_and_after_it_has_read_everything(
    handler, leader, server, warm
):
    call(handler, "a")
    handler.flush()
    other = successor(handler, leader, server)
    if warm:
        other.warm_up()
    retry, conflict = call(other, "a"), call(other, "a", args=(6,))
    other.flush()
    assert retry.answer == Answer(Status.OK, 5) and conflict.status is Status.CONFLICT
    assert balance(other) == 5


def test_a_query_under_a_key_is_a_query(handler):
    call(handler, "a", "Account.read", ())
    handler.flush()
    again = call(handler, "a", "Account.read", ())
    handler.flush()
    assert again.answer == Answer(Status.OK, 0)
    assert not handler.core._tenures[0].log.callers.records


# ------------------------------------------------------------------------ the window


def test_a_record_is_kept_for_the_window_and_not_much_longer(handler, server):
    call(handler, "a")
    handler.flush()
    handler.warm_up()
    handler.core.retention.now += DAY
    handler.core.on_timer(handler.now + 100)
    again = call(handler, "a")
    handler.flush()
    assert again.answer == Answer(Status.OK, 5) and balance(handler) == 5
    handler.core.retention.now += DAY // 24
    handler.core.on_timer(handler.now + 200)
    handler.flush()
    assert not [name for name in server.partitions[0] if name[:1] == b"c"], "by itself"
    call(handler, "a")
    handler.flush()
    assert balance(handler) == 10


def test_expired_records_leave_with_later_calls_of_that_kind(handler, server):
    handler.warm_up()
    for number in range(5):
        call(handler, f"old-{number}")
    handler.flush()
    handler.core.retention.now += KEEP
    call(handler, "new")
    [entry] = handler.send().entries
    assert len(entry.deleted) == 5 and all(name[:1] == b"c" for name in entry.deleted)


def test_a_record_that_is_due_to_be_deleted_is_not_deleted_by_the_call_that_writes_it_anew(
    handler, server
):
    handler.warm_up()
    call(handler, "a")
    handler.flush()
    handler.core.retention.now += KEEP
    handler.core._tenures[0].log.callers.expire(10)
    call(handler, "a")
    handler.flush()
    assert len([name for name in server.partitions[0] if name[:1] == b"c"]) == 1
    assert balance(handler) == 10


def test_the_next_owner_counts_from_when_the_record_was_written(handler, leader, server):
    call(handler, "a")
    handler.flush()
    handler.core.retention.now += KEEP - 1
    other = successor(handler, leader, server)
    other.warm_up()
    again = call(other, "a")
    other.flush()
    assert again.answer == Answer(Status.OK, 5) and balance(other) == 5
    other.core.retention.now += 1
    other.core.on_timer(other.now + 100)
    other.flush()
    assert not [name for name in server.partitions[0] if name[:1] == b"c"]


def test_a_record_from_the_future_is_kept_no_longer_than_one_of_now():
    keys = CallerKeys(Retention(now=1_000_000))
    name = caller_field("E", b"k", "a")
    blob, _ = CallerKeys(Retention(now=2_000_000)).call(name).write(1, Outcome(b"d" * 12, 0, b""))
    keys.adopt(name, blob[name])
    keys._retention.now += KEEP
    assert keys.forget() == [name]


# --------------------------------------------------------------------------- the cap


@pytest.fixture
def small(server, leader):
    """A handler with room for a few hundred bytes of records a partition."""
    handler = Handler(server, config=HandlingConfig(caller_bytes=800))
    leader.takeover(dict.fromkeys(range(PARTITIONS), handler.nonce), enroll=[handler.nonce])
    handler.core.on_grant(leader.grant(handler.nonce), handler.now)
    handler.warm_up()
    return handler


def fill(handler: Handler, of: str = K) -> int:
    for number in range(100):
        caller = call(handler, f"filler-{number}", of=of)
        handler.flush()
        if caller.status is not Status.OK:
            return number
    raise AssertionError("it is never full")


def test_a_full_partition_refuses_further_keys_and_says_until_when_and_others_go_on(small):
    known = fill(small)
    before = balance(small)
    small.core.retention.now += 1000
    refused, without, elsewhere = call(small, "new"), call(small, None), call(small, "new", of=L)
    known_one = call(small, "filler-0")
    small.flush()
    assert refused.status is Status.OVERLOADED
    assert refused.answer.value[1] == KEEP - 1000, "when the oldest record goes"
    assert without.status is elsewhere.status is known_one.status is Status.OK
    assert balance(small) == before + 5 and known >= 2


def test_room_is_made_by_time(small):
    fill(small)
    small.core.retention.now += KEEP
    small.core.on_timer(small.now + 100)
    caller = call(small, "new")
    small.flush()
    assert caller.status is Status.OK


def test_calls_under_way_count_and_give_their_room_back_when_they_come_to_nothing(small):
    callers = [call(small, f"a{n}") for n in range(20)]
    refused = [c for c in callers if c.status is Status.OVERLOADED]
    assert 10 < len(refused) < 20
    assert refused[0].answer.value[1] == pytest.approx(0.1), "soon: nothing is recorded yet"
    keys = small.core._tenures[0].log.callers
    small.core._ownership.drop(0)
    assert keys.used_bytes == 0 and not keys.running


def test_what_the_next_owner_reads_counts(small, leader, server):
    fill(small)
    other = successor(small, leader, server, HandlingConfig(caller_bytes=800))
    other.warm_up()
    refused = call(other, "new")
    other.flush()
    assert refused.status is Status.OVERLOADED


# ------------------------------------------------------------------ asked for the outcome


def test_a_recorded_call_is_told_as_it_ended(handler):
    call(handler, "a")
    call(handler, "b", "Account.withdraw", (9,))
    handler.flush()
    good, bad = ask(handler, "a"), ask(handler, "b", "Account.withdraw")
    handler.flush()
    assert good.answer == Answer(Status.OK, 5) and bad.status is Status.ENTITY_ERROR
    assert balance(handler) == 5


def test_a_call_under_way_is_waited_for(handler):
    handler.warm_up()
    call(handler, "a")
    asked = ask(handler, "a")
    assert asked.answer is None
    handler.flush()
    assert asked.answer == Answer(Status.OK, 5)


def test_what_never_ran_is_ruled_out_for_good_and_for_every_owner(handler, leader, server):
    asked = ask(handler, "a")
    assert asked.answer is None, "not before it is acknowledged"
    handler.flush()
    assert asked.status is Status.RULED_OUT
    for owner in (handler, successor(handler, leader, server)):
        late, again = call(owner, "a"), ask(owner, "a")
        other = call(owner, "a", "Account.withdraw", (1,))
        owner.flush()
        assert late.status is again.status is Status.RULED_OUT
        assert other.status is Status.CONFLICT
        assert balance(owner) == 0


def test_a_copy_that_arrives_while_it_is_being_ruled_out_does_not_run(handler):
    handler.warm_up()
    asked, late = ask(handler, "a"), call(handler, "a")
    handler.flush()
    assert asked.status is late.status is Status.RULED_OUT and balance(handler) == 0


def test_ruling_out_that_was_not_committed_leaves_the_call_new(handler, leader, server):
    handler.warm_up()
    ask(handler, "a")
    handler.send()
    other = successor(handler, leader, server)
    late = call(other, "a")
    other.flush()
    assert late.answer == Answer(Status.OK, 5)


def test_asking_for_another_method_is_a_conflict(handler):
    call(handler, "a")
    handler.flush()
    assert ask(handler, "a", "Account.withdraw").status is Status.CONFLICT


def test_asking_changes_no_state_and_waits_for_no_commit_of_the_state(handler, server):
    call(handler, None)
    handler.flush()
    before = dict(server.partitions[0])
    ask(handler, "a")
    handler.flush()
    assert [n[:1] for n in server.partitions[0].keys() - before.keys()] == [b"c"]
    assert all(server.partitions[0][name] == value for name, value in before.items())


def test_nothing_is_recorded_of_a_query_so_nobody_can_ask(handler):
    asked = ask(handler, "a", "Account.read")
    handler.flush()
    assert asked.status is Status.BAD_REQUEST


def test_no_room_for_ruling_out_is_told_as_such(small):
    fill(small)
    asked = ask(small, "never-called")
    small.flush()
    assert asked.status is Status.OVERLOADED


# ----------------------------------------------------------------------- names, bytes


def test_names_of_records_do_not_run_together():
    names = {
        caller_field(*parts)
        for parts in [("ab", b"c", "d"), ("a", b"bc", "d"), ("a", b"b", "cd"), ("ab", b"cd", "")]
    }
    assert len(names) == 4 and {len(name) for name in names} == {17}


def test_a_question_is_the_same_call_as_any_with_its_method():
    deposit, other = caller_digest("deposit", b"12345678"), caller_digest("deposit", b"x" * 8)
    asks = caller_digest("deposit", bytes(8))
    assert is_same_call(asks, deposit) and is_same_call(deposit, asks) and is_same_call(asks, asks)
    assert not is_same_call(deposit, other)
    assert not is_same_call(caller_digest("read", bytes(8)), deposit)


@pytest.mark.parametrize(
    ("name", "blob"),
    [
        (b"c" + b"n" * 15, b"\0" * 40),
        (b"c" + b"n" * 17, b"\0" * 40),
        (b"c" + b"n" * 16, b"\0" * 16),
    ],
)
def test_what_is_no_record_is_refused(name, blob):
    with pytest.raises(ValueError, match="not a record under a caller's key"):
        CallerKeys(Retention()).adopt(name, blob)


def test_what_memory_knows_is_newer_than_what_the_store_says():
    keys = CallerKeys(Retention())
    name = caller_field("E", b"k", "a")
    done = Outcome(b"d" * 12, 0, b"reply")
    blob, _ = keys.call(name).write(1, done)
    keys.call(name).start(1, done)
    keys.adopt(name, blob[name])
    assert keys.call(name).check(1, b"d" * 12)[0] is Seen.RUNNING
    keys.call(name).finish(1, done)
    used = keys.used_bytes
    keys.adopt(name, blob[name])
    assert keys.used_bytes == used and keys.call(name).check(2, b"d" * 12) == (Seen.RECORDED, done)
