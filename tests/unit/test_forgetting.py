"""Sessions that fell silent or ended are forgotten, in small steps; what is still needed is not."""

import pytest
from unit.rigs import KEYS, PARTITIONS, Answer, Handler, key_in

from mesh.core.dedupe import MOST_FORGOTTEN
from mesh.core.forgetting import STEPS_A_TURN
from mesh.core.handling import HandlingConfig
from mesh.core.retention import Retention
from mesh.core.wire import Status

K = KEYS[0]
DAY = 86_400
KEEP = DAY + DAY // 24


@pytest.fixture
def handler(handler):
    handler.warm_up()
    return handler


def deposit(handler: Handler, session: int, counter: int = 1, lowest: int = 1, key: str = K):
    caller = handler.call(
        "Account.deposit", key, 1, session=session, counter=counter, lowest=lowest
    )
    handler.flush()
    return caller


def turns(handler: Handler, count: int = 10) -> None:
    """The timer goes off that many times, one walk apart."""
    for _ in range(count):
        handler.now += 60
        handler.core.on_timer(handler.now)
        handler.flush()


def stored(server, partition: int = 0) -> dict[bytes, int]:
    """How many fields of each kind are in the store."""
    kinds: dict[bytes, int] = {}
    for name in server.partitions.get(partition, ()):
        kinds[name[:1]] = kinds.get(name[:1], 0) + 1
    return kinds


def sessions(handler: Handler, partition: int = 0) -> set[int]:
    return set(handler.core._tenures[partition].log.numbers())


def test_a_session_that_was_silent_for_the_window_leaves_nothing_behind(handler, server):
    for counter in range(1, 41):
        deposit(handler, 5, counter, lowest=counter)
    assert stored(server).keys() == {b"o", b"w", b"s"}
    handler.core.retention.now += KEEP - 1
    turns(handler)
    assert sessions(handler) == {5} and stored(server).keys() == {b"o", b"w", b"s"}
    handler.core.retention.now += 1
    turns(handler)
    assert sessions(handler) == set() and stored(server).keys() == {b"s"}


def test_a_session_that_said_something_meanwhile_is_kept(handler, server):
    deposit(handler, 5)
    handler.core.retention.now += KEEP - 1
    deposit(handler, 5, counter=2)
    handler.core.retention.now += 1
    turns(handler)
    assert stored(server) == {b"o": 2, b"s": 1}
    again = deposit(handler, 5, counter=2)
    assert again.answer == Answer(Status.OK, 2)


def test_the_next_owner_counts_from_when_the_session_was_last_heard(handler, leader, server):
    for counter in range(1, 41):
        deposit(handler, 5, counter, lowest=counter)
    handler.core.retention.now += KEEP
    other = Handler(server, b"h-2")
    other.core.retention.now = handler.core.retention.now
    everything = dict.fromkeys(range(PARTITIONS), other.nonce)
    leader.takeover(everything, enroll=[other.nonce], revoke=[handler.nonce])
    other.core.on_grant(leader.grant(other.nonce), other.now)
    turns(other)
    assert sessions(other) == set(), "what is not known whole is not judged"
    other.warm_up()
    assert sessions(other) == {5}
    turns(other)
    assert stored(server).keys() == {b"s"}


def test_a_session_with_a_call_under_way_is_not_forgotten(handler):
    first = handler.call("Account.deposit", K, 1, session=5, counter=1)
    handler.core.retention.now += 2 * KEEP
    handler.core.on_timer(handler.now + 100)
    second = handler.call("Account.deposit", K, 1, session=5, counter=1)
    handler.flush()
    assert first.answer == second.answer == Answer(Status.OK, 1)


def test_sessions_with_nothing_in_them_are_dropped_from_memory_at_once(handler):
    deposit(handler, 5)
    for counter in range(100):
        handler.call("Account.deposit", K, 1, session=100 + counter, counter=1, deadline_ms=0)
        handler.call("Account.deposit", K, "x", session=200 + counter, counter=1)
        handler.core._tenures[0].log.session(1000 + counter)
    turns(handler)
    assert not any(number >= 1000 for number in sessions(handler)) and 5 in sessions(handler)


def test_the_walk_goes_in_small_steps_and_rests(handler):
    log = handler.core._tenures[0].log
    for number in range(10 * STEPS_A_TURN):
        log.session(number)
    handler.core.on_timer(1000.0)
    left = len(sessions(handler))
    assert 9 * STEPS_A_TURN <= left < 10 * STEPS_A_TURN
    for _ in range(12):
        handler.core.on_timer(1000.1)
    assert not sessions(handler)
    log.session(1)
    handler.core.on_timer(1030.0)
    assert sessions(handler) == {1}, "at rest"
    handler.now = 1030.0
    turns(handler, 2)
    assert not sessions(handler)


def test_a_session_with_very_many_records_is_forgotten_over_several_turns(handler, server):
    for counter in range(1, 3 * MOST_FORGOTTEN):
        handler.call("Account.deposit", K, 1, session=5, counter=counter)
    handler.flush()
    handler.core.retention.now += KEEP
    handler.core.on_timer(1000.0)
    batch = handler.send()
    assert len(batch.entries[0].deleted) <= MOST_FORGOTTEN
    handler.deliver(batch)
    while stored(server).get(b"o"):
        handler.now += 0.02
        handler.core.on_timer(handler.now + 1000)
        handler.flush()
    assert sessions(handler) == set()


def test_a_client_that_says_goodbye_is_forgotten_at_once(handler, server):
    keys = [key_in(partition) for partition in range(PARTITIONS)]
    for counter, key in enumerate(keys * 20, 1):
        deposit(handler, 5, counter, lowest=counter, key=key)
    deposit(handler, 6)
    handler.core.on_goodbye(5)
    handler.core.on_goodbye(99)
    handler.flush()
    assert [stored(server, p).get(b"o", 0) for p in range(PARTITIONS)] == [1, 0, 0, 0]
    assert sessions(handler) == {6} and handler.core.is_idle


def test_a_goodbye_of_a_session_with_a_call_under_way_takes_nothing(handler):
    deposit(handler, 5)
    handler.call("Account.deposit", K, 1, session=5, counter=2)
    handler.core.on_goodbye(5)
    copies = [handler.call("Account.deposit", K, 1, session=5, counter=n) for n in (1, 2)]
    handler.flush()
    assert [copy.answer.value for copy in copies] == [1, 2]


def test_a_partition_that_is_being_given_up_is_left_alone(handler, leader, server):
    deposit(handler, 5)
    handler.core.on_release(leader.release(0))
    handler.core.on_goodbye(5)
    handler.core.retention.now += KEEP
    turns(handler)
    assert stored(server) == {b"o": 1, b"s": 1}


def test_deletions_that_the_store_refuses_end_the_tenure_like_any_commit(handler, leader, server):
    deposit(handler, 5)
    handler.core.on_goodbye(5)
    batch = handler.send()
    leader.takeover({0: b"h-2"}, enroll=[b"h-2"])
    assert handler.deliver(batch)
    assert 0 not in handler.core._tenures and handler.core.is_idle
    assert stored(server) == {b"o": 1, b"s": 1}


def test_memory_and_store_stay_flat_however_many_short_lived_clients_there_were(handler, server):
    for session in range(1, 500):
        for counter in range(1, 4):
            deposit(handler, session, counter, lowest=counter)
        handler.core.on_goodbye(session)
        handler.flush()
        assert sum(stored(server).values()) <= 4 and len(sessions(handler)) <= 1


def test_memory_and_store_stay_flat_however_many_clients_never_said_goodbye(handler, server):
    most = 0
    for session in range(1, 300):
        handler.core.retention.now += KEEP // 10
        deposit(handler, session)
        turns(handler, 1)
        most = max(most, stored(server)[b"o"])
    assert most <= 12 and len(sessions(handler)) <= 12


def test_memory_and_store_stay_flat_over_many_calls_of_one_client(handler, server):
    for counter in range(1, 2000):
        deposit(handler, 5, counter, lowest=counter)
    assert stored(server)[b"o"] <= 33 and stored(server)[b"w"] == 1
    assert handler.core._tenures[0].log.count() == 1


# -------------------------------------------------------------- why no late copy runs


def test_a_request_waits_only_so_long_in_a_queue_whatever_its_deadline(server, leader):
    handler = Handler(server, config=HandlingConfig(window_s=80))
    leader.takeover(dict.fromkeys(range(PARTITIONS), handler.nonce), enroll=[handler.nonce])
    handler.core.on_grant(leader.grant(handler.nonce), handler.now)
    caller = handler.call("Account.deposit", K, 1, deadline_ms=80_000)
    handler.now += 9.9
    handler.core.on_timer(handler.now)
    assert caller.answer is None
    handler.now += 0.2
    handler.core.on_timer(handler.now)
    assert caller.status is Status.EXPIRED
    read = handler.call("Account.read", K)
    handler.flush()
    assert read.answer == Answer(Status.OK, 0)


@pytest.mark.parametrize("window_s", [60.0, 3600.0, 86_400.0])
def test_a_quarter_of_the_window_lies_between_the_last_run_of_a_copy_and_the_end_of_its_record(
    window_s,
):
    retention = Retention(window_s)
    latest = retention.oldest_ms / 1000 + retention.silence_s + retention.queue_ms / 1000
    assert retention.keep_s - latest >= window_s / 4
