"""Whatever lives, moves and lost words there are: what was acknowledged stays, once, and nothing else does.

Two handlers, a leader that opens lives and moves partitions as it likes (and tells late), a store that is
replaced under all of them. The store keeps what it has: losses are another matter.
"""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from unit.rigs import KEYS, PARTITIONS, Handler, Leader

from mesh.core.wire import Status
from mesh.store.memory import MemoryServer

NONCES = (b"h-1", b"h-2")
handlers = st.integers(0, 1)
lanes = st.integers(0, 1)
partitions = st.integers(0, PARTITIONS - 1)


class Lives(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.server = MemoryServer()
        self.leader = Leader(self.server)
        self.leader.open_life()
        self.handlers = [Handler(self.server, nonce) for nonce in NONCES]
        for number, one in enumerate(self.handlers):
            one.counter = 1_000_000 * number
        moves = {p: NONCES[p % 2] for p in range(PARTITIONS)}
        self.leader.takeover(moves, enroll=NONCES)
        self.flying = [[None, None], [None, None]]
        self.callers = {p: [] for p in range(PARTITIONS)}
        self.is_open = True
        for who in (0, 1):
            self.tell(who)

    @rule(who=handlers)
    def tell(self, who):
        """The leader's word arrives."""
        one = self.handlers[who]
        if self.is_open:
            one.core.on_grant(self.leader.grant(one.nonce), one.now)

    @rule(who=handlers, p=partitions)
    def call(self, who, p):
        self.callers[p].append(self.handlers[who].call("Account.deposit", KEYS[p], 1))

    @rule(who=handlers)
    def load(self, who):
        self.handlers[who].load()

    @rule(who=handlers, lane=lanes)
    def send(self, who, lane):
        if self.flying[who][lane] is None:
            self.flying[who][lane] = self.handlers[who].send(lane)

    @rule(who=handlers, lane=lanes, fate=st.sampled_from(["heard", "heard", "lost", "never"]))
    def deliver(self, who, lane, fate):
        batch = self.flying[who][lane]
        if batch is None:
            return
        if fate != "heard":
            self.server.break_connection(carried_out=fate == "lost")
        if self.handlers[who].deliver(batch):
            self.flying[who][lane] = None

    @precondition(lambda self: self.is_open)
    @rule()
    def replace_the_primary(self):
        self.server.restart()
        self.is_open = False

    @precondition(lambda self: not self.is_open)
    @rule()
    def open_life(self):
        self.leader.open_life()
        self.is_open = True

    @precondition(lambda self: self.is_open)
    @rule(moves=st.dictionaries(partitions, st.sampled_from(NONCES), max_size=2))
    def move(self, moves):
        """As after a takeover, or where a process has lost what it was given."""
        if moves:
            self.leader.takeover(moves)

    def settle(self):
        if not self.is_open:
            self.open_life()
        for who, one in enumerate(self.handlers):
            self.tell(who)
            for lane, batch in enumerate(self.flying[who]):
                assert batch is None or one.deliver(batch), "every batch comes to its end"
                self.flying[who][lane] = None
            one.flush()
            assert not one.core.revoked, "no batch was missed"
            one.now += 100
            one.core.on_timer(one.now)

    def teardown(self):
        self.settle()
        for p, callers in self.callers.items():
            owner = next(h for h in self.handlers if h.nonce == self.leader.owners[p][0])
            read = owner.call("Account.read", KEYS[p])
            owner.flush()
            assert all(caller.answer is not None for caller in callers)
            done = sum(caller.status is Status.OK for caller in callers)
            unknown = sum(caller.status is Status.MAYBE for caller in callers)
            assert read.status is Status.OK
            assert done <= read.answer.value <= done + unknown, (done, unknown)
        for one in self.handlers:
            assert one.core.is_idle


TestLives = Lives.TestCase
