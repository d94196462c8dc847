"""Each check of a simulated mesh on a run that is right and on one that is wrong."""

import pytest

from mesh.client.stats import ClientStats
from mesh.core.epochs import epoch_of
from mesh.errors import OutcomeUnknown, Overloaded
from mesh.testing.history import End, History
from mesh.testing.sim.checks import Checks

A, B = b"\xaa" * 8, b"\xbb" * 8
E1, E2, E3 = epoch_of(1, 1), epoch_of(1, 2), epoch_of(2, 1)


@pytest.fixture
def checks():
    return Checks(partitions=2)


def only(checks, what):
    """The one violation, which is of that promise; its line."""
    [violation] = checks.violations
    assert violation.what == what
    assert "\n" not in str(violation)
    return str(violation)


# ------------------------------------------------------------------------------------------------- the store


def test_one_owner_after_the_other_is_right(checks):
    checks.granted(0.0, "A", 0, E1, A)
    checks.committed(1.0, "A", 1, A, 0, 1, [(0, E1)])
    checks.committed(1.1, "A", 1, A, 1, 1, [(0, E1)])
    checks.committed(1.2, "A", 1, A, 0, 2, [(0, E1)])
    checks.granted(2.0, "A", 0, E2, B)
    checks.committed(3.0, "A", 1, B, 0, 1, [(0, E2)])
    assert not checks.violations


def test_a_primary_that_was_cut_off_may_go_on_in_its_own_life(checks):
    checks.granted(0.0, "A", 0, E1, A)
    checks.granted(1.0, "B", 0, E3, B)
    checks.committed(2.0, "B", 2, B, 0, 1, [(0, E3)])
    checks.committed(2.1, "A", 1, A, 0, 1, [(0, E1)])
    assert not checks.violations


def test_two_writers_under_one_epoch_are_wrong(checks):
    checks.committed(1.0, "A", 1, A, 0, 1, [(0, E1)])
    checks.committed(2.5, "A", 1, B, 0, 1, [(0, E1)])
    assert only(checks, "one writer") == (
        "2.500000 s  one writer: A took a commit of bbbbbbbb for partition 0 under 1.1, under which "
        "aaaaaaaa had written"
    )


def test_a_writer_that_the_epoch_was_not_given_to_is_wrong(checks):
    checks.granted(0.0, "A", 0, E1, A)
    checks.committed(1.0, "A", 1, B, 0, 1, [(0, E1)])
    assert "which was given to aaaaaaaa" in only(checks, "one writer")


def test_a_commit_under_an_epoch_that_is_over_is_wrong(checks):
    checks.granted(0.0, "A", 0, E1, A)
    checks.granted(1.0, "A", 0, E2, B)
    checks.committed(2.0, "A", 1, A, 0, 1, [(0, E1)])
    assert "after 1.2 was given or written" in only(checks, "one writer")


def test_an_epoch_that_is_given_twice_is_wrong(checks):
    checks.granted(0.0, "A", 0, E1, A)
    checks.granted(1.0, "B", 0, E1, B)
    assert "aaaaaaaa, and on B to bbbbbbbb" in only(checks, "an epoch is given once")


def test_an_epoch_that_goes_back_is_wrong(checks):
    checks.granted(0.0, "A", 0, E2, A)
    checks.granted(1.0, "A", 0, E1, A)
    only(checks, "epochs only grow")


@pytest.mark.parametrize("seq", [1, 2, 4])
def test_a_batch_out_of_sequence_is_wrong(checks, seq):
    checks.committed(1.0, "A", 1, A, 0, 1, [(0, E1)])
    checks.committed(1.0, "A", 1, A, 0, 2, [(0, E1)])
    checks.committed(1.0, "A", 1, A, 0, seq, [(0, E1)])
    assert "after 2" in only(checks, "batches are applied in sequence")


def test_lives_one_after_the_other_are_right(checks):
    checks.life_opened(0.0, "A", "run-a", 1, 1)
    checks.life_opened(1.0, "A", "run-a", 2, 2)
    checks.life_opened(2.0, "B", "run-b", 3, 3)
    assert not checks.violations


def test_a_life_with_two_primaries_is_wrong(checks):
    checks.life_opened(0.0, "A", "run-a", 2, 1)
    checks.life_opened(1.0, "B", "run-b", 2, 2)
    only(checks, "a life has one primary")


@pytest.mark.parametrize(("life", "token"), [(1, 6), (3, 5)])
def test_a_life_or_token_that_does_not_grow_is_wrong(checks, life, token):
    checks.life_opened(0.0, "A", "run-a", 2, 5)
    checks.life_opened(1.0, "A", "run-a", life, token)
    checks.violations = [v for v in checks.violations if v.what != "a life has one primary"]
    only(checks, "lives and tokens only grow")


def test_numbers_that_stay_or_grow_are_right_and_one_that_falls_is_wrong(checks):
    checks.token_seen(0.0, "h-0", 3)
    checks.token_seen(1.0, "h-0", 3)
    checks.token_seen(1.0, "h-1", 2)
    checks.life_seen(1.0, "h-0", 1)
    checks.set_recorded(1.0, "A", 1, 4)
    checks.set_recorded(2.0, "A", 2, 1)
    assert not checks.violations
    checks.token_seen(2.0, "h-0", 2)
    assert "h-0 went from 3 to 2" in only(checks, "a token never goes back")


# ------------------------------------------------------------------------------------------------- the table


def test_whole_tables_of_growing_versions_are_right(checks):
    checks.table_seen(0.0, "c", (1, 1, 1), [A, B], [E1, E1])
    checks.table_seen(0.1, "d", (1, 1, 1), [A, B], [E1, E1])
    checks.table_seen(1.0, "c", (1, 1, 2), [A, A], [E1, E2])
    assert not checks.violations


@pytest.mark.parametrize(
    ("owners", "epochs"), [([A, None], [E1, 0]), ([A, B], [E1, 0]), ([A], [E1]), ([], [])]
)
def test_a_table_with_a_hole_is_wrong(checks, owners, epochs):
    checks.table_seen(0.0, "c", (1, 1, 1), owners, epochs)
    assert "c has table 1.1.1" in only(checks, "no table has a hole")


def test_a_table_version_with_two_contents_is_wrong(checks):
    checks.table_seen(0.0, "c", (1, 1, 1), [A, B], [E1, E1])
    checks.table_seen(0.1, "d", (1, 1, 1), [B, B], [E1, E1])
    only(checks, "a table version has one content")


def test_an_older_table_that_is_taken_up_is_wrong(checks):
    checks.table_seen(0.0, "c", (2, 2, 1), [A, B], [E1, E1])
    checks.table_seen(0.1, "c", (1, 9, 9), [B, B], [E1, E1])
    only(checks, "a table version never goes back")


# ---------------------------------------------------------------------------------------------------- the end


def test_bids_in_a_life_with_growing_tokens_are_right(checks):
    checks.life_opened(0.0, "A", "run", 1, 1)
    checks.led(1.0, "A", "run", 1, 2)
    checks.life_opened(2.0, "B", "other", 2, 3)
    checks.led(3.0, "B", "other", 2, 4)
    assert not checks.violations


@pytest.mark.parametrize(("life", "token"), [(1, 1), (2, 2)])
def test_a_bid_with_an_old_token_or_in_another_life_is_wrong(checks, life, token):
    checks.life_opened(0.0, "A", "run", 1, 1)
    checks.led(1.0, "A", "run", life, token)
    only(checks, "lives and tokens only grow")


def test_a_loss_that_is_reported_where_none_can_be_is_wrong(checks):
    checks.nothing_is_said_to_be_lost(1.0)
    assert not checks.violations
    checks.loss_reported(1.0, "s-0", "partitions 1 and 2")
    checks.nothing_is_said_to_be_lost(9.0)
    assert "1.000000 s  s-0: partitions 1 and 2" in only(checks, "no loss without cause")


def test_what_a_leader_has_told_may_be_taken_up_once(checks):
    checks.told(A, [E1, 0])
    checks.adopted(0.0, "h-0", 0, E1, A)
    checks.told(A, [E2, E1])
    checks.adopted(1.0, "h-0", 0, E2, A)
    checks.adopted(1.0, "h-0", 1, E1, A)
    assert not checks.violations
    checks.adopted(2.0, "h-0", 0, E2, A)
    only(checks, "what was given up is not taken up again")


@pytest.mark.parametrize(("partition", "epoch", "nonce"), [(1, E1, A), (0, E2, A), (0, E1, B)])
def test_what_nobody_has_told_is_not_taken_up(checks, partition, epoch, nonce):
    checks.told(A, [E1, 0])
    checks.adopted(0.0, "h-0", partition, epoch, nonce)
    only(checks, "a grant is what a leader has told")


def test_whoever_heeds_a_leader_heeds_no_earlier_one(checks):
    checks.heeded(0.0, "h-0", 2)
    checks.heeded(0.0, "h-0", 3)
    checks.heeded(0.0, "h-1", 2)
    assert not checks.violations
    checks.heeded(0.0, "h-0", 2)
    only(checks, "a token that is heeded never goes back")


def test_whoever_goes_by_a_grant_goes_by_no_earlier_one(checks):
    checks.obeyed(0.0, "h-0", 1, 5)
    checks.obeyed(0.0, "h-0", 2, 1)
    assert not checks.violations
    checks.obeyed(0.0, "h-0", 1, 6)
    only(checks, "a grant never goes back")


def test_once_another_one_has_taken_it_up_nobody_answers_for_a_partition(checks):
    checks.told(A, [E1, E1])
    checks.adopted(0.0, "h-0", 0, E1, A)
    checks.answered(0.5, "h-0", 0, E1)
    checks.answered(0.5, "h-0", 1, E1)
    checks.told(B, [E2, 0])
    checks.adopted(1.0, "h-1", 0, E2, B)
    checks.answered(1.5, "h-1", 0, E2)
    checks.answered(1.5, "h-0", 1, E1)
    assert not checks.violations
    checks.answered(1.5, "h-0", 0, E1)
    assert "h-1 had taken it up" in only(checks, "one answers")


def test_a_call_of_a_life_is_taken_by_the_primary_that_it_was_opened_on(checks):
    checks.life_opened(0.0, "A", "run", 1, 1)
    checks.took(1.0, "A", "run", 1)
    assert not checks.violations
    checks.took(1.0, "B", "another run", 1)
    assert "opened on run run" in only(checks, "a life has one primary")


def test_a_call_of_a_life_that_nobody_has_opened_is_taken_by_none(checks):
    checks.took(1.0, "A", "run", 1)
    assert "opened by nobody" in only(checks, "a life has one primary")


def test_what_a_node_has_carried_out_it_does_not_refuse_afterwards(checks):
    checks.forgotten(1.0, "A", b"operation", "conflict")
    assert "now says conflict" in only(checks, "an operation is known again")


def test_a_set_rests_on_nothing_that_may_have_changed_since(checks):
    checks.set_rests_on(1.0, "A", 2, 0.3, 0.5)
    assert not checks.violations
    checks.set_rests_on(1.0, "A", 2, 0.7, 0.5)
    assert "0.700 s ago" in only(checks, "a set rests on what is still so")


def test_who_is_known_to_be_dead_is_given_nothing(checks):
    checks.given(1.0, "s-0", A, [1])
    assert "gives it [1]" in only(checks, "a dead process stays dead")


def test_a_table_names_those_to_whom_partitions_were_given(checks):
    checks.granted(0.0, "A", 0, E1, A)
    checks.granted(0.0, "A", 1, E1, B)
    checks.table_seen(0.0, "c", (1, 1, 1), [A, B], [E1, E1])
    assert not checks.violations
    checks.table_seen(0.0, "c", (1, 1, 2), [A, A], [E1, E1])
    assert "partitions [1] belong to others" in only(checks, "no table has a hole")


def test_lives_sets_and_revocations_are_passed_on(checks):
    heard = []
    for hearing in (checks.on_life, checks.on_set, checks.on_revoke):
        hearing.append(lambda *told: heard.append(told))
    checks.life_opened(0.0, "A", "run", 1, 7)
    checks.set_recorded(0.0, "A", 1, 3)
    checks.revoked(0.0, "A", A)
    assert heard == [("A", 1, 7), ("A", 1, 3), ("A", A)]


class Calls:
    """A history that is written by hand."""

    def __init__(self):
        self.now = 0.0
        self.history = History(lambda: self.now)

    def made(self, name, key, *args, end=None, timeout=1.0, client="a", named=None):
        operation = self.history.begin(
            client, name, key, args, timeout=timeout, idempotency_key=named
        )
        if isinstance(end, Exception):
            self.history.failed(operation, end)
        elif end is not None:
            self.history.returned(operation, end)
        return operation


@pytest.fixture
def calls():
    return Calls()


LATER, LOST = Overloaded("later"), OutcomeUnknown("no verdict")


def test_calls_that_end_by_their_deadline_are_right(checks, calls):
    late = calls.made("KV.get", "k")
    calls.now = 1.4
    calls.history.returned(late, None)
    calls.made("KV.get", "k")  # still has time
    checks.calls_ended(1.5, calls.history, 0.5)
    assert not checks.violations


def test_a_call_that_has_not_ended_is_wrong(checks, calls):
    calls.made("KV.get", "k")
    checks.calls_ended(1.6, calls.history, 0.5)
    assert "KV.get('k') running had not ended" in only(checks, "every call ends")


def test_a_call_that_ended_too_late_is_wrong(checks, calls):
    late = calls.made("KV.get", "k")
    calls.now = 1.6
    calls.history.failed(late, LOST)
    checks.calls_ended(9.0, calls.history, 0.5)
    assert "ended at 1.600 s" in only(checks, "every call ends")


def at_last(checks, calls, value):
    checks.nothing_lost_or_doubled(9.0, calls.history, {("KV", b"k"): value})


@pytest.mark.parametrize("value", [["x", "y"], ["x", "y", "z"]])
def test_a_list_with_all_that_was_acknowledged_is_right(checks, calls, value):
    calls.made("KV.append", "k", "x", end=1)
    calls.made("KV.append", "k", "y", end=2)
    calls.made("KV.append", "k", "z", end=LOST)
    calls.made("KV.append", "k", "never", end=LATER)
    calls.made("KV.items", "k", end=["x"])
    at_last(checks, calls, value)
    assert not checks.violations


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (["y"], "nothing acknowledged is lost"),
        (["x", "x"], "exactly one effect"),
        (["x", "never"], '"not executed" never executed'),
        (["x", "whence"], "exactly one effect"),
        (["x", "y", "y"], "exactly one effect"),
        (None, "nothing acknowledged is lost"),
    ],
)
def test_a_list_that_lost_or_doubled_something_is_wrong(checks, calls, value, what):
    calls.made("KV.append", "k", "x", end=1)
    calls.made("KV.append", "k", "y", end=LOST)
    calls.made("KV.append", "k", "never", end=LATER)
    at_last(checks, calls, value)
    only(checks, what)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (2, ""),
        (3, ""),
        (1, "nothing acknowledged is lost"),
        (4, "exactly one effect"),
        (None, "nothing acknowledged is lost"),
    ],
)
def test_a_counter_stands_between_what_was_acknowledged_and_what_may_have_been(
    checks, calls, value, what
):
    calls.made("KV.incr", "k", end=1)
    calls.made("KV.incr", "k", end=2)
    calls.made("KV.incr", "k", end=LOST)
    calls.made("KV.incr", "k", end=LATER)
    at_last(checks, calls, value)
    assert [v.what for v in checks.violations] == ([what] if what else [])


def test_a_history_that_no_order_explains_is_wrong(checks, calls):
    calls.made("KV.put", "k", 1, end=LATER)
    checks.linearizable(9.0, calls.history)
    assert not checks.violations
    calls.made("KV.get", "k", end=1)
    checks.linearizable(9.0, calls.history)
    [violation] = checks.violations
    assert violation.what == "linearizable per key" and "KV.get('k') -> 1" in violation.evidence


def test_a_key_that_was_given_up_is_no_violation_but_is_said(checks, calls):
    open_ = [calls.made("KV.put", "k", i) for i in range(9)]
    calls.made("KV.get", "k", end=77)
    for operation in open_:
        calls.history.failed(operation, LOST)
    checks.linearizable(9.0, calls.history, max_steps=20)
    assert not checks.violations and "gave up" in checks.gave_up[0]


def asked(calls, answer, client="b"):
    calls.made("KV.~outcome", "k", "incr", "x", end=answer, client=client)


@pytest.mark.parametrize("end", [LOST, LATER, None])
@pytest.mark.parametrize("answer", [True, False])
def test_an_outcome_that_nobody_knows_better_is_right(checks, calls, end, answer):
    calls.made("KV.incr", "k", end=end, named="x")
    calls.made("KV.incr", "k", end=7, named="another")
    asked(calls, answer)
    asked(calls, answer, client="c")
    checks.outcomes_stay(9.0, calls.history)
    assert not checks.violations


def test_what_ran_although_it_was_said_never_to_run_is_wrong(checks, calls):
    asked(calls, False)
    calls.made("KV.incr", "k", end=1, named="x")
    checks.outcomes_stay(9.0, calls.history)
    assert "#1 b" in (said := only(checks, "an outcome stays what it is")) and "-> 1" in said


def test_two_who_ask_and_are_told_different_things_is_wrong(checks, calls):
    asked(calls, True)
    asked(calls, False, client="c")
    checks.outcomes_stay(9.0, calls.history)
    only(checks, "an outcome stays what it is")


def test_checks_that_hear_of_no_commit_say_so(checks, calls):
    calls.made("Counter.read", "k", end=0)
    checks.were_told(9.0, calls.history)
    calls.made("Counter.incr", "k", end=1)
    checks.were_told(9.0, calls.history)
    only(checks, "the checks are told of commits")
    checks.committed(1.0, "A", 1, A, 0, 1, [(0, E1)])
    checks.were_told(9.0, calls.history)
    assert len(checks.violations) == 1


def test_commits_and_grants_are_passed_on_in_the_step_in_which_they_happen(checks):
    heard = []
    checks.on_grant.append(lambda *grant: heard.append(grant))
    checks.on_commit.append(lambda *commit: heard.append(commit))
    checks.granted(0.0, "A", 0, E1, A)
    checks.committed(1.0, "A", 1, A, 0, 1, [(0, E1)])
    assert heard == [("A", 0, E1, A), ("A", A, [(0, E1)])]


# ------------------------------------------------------------------------------------------------ the counts


def stats(*, started=4, ok=1, entity_errors=0, not_executed=1, unknown=1, cancelled=0, running=1):
    return ClientStats(started, ok, entity_errors, not_executed, unknown, cancelled, running)


def some_calls(calls):
    calls.made("KV.incr", "k", end=1)
    calls.made("KV.incr", "k", end=LATER)
    calls.made("KV.incr", "k", end=LOST)
    calls.made("KV.incr", "k")
    calls.made("KV.incr", "k", end=2, client="b")


def test_counts_of_what_was_seen_are_right(checks, calls):
    some_calls(calls)
    checks.client_counts(9.0, "a", calls.history, stats())
    assert not checks.violations


def test_counts_are_of_what_callers_were_told_whatever_is_known_since(checks, calls):
    some_calls(calls)
    for operation in calls.history:
        calls.history.settle(operation, End.RETURNED, 5)
    checks.client_counts(9.0, "a", calls.history, stats())
    assert not checks.violations


@pytest.mark.parametrize(
    "wrong", [stats(started=5), stats(ok=2, unknown=0), stats(started=5, cancelled=1)]
)
def test_counts_of_anything_else_are_wrong(checks, calls, wrong):
    some_calls(calls)
    checks.client_counts(9.0, "a", calls.history, wrong)
    only(checks, "outcomes add up")


def test_a_handlers_counts_only_grow(checks):
    checks.handler_counts(1.0, "s-0", "h-0", 1, 0, 0, 0)
    checks.handler_counts(2.0, "s-0", "h-0", 2, 0, 1, 0)
    assert not checks.violations
    checks.handler_counts(3.0, "s-0", "h-0", 2, 0, 0, 0)
    only(checks, "outcomes add up")


def test_what_handlers_did_is_what_clients_had_where_nothing_disturbed_them(checks):
    checks.handler_counts(1.0, "s-0", "h-0", 1, 2, 9, 0)
    checks.handler_counts(1.0, "s-0", "h-1", 3, 0, 0, 0)
    quiet = stats(started=6, ok=4, entity_errors=2, not_executed=0, unknown=0, running=0)
    checks.counts_add_up(9.0, [quiet], undisturbed=True)
    assert not checks.violations
    less = stats(started=6, ok=3, entity_errors=2, not_executed=1, unknown=0, running=0)
    checks.counts_add_up(9.0, [less], undisturbed=False)
    assert not checks.violations
    checks.counts_add_up(9.0, [less], undisturbed=True)
    only(checks, "outcomes add up")


# --------------------------------------------------------------------------------------------------- liveness


def test_partitions_that_answer_in_time_are_right(checks):
    checks.owners_answer(30.0, 10.0, 5.0, {0: 10.2, 1: 15.0})
    assert not checks.violations


@pytest.mark.parametrize(
    ("answered", "said"),
    [({0: 10.2, 1: None}, "did not answer"), ({0: 10.2}, "did not"), ({0: 1.0, 1: 15.1}, "15.100")],
)
def test_a_partition_that_does_not_answer_in_time_is_wrong(checks, answered, said):
    checks.owners_answer(30.0, 10.0, 5.0, answered)
    line = only(checks, "every partition has an owner that answers")
    assert "partition 1" in line and said in line
