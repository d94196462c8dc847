"""Async and blocking methods, as the core sees them: asked of the shell, on a copy, holding their key."""

import asyncio

import pytest
from unit.rigs import KEYS, PARTITIONS, Answer, Handler, Leader, key_in

import mesh
from mesh.core.handling import HandlingConfig
from mesh.core.messages import Released
from mesh.core.wire import Status
from mesh.entities import Registry
from mesh.store.memory import MemoryServer

K = KEYS[0]
SAME_PARTITION = key_in(0, nth=1)


def ok(value):
    return Answer(Status.OK, value)


@mesh.entity
class Box:
    items: list[str] = []  # noqa: RUF012 - defaults are copied for each key

    @mesh.command
    async def put(self, item: str) -> int:
        self.items.append(item)
        return len(self.items)

    @mesh.command(blocking=True)
    def press(self, item: str) -> int:
        self.items.append(item)
        return len(self.items)

    @mesh.command(limit_s=2.5)
    async def put_quickly(self, item: str) -> None:
        self.items.append(item)

    @mesh.command
    def add(self, item: str) -> int:
        self.items.append(item)
        return len(self.items)

    @mesh.query
    def read(self) -> list[str]:
        return self.items

    @mesh.query
    async def look(self) -> list[str]:
        return self.items

    @mesh.query(blocking=True)
    def meddle(self) -> None:
        self.items.append("by a query")


class Runs(Handler):
    """A handler whose runs are carried out by hand."""

    def __init__(self, server, nonce=b"h-1", **config):
        super().__init__(server, nonce, HandlingConfig(**config))
        self.core._calls._registry = Registry([Box])

    def due(self):
        """What the shell is asked to carry out; copies of state are made here."""
        return self.core.take_runs(self.now)

    def carry_out(self, run):
        """Run it to its end, on this thread."""
        result, error = None, None
        try:
            result = run.work()()
            if asyncio.iscoroutine(result):
                result.send(None)
        except StopIteration as stop:
            result = stop.value
        except Exception as raised:  # noqa: BLE001 - whatever the method raises
            error = raised
        self.came_back(run, result, error)

    def came_back(self, run, result=None, error=None):
        self.core.on_ran(run, result, error, self.now)

    def flush(self):
        while True:
            super().flush()
            if not (runs := self.due()):
                return
            for run in runs:
                self.carry_out(run)

    def wait(self, seconds):
        """Time passes, and the shell's timer with it."""
        self.now += seconds
        self.core.on_timer(self.now)


@pytest.fixture
def server():
    return MemoryServer(2)


@pytest.fixture
def leader(server):
    leader = Leader(server)
    leader.open_life()
    return leader


def owner(server, leader, **config):
    handler = Runs(server, **config)
    leader.takeover(dict.fromkeys(range(PARTITIONS), handler.nonce), enroll=[handler.nonce])
    handler.core.on_grant(leader.grant(handler.nonce), handler.now)
    handler.warm_up()
    return handler


@pytest.fixture
def box(server, leader):
    return owner(server, leader)


@pytest.mark.parametrize("method", ["Box.put", "Box.press"])
def test_a_run_is_answered_once_its_commit_is_acknowledged(box, method):
    caller = box.call(method, K, "a")
    assert not box.core.has_queued and caller.answer is None
    [run] = box.due()
    box.carry_out(run)
    batch = box.send()
    assert caller.answer is None
    assert box.deliver(batch)
    assert caller.answer == ok(1)
    assert box.call("Box.read", K).answer == ok(["a"])
    assert box.core.is_idle


def test_commands_on_its_key_wait_in_order_and_other_keys_go_on(box):
    first = box.call("Box.put", K, "first")
    waiting = [box.call("Box.add", K, "second"), box.call("Box.put", K, "third")]
    other = box.call("Box.add", SAME_PARTITION, "x")
    [run] = box.due()
    Handler.flush(box)
    assert other.answer == ok(1)
    assert [c.answer for c in (first, *waiting)] == [None] * 3
    box.carry_out(run)
    box.flush()
    assert [c.answer for c in (first, *waiting)] == [ok(1), ok(2), ok(3)]
    assert box.call("Box.read", K).answer == ok(["first", "second", "third"])


def test_queries_see_the_acknowledged_state_while_a_run_is_half_done(box):
    box.call("Box.add", K, "before")
    box.flush()
    box.call("Box.put", K, "half")
    [run] = box.due()
    run.instance.items.append("half")
    assert box.call("Box.read", K).answer == ok(["before"])
    look = box.call("Box.look", K)
    box.flush()
    assert look.answer == ok(["before"])


def test_a_run_that_raises_leaves_no_trace_and_its_error_is_recorded(box, server):
    box.call("Box.add", K, "before")
    box.flush()
    caller = box.call("Box.put", K, "gone", counter=50)
    [run] = box.due()
    run.instance.items.append("gone")
    box.came_back(run, error=LookupError("no", 1))
    Handler.flush(box)
    assert caller.answer == Answer(Status.ENTITY_ERROR, ["LookupError", "('no', 1)", ["no", 1]])
    assert box.call("Box.read", K).answer == ok(["before"])
    assert box.call("Box.put", K, "gone", counter=50).answer == caller.answer
    assert not box.due(), "recorded, not run again"


def test_a_run_that_ends_in_a_cancellation_leaves_no_trace(box):
    caller = box.call("Box.put", K, "gone")
    [run] = box.due()
    run.instance.items.append("gone")
    box.came_back(run, error=asyncio.CancelledError())
    box.flush()
    assert caller.answer.value[0] == "CancelledError"
    assert box.call("Box.read", K).answer == ok([])


def test_what_a_method_keeps_of_its_state_changes_nothing_afterwards(box):
    box.call("Box.put", K, "a")
    [run] = box.due()
    kept = run.instance.items
    box.carry_out(run)
    kept.append("later")
    box.flush()
    box.call("Box.add", K, "b")
    box.flush()
    assert box.call("Box.read", K).answer == ok(["a", "b"])


def test_a_copy_of_a_running_call_joins_it_and_gets_its_answer(box):
    callers = [box.call("Box.put", K, "a", counter=50) for _ in range(3)]
    [run] = box.due()
    box.carry_out(run)
    box.flush()
    assert [c.answer for c in callers] == [ok(1)] * 3
    assert box.call("Box.read", K).answer == ok(["a"])


def test_the_same_id_with_other_arguments_conflicts_with_the_running_call(box):
    box.call("Box.put", K, "a", counter=50)
    assert box.call("Box.put", K, "b", counter=50).status is Status.CONFLICT


@pytest.mark.parametrize(
    ("method", "limit_s", "fate"),
    [
        ("Box.put", 30.0, "was cancelled"),
        ("Box.put_quickly", 2.5, "was cancelled"),
        ("Box.press", 30.0, "goes on in its thread"),
    ],
)
def test_a_run_past_its_limit_is_an_error_and_is_stopped(box, method, limit_s, fate):
    caller = box.call(method, K, "late", counter=50)
    [run] = box.due()
    run.instance.items.append("late")
    box.wait(limit_s - 0.01)
    assert not box.core.runs.take_stops() and not run.over
    box.wait(0.01)
    assert box.core.runs.take_stops() == [run]
    box.flush()
    kind, message, _ = caller.answer.value
    assert (caller.status, kind) == (Status.ENTITY_ERROR, "TimeLimitExceeded")
    assert f"longer than its limit of {limit_s:g} s" in message and fate in message
    box.came_back(run, "much too late")
    box.flush()
    assert box.call("Box.read", K).answer == ok([])
    assert box.call(method, K, "late", counter=50).answer == caller.answer, "recorded"


def test_time_in_which_a_run_waits_for_a_thread_does_not_count_against_its_limit(server, leader):
    box = owner(server, leader, threads=1)
    box.call("Box.press", KEYS[0], "a", deadline_ms=600_000)
    caller = box.call("Box.press", KEYS[1], "b", deadline_ms=600_000)
    [first] = box.due()
    box.wait(29)
    box.carry_out(first)
    [second] = box.due()
    box.wait(29)
    box.carry_out(second)
    box.flush()
    assert caller.answer == ok(1)


def test_a_stuck_thread_is_lost_until_it_comes_back(server, leader):
    box = owner(server, leader, threads=1)
    box.call("Box.press", KEYS[0], "stuck")
    [stuck] = box.due()
    box.wait(30)
    waiting = box.call("Box.press", KEYS[1], "b")
    assert box.due() == []
    box.came_back(stuck)
    box.flush()
    assert waiting.answer == ok(1)


def test_a_call_whose_deadline_passes_while_all_threads_are_taken_is_not_executed(server, leader):
    box = owner(server, leader, threads=1)
    box.call("Box.press", KEYS[0], "stuck", deadline_ms=60_000)
    box.due()
    late = box.call("Box.press", KEYS[1], "b", deadline_ms=1000)
    behind = box.call("Box.add", KEYS[1], "c", deadline_ms=20_000)
    box.wait(1)
    assert late.status is Status.EXPIRED
    box.flush()
    assert behind.answer == ok(1), "its key is free again"


def test_a_call_that_waits_for_a_held_key_expires_without_being_run(box):
    box.call("Box.put", K, "a")
    [run] = box.due()
    late = box.call("Box.add", K, "b", deadline_ms=1000)
    in_time = box.call("Box.add", K, "c", deadline_ms=5000)
    box.wait(1)
    assert late.status is Status.EXPIRED and "held its key" in late.answer.value
    box.carry_out(run)
    box.flush()
    assert in_time.answer == ok(2)


def test_a_run_counts_among_the_calls_in_progress(server, leader):
    box = owner(server, leader, max_pending=2)
    box.call("Box.put", KEYS[0], "a")
    box.call("Box.look", KEYS[1])
    assert box.call("Box.add", KEYS[2], "c").status is Status.OVERLOADED
    box.flush()
    assert box.core.is_idle


def test_a_query_that_runs_apart_answers_what_was_acknowledged_when_it_began(box):
    box.call("Box.add", K, "a")
    unacknowledged = box.send()
    caller = box.call("Box.look", K)
    [run] = box.due()
    assert box.deliver(unacknowledged)
    box.carry_out(run)
    assert caller.answer == ok([])


def test_a_blocking_query_that_writes_is_refused_and_changes_nothing(box):
    caller = box.call("Box.meddle", K)
    box.flush()
    assert (
        caller.status is Status.ENTITY_ERROR and "make it a @mesh.command" in caller.answer.value[1]
    )
    assert box.call("Box.read", K).answer == ok([])


def test_queries_that_run_apart_do_not_wait_for_each_other(box):
    for _ in range(3):
        box.call("Box.look", K)
    assert len(box.due()) == 3


def test_a_run_whose_tenure_ends_is_stopped_and_nobody_is_told_it_ran(box, leader, server):
    callers = [box.call("Box.put", K, "a", counter=50) for _ in range(2)]
    waiting = box.call("Box.add", K, "b")
    reading = box.call("Box.look", K)
    runs = box.due()
    leader.takeover({0: b"h-2"}, enroll=[b"h-2"])
    box.core.on_grant(leader.grant(b"h-1"), box.now)
    assert {c.status for c in (*callers, waiting, reading)} == {Status.NOT_READY}
    assert box.core.runs.take_stops() == runs
    for run in runs:
        box.came_back(run, 1)
    assert not box.core.has_queued and box.core.is_idle
    assert not server.partitions.get(0), "nothing was written"


def test_a_revoked_handler_stops_its_runs(box, leader):
    caller = box.call("Box.put", K, "a")
    [run] = box.due()
    leader.takeover({}, revoke=[b"h-1"])
    box.core.on_grant(leader.grant(b"h-1"), box.now)
    assert caller.status is Status.NOT_READY
    assert box.core.runs.take_stops() == [run]


def test_a_run_that_was_not_begun_is_never_begun_once_its_tenure_is_over(box, leader):
    caller = box.call("Box.put", K, "a")
    leader.takeover({0: b"h-2"}, enroll=[b"h-2"])
    box.core.on_grant(leader.grant(b"h-1"), box.now)
    assert caller.status is Status.NOT_READY
    assert box.due() == [] and box.core.runs.take_stops() == []


def test_a_partition_is_released_once_its_runs_are_over_and_what_waits_is_for_the_next_owner(
    box, leader
):
    running = box.call("Box.put", K, "a")
    waiting = box.call("Box.put", K, "b")
    [run] = box.due()
    box.core.on_release(leader.release(0))
    box.core.settle(box.now)
    assert not any(isinstance(m, Released) for m in box.messages())
    box.carry_out(run)
    assert box.due() == [], "the next owner runs it"
    box.flush()
    assert running.answer == ok(1)
    assert [m.partitions for m in box.messages() if isinstance(m, Released)] == [
        [(0, leader.owners[0][1])]
    ]
    assert waiting.answer is None, "held for the next owner's name"


def test_a_held_key_is_not_evicted(server, leader):
    box = owner(server, leader, cache_bytes=1)
    box.call("Box.add", KEYS[0], "a")
    box.flush()
    box.call("Box.put", KEYS[0], "b")
    [run] = box.due()
    for key in KEYS[1:]:
        box.call("Box.add", key, "x")
        Handler.flush(box)
    assert box.call("Box.read", KEYS[0]).answer == ok(["a"]), "at once, from memory"
    box.carry_out(run)
    caller = box.call("Box.add", KEYS[0], "c")
    box.flush()
    assert caller.answer == ok(3)


def test_a_call_behind_a_run_reads_its_records_before_it_runs(server, leader):
    """The partition is cold: whether a call is new has to be looked up for each."""
    box = Runs(server)
    leader.takeover(dict.fromkeys(range(PARTITIONS), box.nonce), enroll=[box.nonce])
    box.core.on_grant(leader.grant(box.nonce), box.now)
    first = box.call("Box.put", K, "a")
    box.load()
    [run] = box.due()
    second = box.call("Box.add", K, "b")
    assert box.load() == 0
    box.carry_out(run)
    assert box.load() == 1
    box.flush()
    assert (first.answer, second.answer) == (ok(1), ok(2))


def test_the_time_limits_of_runs_that_ended_are_forgotten(box):
    for number in range(2000):
        box.call("Box.put", K, str(number % 7))
        box.flush()
    assert len(box.core.runs._limits) < 600


@pytest.mark.parametrize("method", ["Box.add", "Box.put", "Box.press"])
def test_a_state_over_the_configured_limit_is_refused_and_the_old_one_stays(server, leader, method):
    box = owner(server, leader, max_state_bytes=100)
    caller = box.call(method, K, "x" * 100)
    box.flush()
    assert (
        caller.status is Status.ENTITY_ERROR and "over the limit of 100" in caller.answer.value[1]
    )
    assert box.call("Box.read", K).answer == ok([])


@pytest.mark.parametrize("method", ["Box.read", "Box.look"])
def test_a_reply_over_the_configured_limit_is_refused(server, leader, method):
    box = owner(server, leader, max_reply_bytes=100)
    box.call("Box.add", K, "x" * 200)
    box.flush()
    caller = box.call(method, K)
    box.flush()
    assert caller.status is Status.ENTITY_ERROR
    assert "reply of 203 bytes is over the limit of 100" in caller.answer.value[1]


class OneWay:
    """What can be written and not read."""


def refuse(parts):
    raise LookupError(parts)


@mesh.entity(codecs=[mesh.TypeCodec(OneWay, encode=lambda _: 1, decode=refuse)])
class Odd:
    kept: OneWay | None = None
    number: int = 0

    @mesh.command
    async def keep(self) -> None:
        self.kept = OneWay()

    @mesh.command
    def keep_plainly(self) -> None:
        self.kept = OneWay()

    @mesh.command
    async def count(self) -> int:
        self.number += 1
        return self.number

    @mesh.query
    async def look(self) -> int:
        return self.number


def test_a_run_whose_state_could_not_be_read_again_is_an_error_and_leaves_the_old_one(box):
    box.core._calls._registry = Registry([Odd])
    callers = [box.call("Odd.count", K), box.call("Odd.keep", K), box.call("Odd.count", K)]
    box.flush()
    assert [c.status for c in callers] == [Status.OK, Status.ENTITY_ERROR, Status.OK]
    assert "decode of OneWay failed" in callers[1].answer.value[1]
    assert callers[2].answer == ok(2)


@pytest.mark.parametrize("method", ["Odd.count", "Odd.look"])
def test_a_state_that_cannot_be_copied_is_its_callers_error_and_nobody_elses(box, method):
    box.core._calls._registry = Registry([Odd])
    box.call("Odd.keep_plainly", K)
    box.flush()
    caller = box.call(method, K)
    other = box.call("Odd.count", SAME_PARTITION)
    box.flush()
    assert caller.status is Status.ENTITY_ERROR
    assert "decode of OneWay failed" in caller.answer.value[1]
    assert other.answer == ok(1) and box.core.is_idle
