"""Queries and the lease: nothing is answered from memory unless nobody else can serve it by then."""

import msgpack
import pytest
from unit.rigs import KEYS, PARTITIONS, Answer, Caller, Handler, run

import mesh
from mesh.core.lease import LeaseTiming
from mesh.core.records import CommitReply, StoreStatus, Verdict
from mesh.core.wire import Status
from mesh.entities import Registry
from mesh.store.api import RENEWAL_ONLY

K = KEYS[0]
T = LeaseTiming()


def ok(value):
    return Answer(Status.OK, value)


@mesh.entity
class Slow:
    value: int = 0

    @mesh.command
    async def set(self, value: int) -> None:
        self.value = value

    @mesh.query
    async def read_async(self) -> int:
        return self.value

    @mesh.query(blocking=True)
    def read_blocking(self) -> int:
        return self.value

    @mesh.query
    def read(self) -> int:
        return self.value


class Leased(Handler):
    """Its lease is what it makes of it."""

    def __init__(self, server, nonce=b"h-1"):
        super().__init__(server, nonce, leased=False)
        self.core._calls._registry = Registry([Slow])

    def renew(self) -> bool:
        """A renewal for its own sake."""
        renewal = self.core.renew(self.now)
        reply = self.store.commit_at_once(1, self.core.grant, RENEWAL_ONLY, renewal, ())
        self.core.on_renewed(renewal, self.core.grant, reply, self.now)
        return reply.acknowledged

    def carry_out(self) -> int:
        """Runs that have come together, as the shell does it; how many that was."""
        runs = self.core.take_runs(self.now)
        for one in runs:
            work = one.work()()
            result = run(work) if hasattr(work, "send") else work
            self.core.on_ran(one, result, None, self.now)
        return len(runs)


def page_of_keys(owner: Leased) -> Caller:
    payload = msgpack.packb(["KV.~keys", b"", [b"", b"", 10]])
    return owner.call("KV.~keys", K, payload=payload)


@pytest.fixture
def owner(server, leader):
    """The owner of everything, warm, and not leased yet."""
    owner = Leased(server)
    leader.takeover(dict.fromkeys(range(PARTITIONS), owner.nonce), enroll=[owner.nonce])
    owner.core.on_grant(leader.grant(owner.nonce), owner.now)
    owner.core.on_table(leader.table(), owner.now)
    owner.messages()
    owner.warm_up()
    return owner


def test_a_query_waits_for_the_first_lease_and_is_then_answered(owner):
    asked = [owner.call("KV.get", K), owner.call("KV.~exists", K), owner.call("Slow.read", K)]
    assert [caller.answer for caller in asked] == [None] * 3
    assert owner.renew()
    assert [caller.answer for caller in asked] == [ok(None), ok(False), ok(0)]
    assert owner.core.is_idle


def test_a_commit_renews_the_lease_in_passing(owner):
    asked = owner.call("KV.get", K)
    owner.call("KV.put", K, 5)
    owner.flush()
    assert asked.answer == ok(5)


def test_a_lease_that_has_run_out_answers_nothing_and_a_new_one_does(owner):
    assert owner.renew()
    owner.now += T.valid_s
    asked = owner.call("KV.get", K)
    assert asked.answer is None
    assert owner.renew()
    assert asked.answer == ok(None)


def test_the_clock_is_read_after_the_state(owner):
    """A handler that is stopped in the middle of a query, and goes on when others serve the key."""
    assert owner.renew()
    times = iter([owner.now + T.valid_s])

    @mesh.entity
    class Stopped:
        @mesh.query
        def read(self) -> int:
            owner.now = next(times, owner.now)
            return 1

    owner.core._calls._registry = Registry([Stopped])
    asked = owner.call("Stopped.read", K)
    assert asked.answer is None
    assert owner.renew() and asked.answer == ok(1)


@pytest.mark.parametrize("replica", [0, 1])
def test_a_renewal_counts_once_every_replica_has_it(owner, server, replica):
    """F10 (a): the primary that was cut off with one replica takes renewals that nobody will see."""
    server.pause(server.links[replica])
    asked = owner.call("KV.get", K)
    assert not owner.renew()
    assert asked.answer is None
    owner.call("KV.put", K, 5)
    batch = owner.send()
    assert not owner.deliver(batch)
    assert asked.answer is None and not owner.core.home.is_leased()
    server.resume(server.links[replica])
    assert owner.deliver(batch)
    assert asked.answer == ok(5)


def test_what_counts_is_the_send_that_was_acknowledged_and_not_an_earlier_or_later_one(owner):
    owner.call("KV.put", K, 5)
    batch = owner.send()
    first = owner.core.send(batch, owner.now)
    owner.now += T.valid_s / 2
    assert owner.core.send(batch, owner.now) > first, "sent again, with a number of its own"
    reply = CommitReply(StoreStatus.OK, (Verdict.APPLIED,), acknowledged=True)
    assert owner.core.on_commit(batch, reply, owner.now)
    assert owner.core.home.lease.until == owner.now + T.valid_s


def test_a_query_whose_caller_stops_waiting_ends_as_expired(owner):
    asked = owner.call("KV.get", K, deadline_ms=500)
    owner.now += 0.6
    owner.core.on_timer(owner.now)
    reason = "its deadline passed while this handler could not renew its lease"
    assert asked.answer == Answer(Status.EXPIRED, reason)
    late = owner.call("KV.get", K, deadline_ms=500)
    owner.now += 0.6
    assert owner.renew()
    assert late.answer == Answer(Status.EXPIRED, reason)
    assert owner.core.is_idle


def test_commands_and_their_recorded_replies_need_no_lease(owner):
    first = owner.call("KV.put", K, 5)
    owner.flush()
    owner.now += 10 * T.duration_s
    copy = owner.call("KV.put", K, 5, counter=1)
    assert first.answer == copy.answer == ok(None)


def test_calls_that_wait_for_the_lease_go_with_the_partition(owner, leader, server):
    asked = owner.call("KV.get", K)
    owner.core.on_release(leader.release(0))
    assert owner.renew() and asked.answer is None, "it is the next owner's to answer"
    owner.core.settle(owner.now)
    leader.takeover({0: b"h-2"}, enroll=[b"h-2"])
    owner.core.on_table(leader.table(), owner.now)
    assert asked.status is Status.REDIRECT
    assert owner.core.is_idle


def test_a_query_that_waits_is_refused_where_its_partition_is_lost(owner, leader):
    asked = owner.call("KV.get", K)
    leader.takeover({0: b"h-2"}, enroll=[b"h-2"])
    owner.core.on_grant(leader.grant(owner.nonce), owner.now)
    assert asked.status is Status.NOT_READY
    assert owner.core.is_idle


def test_a_query_that_reads_the_acknowledged_image_beside_a_run_needs_the_lease(owner):
    owner.call("Slow.set", K, 7)
    runs = owner.core.take_runs(owner.now)
    asked = owner.call("Slow.read", K)
    assert asked.answer is None
    assert owner.renew()
    assert asked.answer == ok(0)
    owner.core.on_ran(runs[0], run(runs[0].work()()), None, owner.now)
    owner.flush()
    assert owner.call("Slow.read", K).answer == ok(7)


@pytest.mark.parametrize("method", ["read_async", "read_blocking"])
def test_an_async_or_blocking_query_begins_only_under_the_lease(owner, method):
    asked = owner.call(f"Slow.{method}", K)
    assert owner.carry_out() == 0 and asked.answer is None
    assert owner.renew()
    assert owner.carry_out() == 1
    assert asked.answer == ok(0)
    assert owner.core.is_idle and not owner.core.runs.is_any
    assert owner.core.runs._taken == 0, "no thread was lost over it"


def test_what_an_async_query_read_under_the_lease_may_be_told_after_it(owner):
    """Its state was the newest at a moment within the call, which is all that anybody can ask for."""
    assert owner.renew()
    asked = owner.call("Slow.read_async", K)
    [begun] = owner.core.take_runs(owner.now)
    owner.now += T.valid_s
    owner.core.on_ran(begun, run(begun.work()()), None, owner.now)
    assert asked.answer == ok(0)


def test_a_listing_from_memory_needs_the_lease(owner):
    asked = page_of_keys(owner)
    assert asked.answer is None
    assert owner.renew()
    assert asked.status is Status.OK


def test_a_listing_from_the_store_needs_the_lease_when_it_is_told(owner, leader, server):
    leader.takeover({0: owner.nonce})
    owner.core.on_grant(leader.grant(owner.nonce), owner.now)
    asked = page_of_keys(owner)

    def list_once() -> None:
        listing = owner.core.next_listing()
        tenure = listing.pending.tenure
        place = owner.core.grant, tenure.partition, tenure.epoch, listing.cursor
        owner.core.on_listed(listing, run(owner.store.scan(*place)))

    list_once()
    assert asked.answer is None and not owner.core.has_listings
    assert owner.renew()
    list_once()
    assert asked.status is Status.OK
    assert owner.core.is_idle


def test_a_handler_without_a_grant_has_nothing_to_renew(server):
    assert not Leased(server).core.renewal_is_due(1e9)


def test_a_renewal_is_due_with_the_first_grant_and_then_whenever_nothing_was_written(owner):
    assert owner.core.renewal_is_due(owner.now)
    assert owner.renew()
    assert not owner.core.renewal_is_due(owner.now)
    owner.now += T.renew_s
    assert owner.core.renewal_is_due(owner.now)
    owner.call("KV.put", K, 5)
    owner.flush()
    assert not owner.core.renewal_is_due(owner.now)


def test_a_revoked_process_stops_answering_queries_at_once(owner, leader):
    assert owner.renew()
    leader.takeover(dict.fromkeys(range(PARTITIONS), b"h-2"), enroll=[b"h-2"], revoke=[owner.nonce])
    assert owner.call("KV.get", K).answer == ok(None), "it has not heard of it, and its lease holds"
    assert not owner.renew()
    assert owner.core.revoked and not owner.core.renewal_is_due(1e9)
    assert not owner.core.home.is_leased()
    owner.core.on_table(leader.table(), owner.now)
    assert owner.call("KV.get", K).status is Status.NOT_READY


def test_renewal_numbers_on_record_are_the_handlers_own_and_only_grow(owner, server):
    """R1: what the store counted up by itself would repeat once it goes back in time."""
    assert owner.renew()
    owner.call("KV.put", K, 5)
    owner.flush()
    assert owner.renew()
    assert server.grants[owner.nonce].renewal == 3
    server.grants[owner.nonce].renewal = 1
    assert owner.renew()
    assert server.grants[owner.nonce].renewal == 4


def test_a_renewal_takes_no_place_in_the_sequence_of_batches(owner, server):
    owner.call("KV.put", K, 5)
    owner.flush()
    assert owner.renew()
    owner.call("KV.put", K, 6)
    owner.flush()
    assert server.grants[owner.nonce].seqs[:2] == [2, 0]
    # Not even where the store has lost the last batch: that gap is to be found, not filled.
    server.grants[owner.nonce].seqs[0] = 1
    assert owner.renew()
    assert server.grants[owner.nonce].seqs[:2] == [1, 0]
