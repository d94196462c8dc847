"""RIFL's rules: what a partition knows of a request id, and what it may forget."""

import pytest

from mesh.core.dedupe import (
    DROPS_PER_WRITE,
    MOST_FORGOTTEN,
    SessionLog,
    outcome_field,
    watermark_field,
)
from mesh.core.outcomes import Outcome, Seen

S, T = 7, 2**64 - 1
ARGS, OTHER = b"digest-a", b"digest-b"
DONE = Outcome(ARGS, 0, b"reply")


class Call:
    """One that was taken up."""

    def __init__(self, outcome=DONE):
        self.digest = outcome.digest


@pytest.fixture
def log():
    return SessionLog()


def stored(outcome):
    """The bytes of a record."""
    fields, _ = SessionLog().session(S).write(1, outcome)
    return fields[outcome_field(S, 1)]


def watermark(counter):
    """The bytes of a watermark."""
    session = SessionLog().session(S)
    session.settle_below(counter)
    return session.due_drops(at_least=0)[0][watermark_field(S)]


def finish(log, counter, session=S):
    log.session(session).start(counter, Call())
    log.session(session).finish(counter, DONE)


def test_an_id_that_was_never_seen_is_new(log):
    assert log.session(S).check(1, ARGS) == (Seen.NEW, None)


def test_a_copy_of_a_running_call_is_known_as_running(log):
    log.session(S).start(1, Call())
    assert log.session(S).check(1, ARGS) == (Seen.RUNNING, None)
    assert log.session(T).check(1, ARGS) == (Seen.NEW, None)


def test_a_retry_gets_the_recorded_outcome(log):
    finish(log, 1)
    assert log.session(S).check(1, ARGS) == (Seen.RECORDED, DONE)


def test_the_same_id_with_other_arguments_is_a_conflict_running_or_recorded(log):
    log.session(S).start(1, Call())
    assert log.session(S).check(1, OTHER) == (Seen.CONFLICT, None)
    log.session(S).finish(1, DONE)
    assert log.session(S).check(1, OTHER) == (Seen.CONFLICT, None)


def test_a_call_that_was_abandoned_is_new_again(log):
    log.session(S).start(1, Call())
    log.session(S).abandon(1)
    log.session(T).abandon(1)
    assert log.session(S).check(1, ARGS) == (Seen.NEW, None)


def test_below_the_watermark_nothing_is_remembered_and_nothing_runs(log):
    finish(log, 1)
    log.session(S).settle_below(3)
    assert log.session(S).check(1, ARGS) == (Seen.FORGOTTEN, None)
    assert log.session(S).check(2, ARGS) == (Seen.FORGOTTEN, None), "it never ran, and never will"
    assert log.session(S).check(3, ARGS) == (Seen.NEW, None)
    assert log.count() == 0


def test_the_watermark_never_goes_back(log):
    log.session(S).settle_below(5)
    log.session(S).settle_below(2)
    assert log.session(S).check(4, ARGS)[0] is Seen.FORGOTTEN


def test_a_running_call_below_the_watermark_still_has_its_copies_attached(log):
    log.session(S).start(1, Call())
    log.session(S).settle_below(2)
    assert log.session(S).check(1, ARGS)[0] is Seen.RUNNING
    log.session(S).finish(1, DONE)
    assert log.session(S).check(1, ARGS)[0] is Seen.FORGOTTEN
    _, deleted = log.session(S).due_drops(at_least=1)
    assert deleted == [outcome_field(S, 1)], "its record was written all the same"


def test_drops_wait_until_a_group_is_due(log):
    for counter in range(1, DROPS_PER_WRITE + 1):
        finish(log, counter)
    log.session(S).settle_below(DROPS_PER_WRITE)
    assert log.session(S).due_drops() == ({}, [])
    log.session(S).settle_below(DROPS_PER_WRITE + 1)
    assert len(log.session(S).due_drops()[1]) == DROPS_PER_WRITE
    assert log.session(S).due_drops() == ({}, []), "once"
    assert log.session(T).due_drops() == ({}, [])


def test_very_many_drops_go_with_several_writes_and_what_is_left_is_not_run_again(log):
    session = log.session(S)
    for counter in range(1, 2 * MOST_FORGOTTEN + 2):
        finish(log, counter)
    session.settle_below(2 * MOST_FORGOTTEN + 2)
    written, deleted = session.due_drops()
    assert len(deleted) == MOST_FORGOTTEN
    later = SessionLog()
    for name, blob in [(outcome_field(S, 2 * MOST_FORGOTTEN), stored(DONE)), *written.items()]:
        later.adopt(name, blob)
    assert later.session(S).check(2 * MOST_FORGOTTEN, ARGS)[0] in (Seen.RECORDED, Seen.FORGOTTEN)
    assert later.session(S).check(1, ARGS)[0] is Seen.FORGOTTEN
    assert len(session.due_drops()[1]) == MOST_FORGOTTEN
    assert session.due_drops(at_least=1)[1] == [outcome_field(S, 2 * MOST_FORGOTTEN + 1)]


def test_the_watermark_is_written_with_the_drop_and_reads_back(log):
    """A delayed copy that reaches a later owner must find the record or the watermark."""
    for counter in (1, 2):
        finish(log, counter)
    log.session(S).settle_below(3)
    written, deleted = log.session(S).due_drops(at_least=2)
    assert deleted == [outcome_field(S, 1), outcome_field(S, 2)]
    later = SessionLog()
    for name, blob in written.items():
        later.adopt(name, blob)
    assert later.session(S).check(2, ARGS)[0] is Seen.FORGOTTEN
    assert later.session(S).check(3, ARGS)[0] is Seen.NEW


def test_sessions_drop_their_own_records_only(log):
    finish(log, 1, session=S)
    finish(log, 1, session=T)
    log.session(S).settle_below(2)
    assert log.session(T).check(1, ARGS)[0] is Seen.RECORDED
    assert log.session(T).due_drops(at_least=1) == ({}, [])


@pytest.mark.parametrize("watermark_first", [True, False])
def test_a_stored_record_below_the_watermark_is_never_run_again(log, watermark_first):
    fields = [
        (watermark_field(S), watermark(5)),
        (outcome_field(S, 2), stored(DONE)),
    ]
    for name, blob in fields if watermark_first else reversed(fields):
        log.adopt(name, blob)
    assert log.session(S).check(2, ARGS)[0] in (Seen.FORGOTTEN, Seen.RECORDED)
    assert log.session(S).check(5, ARGS)[0] is Seen.NEW


def test_what_memory_knows_is_newer_than_what_the_store_says(log):
    newer = Outcome(ARGS, 0, b"newer")
    log.session(S).start(1, Call())
    log.adopt(outcome_field(S, 1), stored(DONE))
    assert log.session(S).check(1, ARGS)[0] is Seen.RUNNING
    log.session(S).finish(1, newer)
    log.adopt(outcome_field(S, 1), stored(DONE))
    assert log.session(S).check(1, ARGS) == (Seen.RECORDED, newer)
    log.session(S).settle_below(9)
    log.adopt(watermark_field(S), watermark(2))
    assert log.session(S).check(8, ARGS)[0] is Seen.FORGOTTEN


@pytest.mark.parametrize("outcome", [DONE, Outcome(b"\0" * 8, 255, b""), Outcome(ARGS, 1, b"\0")])
def test_an_outcome_reads_back_as_it_was_written(log, outcome):
    log.adopt(outcome_field(S, 3), stored(outcome))
    assert log.session(S).check(3, outcome.digest) == (Seen.RECORDED, outcome)


def test_names_of_records_and_watermarks_never_meet():
    names = {f(*a) for f, a in [(outcome_field, (S, 1)), (outcome_field, (1, S))]}
    names |= {watermark_field(S), watermark_field(1)}
    assert len(names) == 4
