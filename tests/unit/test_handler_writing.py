"""While the store refuses to write: new commands are refused and told why, everything else goes on."""

import pytest
from unit.rigs import KEYS, Answer, Handler, key_in

import mesh
from mesh.core.outbox import Batch
from mesh.core.wire import Status
from mesh.core.writing import PATIENCE_S
from mesh.entities import Registry

K = KEYS[0]
FULL = "the server is at its memory limit: raise maxmemory"
REFUSED = Answer(Status.OVERLOADED, [f"not executed, nothing can be written: {FULL}", 1.0])


def ok(value):
    return Answer(Status.OK, value)


def refuse(handler: Handler, *, transient: bool = False) -> None:
    handler.core.on_refused(Batch(0, 1, [], []), FULL, handler.now, transient=transient)


@pytest.fixture
def stuck(handler):
    """Both lanes have a batch that the store has refused."""
    handler.warm_up()
    handler.call("Account.deposit", K, 5)
    handler.flush()
    handler.waiting, handler.batches = [], []
    for lane in range(2):
        handler.waiting.append(handler.call("Account.deposit", KEYS[lane], 1))
        handler.batches.append(handler.send(lane))
    refuse(handler)
    return handler


def test_a_new_command_is_refused_with_the_reason_and_was_not_run(stuck):
    before = stuck.core.beat()
    refused = [stuck.call("Account.deposit", key, 100) for key in KEYS]
    assert [caller.answer for caller in refused] == [REFUSED] * len(KEYS)
    assert stuck.core.beat().not_executed - before.not_executed == len(KEYS)
    for batch in stuck.batches:
        assert stuck.deliver(batch)
    assert [c.answer for c in stuck.waiting] == [ok(6), ok(1)]
    assert stuck.call("Account.read", KEYS[2]).answer == ok(0)


def test_what_waits_is_carried_out_once_the_store_writes_and_new_commands_go_on(stuck):
    assert stuck.deliver(stuck.batches[0])
    callers = [stuck.call("Account.deposit", K, 1) for _ in range(2)]
    stuck.flush()
    assert [caller.answer for caller in callers] == [ok(7), ok(8)]


def test_queries_recorded_replies_and_copies_of_calls_under_way_go_on(stuck):
    assert stuck.call("Account.read", K).answer == ok(5)
    assert stuck.call("Account.deposit", K, 5, counter=1).answer == ok(5)
    copy = stuck.call("Account.deposit", K, 1, counter=2)
    assert copy.answer is None
    assert stuck.deliver(stuck.batches[0])
    assert copy.answer == ok(6)


def test_what_memory_does_not_know_is_looked_up_before_it_is_refused(stuck, leader):
    stuck.core.on_grant(leader.grant(stuck.nonce), stuck.now)
    leader.takeover({3: stuck.nonce})
    stuck.core.on_grant(leader.grant(stuck.nonce), stuck.now)
    caller = stuck.call("Account.deposit", KEYS[3], 1)
    assert caller.answer is None
    assert stuck.load()
    assert caller.answer == REFUSED


def test_one_command_goes_through_where_a_lane_is_free_and_its_success_opens_the_gate(handler):
    """A batch that alone is refused must not stop everything else."""
    handler.warm_up()
    handler.call("Account.deposit", K, 5)
    handler.send(0)
    refuse(handler)
    behind = handler.call("Account.deposit", key_in(0, nth=1), 1)
    probe, late = (handler.call("Account.deposit", key, 1) for key in KEYS[1:3])
    assert [behind.answer, probe.answer, late.answer] == [REFUSED, None, REFUSED]
    assert handler.deliver(handler.send(1))
    assert probe.answer == ok(1)
    after = handler.call("Account.deposit", KEYS[2], 1)
    assert handler.deliver(handler.send(1))
    assert after.answer == ok(1)


@mesh.entity
class Slow:
    done: int = 0

    @mesh.command
    async def work(self) -> int:
        self.done += 1
        return self.done


def test_an_async_command_is_not_begun_as_it_would_find_out_only_at_its_end(handler):
    handler.core._calls._registry = Registry([Slow])
    handler.warm_up()
    refuse(handler)
    assert handler.call("Slow.work", K).answer == REFUSED
    assert not handler.core.runs.is_any


def test_what_may_pass_by_itself_is_waited_for_at_first(stuck):
    assert stuck.deliver(stuck.batches[0])
    stuck.call("Account.deposit", K, 1)
    stuck.batches[0] = stuck.send(0)
    refuse(stuck, transient=True)
    waits = stuck.call("Account.deposit", KEYS[2], 1)
    assert waits.answer is None
    stuck.now += PATIENCE_S
    refuse(stuck, transient=True)
    assert stuck.call("Account.deposit", KEYS[2], 1).answer == REFUSED
    assert stuck.deliver(stuck.batches[0])
    stuck.now += PATIENCE_S
    refuse(stuck, transient=True)
    assert stuck.call("Account.deposit", KEYS[2], 1).answer is None, "its time counts anew"


def test_a_short_acknowledgement_is_no_refusal(stuck, server):
    server.pause(server.links[0])
    assert not stuck.deliver(stuck.batches[0])
    assert stuck.call("Account.deposit", KEYS[2], 1).answer is None
