"""A handler's answers: after the acknowledgement, exactly once, never of what is not acknowledged."""

import msgpack
import pytest
from unit.rigs import KEYS, Answer

import mesh
from mesh.core.wire import Status
from mesh.entities import Registry

K = KEYS[0]


def ok(value):
    return Answer(Status.OK, value)


def test_a_command_is_answered_once_its_commit_is_acknowledged(handler):
    caller = handler.call("Account.deposit", K, 5)
    handler.load()
    batch = handler.send()
    assert caller.answer is None
    assert handler.deliver(batch)
    assert caller.answer == ok(5)
    assert handler.core.is_idle


def test_a_short_acknowledgement_answers_nobody_until_every_member_has_it(handler, server):
    server.pause(server.links[0])
    caller = handler.call("Account.deposit", K, 5)
    handler.load()
    batch = handler.send()
    assert not handler.deliver(batch) and not handler.deliver(batch)
    assert caller.answer is None
    server.resume(server.links[0])
    assert handler.deliver(batch)
    assert caller.answer == ok(5)
    assert handler.call("Account.read", K).answer == ok(5), "repeated, not applied again"


def test_queries_show_acknowledged_state_only(handler):
    handler.warm_up()
    handler.call("Account.deposit", K, 5)
    first = handler.send()
    handler.call("Account.deposit", K, 2)
    assert handler.call("Account.read", K).answer == ok(0)
    handler.deliver(first)
    assert handler.call("Account.read", K).answer == ok(5)
    handler.flush()
    assert handler.call("Account.read", K).answer == ok(7)


def test_commands_on_one_key_see_each_other_before_the_commit_and_answer_in_order(handler):
    callers = [handler.call("Account.deposit", K, 1) for _ in range(3)]
    handler.flush()
    assert [c.answer for c in callers] == [ok(1), ok(2), ok(3)]


def test_a_command_that_raises_leaves_the_state_as_it_was_changes_in_place_included(
    handler, server
):
    handler.call("Account.deposit", K, 5)
    handler.flush()
    before = dict(server.partitions[0])
    caller = handler.call("Account.withdraw", K, 9)
    handler.flush()
    error = Answer(Status.ENTITY_ERROR, ["ValueError", "('not covered', -4)", ["not covered", -4]])
    assert caller.answer == error
    assert handler.call("Account.read", K).answer == ok(5)
    new = server.partitions[0].items() - before.items()
    assert [name[:1] for name, _ in new] == [b"o"], "nothing but its outcome was written"


def test_an_error_is_told_after_its_outcome_is_acknowledged_and_a_retry_gets_the_same(handler):
    caller = handler.call("Account.withdraw", K, 9, counter=50)
    handler.load()
    batch = handler.send()
    assert caller.answer is None
    handler.deliver(batch)
    handler.call("Account.deposit", K, 100)
    handler.flush()
    retry = handler.call("Account.withdraw", K, 9, counter=50)
    assert caller.answer == retry.answer
    assert handler.call("Account.read", K).answer == ok(100)


def test_a_no_op_is_committed_too_so_that_its_answer_is_no_deposed_owners(handler):
    """F8(c)"""
    caller = handler.call("KV.cas", K, "a", "b")
    handler.load()
    batch = handler.send()
    assert caller.answer is None and batch is not None
    handler.deliver(batch)
    assert caller.answer == ok(False)


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit()])
def test_a_method_that_tries_to_end_the_process_is_an_error_like_any_other(handler, error):
    def withdraw(self, amount):
        self.balance -= amount
        raise error

    _, method = handler.core._calls._registry.find("Account.withdraw")
    function, method.function = method.function, withdraw
    try:
        caller = handler.call("Account.withdraw", K, 1)
        handler.flush()
    finally:
        method.function = function
    assert caller.status == Status.ENTITY_ERROR and caller.answer.value[0] == type(error).__name__
    assert handler.call("Account.read", K).answer == ok(0)


def test_a_query_that_writes_is_an_error_and_changes_nothing(handler):
    handler.call("Account.deposit", K, 5)
    handler.flush()
    for _ in range(2):
        caller = handler.call("Account.peek_and_poke", K)
        assert caller.status == Status.ENTITY_ERROR
        assert "make it a @mesh.command" in caller.answer.value[1]
    assert handler.call("Account.read", K).answer == ok(5)


def test_a_query_that_writes_to_the_acknowledged_image_is_refused_too(handler):
    handler.warm_up()
    handler.call("Account.deposit", K, 5)
    handler.flush()
    handler.call("Account.deposit", K, 1)
    assert handler.call("Account.peek_and_poke", K).status == Status.ENTITY_ERROR
    assert handler.call("Account.read", K).answer == ok(5)
    handler.flush()
    assert handler.call("Account.read", K).answer == ok(6)


def test_a_duplicate_of_a_running_call_attaches_to_it(handler):
    first = handler.call("Account.deposit", K, 5, counter=50)
    handler.load()
    second = handler.call("Account.deposit", K, 5, counter=50)
    handler.flush()
    assert first.answer == second.answer == ok(5)


def test_a_duplicate_that_waits_for_the_same_load_runs_once(handler):
    callers = [handler.call("Account.deposit", K, 5, counter=50) for _ in range(2)]
    handler.flush()
    assert [c.answer for c in callers] == [ok(5), ok(5)]


def test_a_retry_of_a_finished_call_gets_the_recorded_reply_and_runs_nothing(handler):
    handler.call("Account.deposit", K, 5, counter=50)
    handler.flush()
    handler.call("Account.deposit", K, 1)
    handler.flush()
    assert handler.call("Account.deposit", K, 5, counter=50).answer == ok(5)
    assert handler.call("Account.read", K).answer == ok(6)


@pytest.mark.parametrize("finished", [True, False])
def test_the_same_id_with_other_arguments_is_a_conflict(handler, finished):
    handler.call("Account.deposit", K, 5, counter=50)
    handler.flush() if finished else handler.load()
    assert handler.call("Account.deposit", K, 6, counter=50).status == Status.CONFLICT
    handler.flush()
    assert handler.call("Account.read", K).answer == ok(5)


def test_an_id_below_the_lowest_unsettled_never_runs(handler):
    handler.call("Account.deposit", K, 5, counter=50, lowest=50)
    handler.flush()
    late = handler.call("Account.deposit", K, 5, counter=49, lowest=1)
    assert late.status == Status.UNKNOWN
    assert handler.call("Account.read", K).answer == ok(5)


def test_records_below_the_lowest_unsettled_leave_the_store_with_a_watermark(handler, server):
    for counter in range(1, 40):
        handler.call("Account.deposit", K, 1, counter=counter)
        handler.flush()
    handler.call("Account.deposit", K, 1, counter=40, lowest=40)
    handler.flush()
    kinds = [name[:1] for name in server.partitions[0]]
    assert sorted(kinds) == [b"o", b"s", b"w"]


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"\xc1", "cannot be decoded"),
        (msgpack.packb("x"), "a request is"),
        (msgpack.packb([1, K.encode(), []]), "a request is"),
        (msgpack.packb(["Account.deposit", K.encode(), 5]), "a request is"),
        (msgpack.packb(["Account.deposit", K.encode(), [], {}, 1]), "a request is"),
        (msgpack.packb(["Account.deposit", K, [1]]), "a key is 1 to 512 bytes"),
        (msgpack.packb(["Account.deposit", b"k" * 513, [1]]), "a key is 1 to 512 bytes"),
        (msgpack.packb(["Account.deposit", b"", [1]]), "a key is 1 to 512 bytes"),
        (msgpack.packb(["Account.deposit", KEYS[1].encode(), [1]]), "does not belong to partition"),
        (msgpack.packb(["Account.close", K.encode(), []]), "has no method 'close'"),
        (msgpack.packb(["Account.deposit", K.encode(), []]), "missing a required argument"),
    ],
)
def test_a_bad_request_is_refused_and_runs_nothing(handler, payload, says):
    caller = handler.call("Account.deposit", K, 5, payload=payload)
    assert caller.status == Status.BAD_REQUEST and says in caller.answer.value
    assert handler.core.is_idle and handler.load() == 0


def test_the_counts_add_up(handler):
    for amount in (5, 6, 7):
        handler.call("Account.deposit", K, amount)
    handler.flush()
    handler.call("Account.withdraw", K, 99)
    handler.flush()
    handler.call("Account.read", K)
    handler.call("Account.nonsense", K)
    handler.call("Account.deposit", K, 1, counter=90, lowest=91)
    beat = handler.core.beat()
    assert (beat.done, beat.entity_errors, beat.not_executed, beat.unknown) == (4, 1, 1, 0)


class OneWay:
    """What can be written and not read."""


def refuse(parts):
    raise LookupError(parts)


@mesh.entity(codecs=[mesh.TypeCodec(OneWay, encode=lambda _: 1, decode=refuse)])
class Odd:
    runs: int = 0

    @mesh.command
    def one_way(self) -> list:
        self.runs += 1
        return [OneWay()]

    @mesh.query
    def read_one_way(self) -> OneWay:
        return OneWay()

    @mesh.command
    def by_number(self) -> dict:
        return {1: "a", b"b": ["c"], (1, 2): {3}}


@pytest.mark.parametrize("method", ["Odd.one_way", "Odd.read_one_way"])
def test_a_result_that_its_caller_could_not_decode_is_an_error_before_it_is_committed(
    handler, server, method
):
    handler.core._calls._registry = Registry([Odd])
    caller = handler.call(method, K)
    handler.flush()
    assert caller.status is Status.ENTITY_ERROR
    assert "could not decode" in caller.answer.value[1]
    assert all(not name.startswith(b"s") for name in server.partitions.get(0, ())), "as it was"


def test_a_map_with_other_keys_than_text_is_a_result(handler):
    handler.core._calls._registry = Registry([Odd])
    caller = handler.call("Odd.by_number", K)
    handler.flush()
    assert caller.answer == ok({1: "a", b"b": ["c"], (1, 2): {3}})
