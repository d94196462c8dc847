"""Whatever replies, breaks, tables and timers come in whatever order: every call ends once, and truly."""

import msgpack
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from unit.client_rig import A, B, C, Client

from mesh.core.wire import Status
from mesh.errors import EntityError

PARTITIONS = 3
processes = st.sampled_from([A, B, C, b"h-4"])
partitions = st.integers(0, PARTITIONS - 1)
refusals = st.sampled_from(
    [Status.NOT_READY, Status.EXPIRED, Status.OVERLOADED, Status.BAD_REQUEST, Status.CONFLICT]
)


class Schedule(RuleBasedStateMachine):
    """Handlers are this test: each attempt that arrives is taken, refused, or lost with its connection."""

    def __init__(self):
        super().__init__()
        self.client = Client()
        self.epochs = [1] * PARTITIONS
        self.up: set[bytes] = set()
        self.calls = []
        self.broken = False
        self.ran: set[int] = set()
        """Calls of which some attempt was executed, or may have been."""
        self.seen = 0
        self.waiting: dict[bytes, list[int]] = {}
        """Attempts that arrived at a handler and have no answer yet."""
        self.resets: dict[int, bytes] = {}
        self.told_of: dict[tuple[bytes, int], int] = {}
        """Of attempts that wait: the deaths that the handler was told of."""
        self.taken_up: set[tuple[bytes, int]] = set()
        """Attempts that wait, and whose handler said that they are about to be run."""
        self.held_against: dict[int, set[bytes]] = {}
        """Of each call the processes that broke off when they may have begun it."""

    def arrive(self):
        for nonce, request in self.client.sent[self.seen :]:
            assert nonce in self.up, "sent without a connection"
            at = [n for n, counters in self.waiting.items() if request.counter in counters]
            assert not at, f"in flight at {at} and {nonce!r} at the same time"
            assert request.counter >= request.lowest
            broken = self.held_against.get(request.counter, set())
            assert request.deaths == len(broken - {nonce})
            assert nonce in broken or len(self.dead(broken)) < 2, "sent to a third"
            self.told_of[nonce, request.counter] = request.deaths
            self.taken_up.discard((nonce, request.counter))
            self.waiting.setdefault(nonce, []).append(request.counter)
        self.seen = len(self.client.sent)

    @rule(owner=st.lists(processes, min_size=PARTITIONS, max_size=PARTITIONS), extra=processes)
    def table(self, owner, extra):
        self.publish(owner, extra)

    @precondition(lambda self: any(self.waiting.values()))
    @rule(data=st.data(), heir=processes, taken_up=st.booleans())
    def handler_dies(self, data, heir, taken_up):
        """With calls under it, which it may have said that it took up; another one has all from now on."""
        busy = sorted(n for n, c in self.waiting.items() if c and n != heir)
        if not busy:
            return
        nonce = data.draw(st.sampled_from(busy))
        for counter in list(self.waiting[nonce]) if taken_up else ():
            self.taken_up.add((nonce, counter))
            self.answer(nonce, counter, Status.TAKEN_UP, b"")
        self.publish([heir] * PARTITIONS, heir)
        self.connect(heir)

    def publish(self, owner, extra):
        self.epochs = [e + 1 for e in self.epochs]
        before = len(self.client.disconnected)
        self.client.table(*zip(owner, self.epochs, strict=True), handlers=(extra,))
        for nonce in self.client.disconnected[before:]:
            self.lose(nonce)
        self.arrive()

    def lose(self, nonce):
        """With the connection goes what was under way on it: executed or not, nobody knows."""
        self.up.discard(nonce)
        lost = self.waiting.pop(nonce, ())
        self.broken = self.broken or bool(lost)
        self.ran.update(lost)
        for counter in lost:
            if not self.told_of[nonce, counter] or (nonce, counter) in self.taken_up:
                self.held_against.setdefault(counter, set()).add(nonce)

    def dead(self, processes):
        """Those that no table names any more."""
        table = self.client.core.table
        return {nonce for nonce in processes if table.row(nonce) is None}

    @rule(nonce=processes)
    def connection_made(self, nonce):
        self.connect(nonce)

    def connect(self, nonce):
        if nonce not in self.up and nonce in self.client.connecting:
            self.up.add(nonce)
            self.client.up(nonce)
            self.arrive()

    @rule(nonce=processes)
    def connection_broken(self, nonce):
        if nonce in self.up:
            self.lose(nonce)
            self.client.down(nonce)
            self.arrive()

    @rule(partition=partitions, timeout_s=st.sampled_from([0.0, 0.02, 1.0, 10.0]))
    def call(self, partition, timeout_s):
        self.calls.append(self.client.call(partition, timeout_s))
        self.arrive()

    def take(self, data):
        nonce = data.draw(st.sampled_from(sorted(n for n, c in self.waiting.items() if c)))
        counters = self.waiting[nonce]
        return nonce, counters.pop(data.draw(st.integers(0, len(counters) - 1)))

    def answer(self, nonce, counter, status, value):
        payload = value if isinstance(value, bytes) else msgpack.packb(value)
        self.client.core.on_reply(nonce, counter, status, payload, self.client.now)
        self.arrive()

    @precondition(lambda self: any(self.waiting.values()))
    @rule(data=st.data())
    def taken_up_only(self, data):
        """Said by a handler that was told of deaths, and by one that has no reason to."""
        nonce = data.draw(st.sampled_from(sorted(n for n, c in self.waiting.items() if c)))
        counter = data.draw(st.sampled_from(self.waiting[nonce]))
        self.taken_up.add((nonce, counter))
        self.answer(nonce, counter, Status.TAKEN_UP, b"")

    @precondition(lambda self: any(self.waiting.values()))
    @rule(data=st.data(), error=st.booleans())
    def executed(self, data, error):
        nonce, counter = self.take(data)
        self.ran.add(counter)
        if error:
            self.answer(nonce, counter, Status.ENTITY_ERROR, ["E", "m", []])
        else:
            self.answer(nonce, counter, Status.OK, counter)

    @precondition(lambda self: any(self.waiting.values()))
    @rule(data=st.data(), status=refusals)
    def refused(self, data, status):
        nonce, counter = self.take(data)
        self.answer(nonce, counter, status, "no")

    @precondition(lambda self: any(self.waiting.values()))
    @rule(data=st.data(), status=st.sampled_from([Status.MAYBE, Status.UNKNOWN]))
    def unknown(self, data, status):
        nonce, counter = self.take(data)
        self.ran.add(counter)
        self.answer(nonce, counter, status, "who knows")

    @precondition(lambda self: any(self.waiting.values()))
    @rule(data=st.data(), to=processes, step=st.integers(-2, 2))
    def redirected(self, data, to, step):
        nonce, counter = self.take(data)
        call = self.calls[counter - 1]
        if not call.settled:
            call_at, call.conn = call.conn, nonce
            assert call_at == nonce
            self.client.redirect(call, to, max(1, self.epochs[call.partition] + step))
            self.arrive()

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.5, 3.0]))
    def time_passes(self, seconds):
        self.client.later(seconds)
        self.arrive()

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def given_up(self, data):
        call = data.draw(st.sampled_from(self.calls))
        if not call.settled:
            self.client.core.cancel(call)
            self.client.results[call.counter].append(None)

    @invariant()
    def endings_are_true(self):
        for call in self.calls:
            result = self.client.result(call)
            assert (result is not None) == call.settled or self.client.results[call.counter] == [
                None
            ]
            if result is None:
                continue
            error = result.error
            if error is None:
                assert call.counter in self.ran and msgpack.unpackb(result.payload) == call.counter
            elif isinstance(error, EntityError):
                assert error.executed is True and call.counter in self.ran
            elif error.executed is False:
                held = [n for n, counters in self.waiting.items() if call.counter in counters]
                assert call.counter not in self.ran and not held, (error, held)
            elif "processes that died" in str(error):
                assert len(self.held_against[call.counter]) >= 2, "nobody else may have begun it"

    @invariant()
    def the_lowest_unsettled_is_never_above_a_call_that_has_not_ended(self):
        lowest: dict[int, int] = {}
        for call in self.client.core.calls():
            lowest[call.partition] = min(call.counter, lowest.get(call.partition, call.counter))
        for partition, counter in lowest.items():
            assert self.client.core._unsettled.lowest(partition) == counter

    @invariant()
    def what_is_told_as_answered_has_no_copy_left_anywhere(self):
        if self.client.core.is_answered:
            assert not any(self.waiting.values()) and not self.broken

    def teardown(self):
        self.client.later(20)
        for call in self.calls:
            assert len(self.client.results[call.counter]) == 1, "it never ended"
        assert list(self.client.core.calls()) == []
        assert not any(self.client.core._in_flight.values()) and not self.client.core._parked


TestSchedule = Schedule.TestCase
