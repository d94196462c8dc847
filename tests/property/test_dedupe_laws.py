"""A log, the store it writes to, owners that come and go, time that passes: nothing runs twice or is lost.

Two worlds under the same rules: numbers of client sessions, and keys of callers. A copy of a call may be
late, but no later than mesh.core.retention allows for; clocks differ by up to a quarter of the window.
"""

from typing import NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mesh.core.callerkeys import NO_ARGUMENTS, caller_digest, caller_field
from mesh.core.dedupe import SessionLog
from mesh.core.outcomes import Outcome, Records, Seen
from mesh.core.retention import Retention
from mesh.core.wire import Status

WINDOW = 86_400
ARGS = b"12345678"
sessions = st.sampled_from([7, 8])
counters = st.integers(1, 4)
names = st.sampled_from(["a", "b", "c"])


class Call(NamedTuple):
    """One that was taken up."""

    digest: bytes


class Owners(RuleBasedStateMachine):
    """One partition; a commit is one atomic write, as the store's is."""

    def __init__(self):
        super().__init__()
        self.now = 1_000_000
        self.skew = 0
        self.retention = Retention(WINDOW, now=self.now)
        self.log = SessionLog(self.retention)
        self.stored: dict[bytes, bytes] = {}
        self.effects: dict[object, int] = {}
        self.told: dict[object, tuple[int, int]] = {}
        """Status of each call's first answer, and when it ran: that is when its time begins."""
        self.writes: list[
            tuple[object, Records, int, Outcome, dict[bytes, bytes], list[bytes], int]
        ] = []
        self.sent: dict[object, tuple[int, int]] = {}
        """When each call was first sent, and the lowest unsettled number it then bore."""
        self.lowest = {7: 1, 8: 1}
        self.gone: set[int] = set()

    # ------------------------------------------------------------------------ calls

    @rule(session=sessions, counter=counters)
    def request(self, session, counter):
        """A request, or a delayed copy of one, with the lowest counter of when it was sent."""
        call = (session, counter)
        if call not in self.sent and session in self.gone:
            return
        since, lowest = self.sent.setdefault(call, (self.now, self.lowest[session]))
        if self.now - since > WINDOW * 3 / 4:
            return
        if session in self.gone:
            return  # it said that nothing of it is under way
        known = self.log.session(session)
        known.settle_below(lowest)
        self.take(call, known, counter, ARGS, Status.OK)

    @rule(name=names, asks=st.booleans())
    def request_under_a_key(self, name, asks):
        """By anybody, as long as the record is sure to be there, however the clocks differ."""
        if name in self.told and self.now - self.told[name][1] > WINDOW * 3 / 4:
            return
        records = self.log.callers.call(caller_field("Account", b"k", name))
        digest = caller_digest("deposit", NO_ARGUMENTS if asks else ARGS)
        self.take(name, records, 1, digest, Status.RULED_OUT if asks else Status.OK)

    def take(self, call, records, counter, digest, status):
        seen, outcome = records.check(counter, digest)
        assert seen is not Seen.CONFLICT
        if seen is Seen.RECORDED:
            assert outcome.status == self.told[call][0], "everybody is told the same"
        if seen is not Seen.NEW:
            return
        outcome = Outcome(digest, status, b"reply")
        fields, deleted = records.write(counter, outcome)
        assert not fields.keys() & set(deleted)
        records.start(counter, Call(digest))
        self.writes.append((call, records, counter, outcome, fields, deleted, self.now))

    @precondition(lambda self: self.writes)
    @rule()
    def commit_the_oldest(self):
        call, records, counter, outcome, fields, deleted, ran = self.writes.pop(0)
        self.stored.update(fields)
        for name in deleted:
            self.stored.pop(name, None)
        if call is not None:
            self.effects[call] = self.effects.get(call, 0) + 1
            self.told[call] = outcome.status, ran
            records.finish(counter, outcome)

    @rule(session=sessions, counter=counters)
    def settle(self, session, counter):
        """The client has its reply: only then does its lowest unsettled counter pass an id."""
        if all((session, c) in self.effects for c in range(self.lowest[session], counter)):
            self.lowest[session] = max(self.lowest[session], counter)

    # ------------------------------------------------------------------- owners, time

    @rule(skew=st.integers(-WINDOW // 8, WINDOW // 8), pages=st.randoms(use_true_random=False))
    def another_owner_takes_over(self, skew, pages):
        """What was not committed is gone with the old owner; the new one reads what is stored."""
        self.writes.clear()
        self.skew = skew
        self.retention = Retention(WINDOW, now=self.now + skew)
        self.log = SessionLog(self.retention)
        fields = list(self.stored.items())
        pages.shuffle(fields)
        for name, blob in fields:
            self.log.adopt(name, blob)

    @rule(hours=st.sampled_from([1, 5, 17, 26]))
    def time_passes(self, hours):
        self.now += hours * 3600
        self.retention.now = self.now + self.skew

    @rule()
    def forget(self):
        for number in list(self.log.numbers()):
            self.delete(self.log.expire(number))
        self.delete(self.log.callers.forget())

    @rule(session=sessions)
    def goodbye(self, session):
        """Only of a client whose every attempt was answered: nothing of it is under way."""
        if not any(call for call, *_ in self.writes if call and call[0] == session):
            self.gone.add(session)
            self.delete(self.log.end(session))

    def delete(self, names):
        if names:
            self.writes.append((None, None, 0, None, {}, names, self.now))

    # ---------------------------------------------------------------------- what holds

    @invariant()
    def every_call_has_one_effect_at_most(self):
        assert all(n == 1 for n in self.effects.values()), self.effects

    @invariant()
    def no_record_under_a_key_is_missing_within_the_window(self):
        for call, (_, written) in self.told.items():
            if isinstance(call, str) and self.now - written < WINDOW * 3 / 4:
                assert caller_field("Account", b"k", call) in self.stored

    @invariant()
    def room_is_counted_right(self):
        keys = self.log.callers
        assert (keys.used_bytes > 0) == bool(keys.records or keys.running)


TestOwners = Owners.TestCase
