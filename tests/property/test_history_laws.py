"""Whichever node that was left behind is promoted, and whenever: what was acknowledged is there, once."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from unit.history_rig import copied, owner_of_all, promote, tell
from unit.rigs import KEYS, PARTITIONS, Handler, Leader

from mesh.core.wire import Status
from mesh.store.memory import MemoryServer

LANES = (0, 1)


class ShortSet(RuleBasedStateMachine):
    """One owner, two lanes, a set that stays short; nodes fall behind, and one of them is promoted."""

    def __init__(self):
        super().__init__()
        self.server = MemoryServer()
        self.leader = Leader(self.server)
        self.leader.open_life()
        self.owner = owner_of_all(self.leader)
        self.copies = [copied(self.server)]
        self.flying = dict.fromkeys(LANES)
        self.calls = {key: [] for key in KEYS[:3]}

    @rule(key=st.sampled_from(KEYS[:3]), amount=st.integers(1, 9))
    def call(self, key, amount):
        self.calls[key].append((amount, self.owner.call("Account.deposit", key, amount)))

    def _send(self, lane):
        """As the shell does for a lane that is free, or has something to send again."""
        core, batch = self.owner.core, self.flying[lane]
        if batch is not None and core.waits(batch):
            batch = None
        if batch is None:
            batch = core.next_first(lane) if core.comes_first else core.next_batch(lane)
        self.flying[lane] = batch
        return batch

    @rule(lane=st.sampled_from(LANES))
    def send(self, lane):
        batch = self._send(lane)
        if batch is not None and self.owner.deliver(batch):
            self.flying[lane] = None

    @rule(lane=st.sampled_from(LANES), carried_out=st.booleans())
    def break_off(self, lane, carried_out):
        batch = self._send(lane)
        if batch is not None:
            self.server.break_connection(carried_out=carried_out)
            assert not self.owner.deliver(batch)

    @rule()
    def fall_behind(self):
        self.copies.append(copied(self.server))

    @precondition(lambda self: self.copies)
    @rule(data=st.data(), told=st.booleans())
    def promote(self, data, told):
        promote(self.leader, data.draw(st.sampled_from(self.copies)))
        if told:
            tell(self.leader, self.owner)

    @rule()
    def hear_of_it(self):
        tell(self.leader, self.owner)

    @invariant()
    def the_owner_goes_on(self):
        assert not self.owner.core.revoked

    def teardown(self):
        tell(self.leader, self.owner)
        for _ in range(1000):
            for lane in LANES:
                self.send(lane)
            is_due = self.owner.core.comes_first or self.owner.core.has_queued
            if not is_due and not any(self.flying.values()):
                break
        heir = Handler(self.server, b"h-2")
        moves = dict.fromkeys(range(PARTITIONS), heir.nonce)
        self.leader.takeover(moves, enroll=[heir.nonce], revoke=[self.owner.nonce])
        tell(self.leader, heir)
        heir.warm_up()
        for key, calls in self.calls.items():
            balance = 0
            for amount, caller in calls:
                balance += amount
                assert caller.status is Status.OK
                assert caller.answer.value == balance
            assert heir.call("Account.read", key).answer.value == balance


TestShortSet = ShortSet.TestCase
TestShortSet.settings = settings(stateful_step_count=40)
