"""A log, the store it writes to, and owners that come and go: no id runs twice."""

from typing import NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mesh.core.dedupe import SessionLog
from mesh.core.outcomes import Outcome, Seen

S, ARGS = 7, b"12345678"
counters = st.integers(1, 4)


class Call(NamedTuple):
    """One that was taken up."""

    digest: bytes


class Owners(RuleBasedStateMachine):
    """One session, one partition; a commit is one atomic write, as the store's is."""

    def __init__(self):
        super().__init__()
        self.log = SessionLog()
        self.stored: dict[bytes, bytes] = {}
        self.runs: dict[int, int] = {}
        self.effects: dict[int, int] = {}
        self.writes: dict[int, tuple[dict[bytes, bytes], list[bytes]]] = {}
        self.sent: dict[int, int] = {}
        self.lowest = 1

    @rule(counter=counters)
    def request(self, counter):
        """A request, or a delayed copy of one, with the lowest counter of when it was sent."""
        self.log.session(S).settle_below(self.sent.setdefault(counter, self.lowest))
        if self.log.session(S).check(counter, ARGS)[0] is not Seen.NEW:
            return
        outcome = Outcome(ARGS, 0, b"%d" % counter)
        due, deleted = self.log.session(S).due_drops(at_least=1)
        fields, _ = self.log.session(S).write(counter, outcome)
        fields |= due
        self.log.session(S).start(counter, Call(ARGS))
        self.writes[counter] = fields, deleted

    @rule()
    def commit_the_oldest(self):
        if self.writes:
            counter = next(iter(self.writes))
            fields, deleted = self.writes.pop(counter)
            self.stored.update(fields)
            for name in deleted:
                self.stored.pop(name, None)
            self.effects[counter] = self.effects.get(counter, 0) + 1
            self.log.session(S).finish(counter, Outcome(ARGS, 0, b"%d" % counter))

    @rule(counter=counters)
    def settle(self, counter):
        """The client has its reply: only then does its lowest unsettled counter pass an id."""
        if all(c in self.effects for c in range(self.lowest, counter)):
            self.lowest = max(self.lowest, counter)

    @rule()
    def another_owner_takes_over(self):
        """What was not committed is gone with the old owner; the new one reads what is stored."""
        self.writes.clear()
        self.log = SessionLog()
        for name, blob in self.stored.items():
            self.log.adopt(name, blob)

    @invariant()
    def every_id_has_one_effect_at_most(self):
        assert all(n == 1 for n in self.effects.values()), self.effects


TestOwners = Owners.TestCase
