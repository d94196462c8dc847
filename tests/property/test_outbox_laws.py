"""Whatever the order of events, each partition's changes are delivered once and in order."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mesh.core.lanes import LANES, LANES_OF
from mesh.core.outbox import MAX_BYTES, MAX_COMMANDS, Change, Outbox

partition_numbers = st.integers(0, 5)


class Lanes(RuleBasedStateMachine):
    """Commands arrive, lanes take batches and get their verdicts, partitions are lost."""

    def __init__(self):
        super().__init__()
        self.outbox = Outbox()
        self.in_flight = [None] * len(LANES)
        queues = [(p, d) for p in range(6) for d in LANES_OF]
        self.added = {queue: [] for queue in queues}
        self.delivered = {queue: [] for queue in queues}
        self.dropped = {queue: [] for queue in queues}
        self.epochs = dict.fromkeys(range(6), 1)
        self.seqs = [0] * len(LANES)

    @rule(
        p=partition_numbers,
        durability=st.sampled_from(list(LANES_OF)),
        count=st.sampled_from([1, 1, 1, 3, 600]),
        big=st.booleans(),
    )
    def add(self, p, durability, count, big):
        added = self.added[p, durability]
        for _ in range(count):
            value = bytes(300_000) if big and count < 10 else b"v"
            one = Change(p, self.epochs[p], {b"k%d" % len(added): value}, [], durability)
            added.append(one)
            self.outbox.add(one)

    @rule(lane=st.integers(0, len(LANES) - 1))
    def take(self, lane):
        batch = self.outbox.next_batch(lane)
        if self.in_flight[lane] is not None:
            assert batch is None
        elif batch is not None:
            self.in_flight[lane] = batch
            self.seqs[lane] += 1
            assert batch.seq == self.seqs[lane]
            sizes = [c.size for changes in batch.changes for c in changes]
            assert 1 <= len(sizes) <= MAX_COMMANDS
            assert len(sizes) == 1 or sum(sizes) <= MAX_BYTES
            for entry, changes in zip(batch.entries, batch.changes, strict=True):
                assert {(c.partition, c.epoch) for c in changes} == {(entry.partition, entry.epoch)}
                assert {c.durability for c in changes} == {LANES[lane]}
                self.delivered[entry.partition, LANES[lane]] += changes

    @rule(lane=st.integers(0, len(LANES) - 1))
    def verdict(self, lane):
        if self.in_flight[lane] is not None:
            self.outbox.done(self.in_flight[lane])
            self.in_flight[lane] = None

    @rule(p=partition_numbers)
    def lose(self, p):
        """The partition moved; later it comes back under another epoch."""
        for one in self.outbox.drop(p):
            self.dropped[p, one.durability].append(one)
        self.epochs[p] += 1

    @invariant()
    def no_partition_is_in_two_batches_of_a_class(self):
        batches = [b for b in self.in_flight if b is not None]
        flying = [(e.partition, LANES[b.lane]) for b in batches for e in b.entries]
        assert len(flying) == len(set(flying))
        for p, _ in flying:
            assert not self.outbox.is_settled(p)

    def teardown(self):
        for _ in range(10_000):
            for lane in range(len(LANES)):
                self.verdict(lane)
                self.take(lane)
            if not any(self.in_flight):
                break
        assert self.outbox.queued == 0
        for queue, added in self.added.items():
            gone = set(map(id, self.dropped[queue]))
            assert self.delivered[queue] == [c for c in added if id(c) not in gone]
            assert self.outbox.is_settled(queue[0])


TestLanes = Lanes.TestCase
