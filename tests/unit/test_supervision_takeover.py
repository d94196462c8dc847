"""The supervisor, step by step: deaths, and a store that does not answer as one would like."""

import pytest
from unit.mesh_rig import Mesh, up

from mesh.core import signals as sv
from mesh.core.records import StoreStatus, TakeoverReply


def first(mesh, id_):
    return mesh.processes[f"{id_}.0".encode()]


def owners(mesh):
    return {mesh.leader.table.owner(p).handler.id for p in range(mesh.partitions)}


def records(mesh, kind):
    return [r.fields for r in mesh.records if r.kind == kind]


def test_the_first_table_waits_for_every_handler():
    mesh = Mesh("a", "b")
    mesh.start("a")
    mesh.tick(60)
    assert not mesh.calls and mesh.leader.table is None
    mesh.start("b")
    assert len(mesh.calls) == 1
    mesh.answer_store()
    assert [len(mesh.published[-1].partitions_of(p.nonce)) for p in mesh.alive] == [4, 4]
    assert not mesh.leader.ready, "nobody has taken up a grant yet"
    mesh.settle()
    mesh.check_at_rest()


def test_a_handler_that_dies_before_the_first_table_is_waited_for_again():
    mesh = Mesh("a", "b")
    a = mesh.start("a")
    mesh.kill(a)
    mesh.report(a)
    mesh.start("b")
    assert not mesh.calls
    mesh.settle()
    mesh.check_at_rest()
    assert sorted(p.nonce for p in mesh.alive) == [b"a.1", b"b.0"]


def test_a_broken_connection_is_no_death():
    mesh = up("a", "b")
    mesh.cut(first(mesh, "a"))
    mesh.tick(60)
    assert not mesh.calls and not mesh.starting
    assert [m.state for m in mesh.leader.members] == ["suspect", "alive"]


def test_one_death_is_one_call_and_survivors_share_it_evenly():
    mesh = up("a", "b", "c", partitions=9)
    victim = first(mesh, "a")
    mesh.kill(victim)
    mesh.report(victim)
    [call] = mesh.calls
    assert call.revoke == (victim.nonce,) and len(call.moves) == 3
    assert {m.from_nonce for m in call.moves} == {victim.nonce}
    assert not any(p.inbox for p in mesh.alive), "nobody is told before the store has answered"
    mesh.answer_store()
    mesh.talk()
    sizes = [len(p.held()) for p in mesh.alive]
    assert sorted(sizes) == [4, 5] and owners(mesh) == {"b", "c"}
    [failover] = records(mesh, "failover")
    assert (failover["handler"], failover["partitions"]) == ("a", 3)


def test_what_the_survivors_owned_does_not_move():
    mesh = up("a", "b", "c", partitions=9)
    before = mesh.leader.table
    mesh.kill(first(mesh, "a"))
    mesh.report(first(mesh, "a"))
    mesh.answer_store()
    after = mesh.leader.table
    for p in range(9):
        if before.owner(p).handler.id != "a":
            assert before.owner(p) == after.owner(p)
        else:
            assert after.epochs[p] == before.epochs[p] + 1


def test_new_owners_are_told_before_the_table_is_published():
    mesh = up("a", "b", "c")
    victim = first(mesh, "a")
    mesh.kill(victim)
    mesh.report(victim)
    call = mesh.calls.popleft()
    reply = mesh.server.takeover(call)
    now = sv.StoreReplied(call.operation, TakeoverReply(reply.status, True, {}, reply.versions))
    kinds = [type(e) for e in mesh.leader.step(now, mesh.now)]
    assert kinds == [sv.TellGrant, sv.TellGrant, sv.PublishTable, sv.AwaitPublished]


def test_deaths_while_a_call_is_under_way_share_the_next_one():
    mesh = up("a", "b", "c", "d")
    for id_ in ("a", "b", "c"):
        mesh.kill(first(mesh, id_))
        mesh.report(first(mesh, id_))
    assert [c.revoke for c in mesh.calls] == [(b"a.0",)]
    mesh.answer_store()
    assert [c.revoke for c in mesh.calls] == [(b"b.0", b"c.0")]
    mesh.answer_store()
    mesh.talk()
    assert owners(mesh) == {"d"} and len(first(mesh, "d").held()) == 8
    assert len(records(mesh, "failover")) == 3


def test_an_heir_that_dies_during_the_call_is_inherited_from_in_turn():
    mesh = up("a", "b", "c")
    mesh.kill(first(mesh, "a"))
    mesh.report(first(mesh, "a"))
    heir = first(mesh, "b")
    mesh.kill(heir)
    mesh.report(heir)
    mesh.answer_store()
    mesh.answer_store()
    mesh.talk()
    assert len(first(mesh, "c").held()) == 8


def test_a_joiner_that_dies_while_it_is_enrolled_leaves_no_trace():
    mesh = up("a", "b")
    joiner = mesh.start("x")
    assert mesh.calls[0].enroll == ((joiner.nonce, "x"),)
    mesh.kill(joiner)
    mesh.report(joiner)
    mesh.settle()
    mesh.check_at_rest()
    assert not mesh.server.grants[joiner.nonce].active
    assert owners(mesh) == {"a", "b"}


def test_when_all_have_died_replacements_start_at_once_and_take_over():
    mesh = up("a", "b")
    for id_ in ("a", "b"):
        mesh.kill(first(mesh, id_))
        mesh.report(first(mesh, id_))
    mesh.answer_store()
    assert not mesh.calls, "nobody is left to take over"
    mesh.tick(0.01)
    assert sorted(mesh.starting) == ["a", "b"]
    mesh.settle()
    mesh.check_at_rest()


def test_a_process_that_never_registers_is_started_again():
    mesh = up("a", "b")
    mesh.kill(first(mesh, "a"))
    mesh.report(first(mesh, "a"))
    mesh.answer_store()
    mesh.talk()
    mesh.tick(1.0)
    assert list(mesh.starting) == ["a"]
    mesh.starting.clear()
    mesh.tick(mesh.leader.config.start_s - 1)
    assert not mesh.starting, "it has that long"
    mesh.tick(2.0)
    mesh.tick(mesh.leader.config.restart_most_s)
    assert list(mesh.starting) == ["a"]
    mesh.settle()
    mesh.tick(mesh.leader.config.start_s * 2)
    assert not mesh.starting, "it is there"


def test_an_unreachable_store_is_sent_the_same_operation_until_it_answers():
    mesh = up("a", "b")
    mesh.kill(first(mesh, "a"))
    mesh.report(first(mesh, "a"))
    [call] = mesh.calls
    for carried_out in (False, True, True):
        mesh.answer_store(lost=True, carried_out=carried_out)
        assert not mesh.calls, "after a pause"
        mesh.tick(0.06)
        assert list(mesh.calls) == [call]
        assert not first(mesh, "b").inbox
    mesh.answer_store()
    mesh.talk()
    assert len(first(mesh, "b").held()) == 8


def test_nobody_is_told_of_a_call_before_every_member_of_the_set_has_it():
    mesh = up("a", "b")
    mesh.server.pause(mesh.server.links[0])
    published = len(mesh.published)
    mesh.kill(first(mesh, "a"))
    mesh.report(first(mesh, "a"))
    [call] = mesh.calls
    for _ in range(3):
        mesh.answer_store()
        assert list(mesh.calls) == [call], "the same operation"
        assert not first(mesh, "b").inbox and len(mesh.published) == published
    mesh.server.resume(mesh.server.links[0])
    mesh.answer_store()
    assert first(mesh, "b").inbox and len(mesh.published) == published + 1


@pytest.mark.parametrize("status", [StoreStatus.DEPOSED, StoreStatus.CONFLICT])
def test_a_leader_whose_call_is_refused_does_nothing_more(status):
    mesh = up("a", "b")
    victim = first(mesh, "a")
    mesh.kill(victim)
    mesh.report(victim)
    [call] = mesh.calls
    refused = sv.StoreReplied(call.operation, TakeoverReply(status, detail="why"))
    [record, over] = mesh.leader.step(refused, mesh.now)
    assert over == sv.Deposed()
    assert record.kind == "leader_stopped" and record.fields["reason"] == status.value
    assert mesh.leader.step(sv.Tick(), mesh.now + 60) == []
    assert mesh.leader.step(sv.ProcessExited(b"b.0", "b", mesh.now), mesh.now) == []


def test_an_answer_to_an_earlier_call_is_ignored():
    mesh = up("a", "b", "c")
    old = mesh.made[-1]
    mesh.kill(first(mesh, "a"))
    mesh.report(first(mesh, "a"))
    mesh.step(sv.StoreReplied(old.operation, TakeoverReply(StoreStatus.OK, acknowledged=True)))
    assert len(mesh.calls) == 1 and not first(mesh, "b").inbox


def test_an_exit_is_reported_once_however_often_it_is_told():
    mesh = up("a", "b")
    victim = first(mesh, "a")
    mesh.kill(victim)
    for _ in range(3):
        mesh.report(victim)
    mesh.answer_store()
    mesh.report(victim)
    assert not mesh.calls and len(mesh.leader._affairs.replacements.due) == 1


@pytest.mark.parametrize("buried", [True, False])
def test_the_last_words_of_a_dead_process_do_not_bring_it_back(buried):
    """Its registration, out of the socket's buffer, may be read after the proof of its exit."""
    mesh = up("a", "b")
    victim = first(mesh, "a")
    mesh.kill(victim)
    mesh.report(victim)
    if buried:
        mesh.answer_store()
    mesh.connect(victim)
    mesh.cut(victim)
    mesh.settle()
    mesh.check_at_rest()


def after_a_death():
    """A mesh of "a" and "b" whose process "a" is dead and taken over, and not started again yet."""
    mesh = up("a", "b")
    victim = first(mesh, "a")
    mesh.kill(victim)
    mesh.report(victim)
    mesh.answer_store()
    return mesh


def test_a_process_that_dies_before_it_is_heard_of_is_replaced():
    mesh = after_a_death()
    mesh.tick(1.0)
    stillborn = mesh.starting.popleft()
    mesh.step(sv.ProcessExited(b"a.1", "a", mesh.now))
    mesh.start(stillborn)
    assert mesh.leader._affairs.replacements.due.keys() == {"a"}
    mesh.processes[b"a.1"].alive = False
    mesh.settle()
    mesh.check_at_rest()


def test_a_process_that_dies_unregistered_is_replaced_before_its_start_is_overdue():
    mesh = after_a_death()
    mesh.tick(1.0)
    mesh.starting.popleft()
    mesh.step(sv.ProcessExited(b"a.unheard", "a", mesh.now))
    mesh.tick(1.0)
    assert list(mesh.starting) == ["a"]
    mesh.settle()
    mesh.check_at_rest()


def test_an_exit_from_before_a_start_does_not_stand_for_the_process_that_is_started():
    mesh = after_a_death()
    before = mesh.now
    mesh.tick(1.0)
    mesh.step(sv.ProcessExited(b"a.older", "a", before))
    mesh.tick(1.0)
    assert list(mesh.starting) == ["a"], "the one start that is under way"
    mesh.settle()
    mesh.check_at_rest()


def test_a_handler_that_dies_again_and_again_is_started_ever_later_up_to_a_limit():
    mesh = up("a", "b")
    delays = []
    for _ in range(8):
        [victim] = [p for p in mesh.alive if p.id == "a"]
        died = mesh.now
        mesh.kill(victim)
        mesh.report(victim)
        mesh.answer_store()
        while not mesh.starting:
            mesh.tick(0.05)
        delays.append(mesh.now - died)
        mesh.start(mesh.starting.popleft())
        while mesh.talk() or mesh.calls:
            if mesh.calls:
                mesh.answer_store()
    assert delays == pytest.approx([0.25, 0.5, 1, 2, 4, 8, 10, 10], abs=0.051)
    mesh.tick(31.0)
    [victim] = [p for p in mesh.alive if p.id == "a"]
    mesh.kill(victim)
    mesh.report(victim)
    assert mesh.leader._affairs.replacements.due["a"] == pytest.approx(mesh.now + 0.25), (
        "it had settled"
    )


def test_a_handler_that_runs_already_is_not_started_a_second_time():
    mesh = up("a", "b")
    mesh.kill(first(mesh, "a"))
    mesh.report(first(mesh, "a"))
    mesh.start("a")
    mesh.settle()
    assert len(mesh.processes) == 3


def test_a_failed_start_is_told_and_tried_again():
    mesh = up("a", "b")
    mesh.kill(first(mesh, "a"))
    mesh.report(first(mesh, "a"))
    mesh.answer_store()
    mesh.tick(1.0)
    mesh.step(sv.StartFailed(mesh.starting.popleft(), "no room"))
    assert records(mesh, "handler_start_failed") == [{"handler": "a", "reason": "no room"}]
    mesh.settle()
    mesh.check_at_rest()


def test_a_handler_that_is_not_configured_is_not_replaced():
    mesh = up("a", "b")
    guest = mesh.start("guest")
    mesh.settle()
    mesh.kill(guest)
    mesh.report(guest)
    mesh.settle()
    mesh.check_at_rest()
    assert len(mesh.processes) == 3


def test_with_nobody_alive_only_the_first_attempt_after_a_death_is_urgent():
    """What cannot be started, be it for want of memory, is not tried twenty times a second."""
    mesh = up("a")
    mesh.kill(first(mesh, "a"))
    mesh.report(first(mesh, "a"))
    failed, waits = mesh.now, []
    while len(waits) < 6:
        while not mesh.starting:
            mesh.tick(0.05)
        waits.append(mesh.now - failed)
        mesh.step(sv.StartFailed(mesh.starting.popleft(), "no room"))
        failed = mesh.now
    assert waits == pytest.approx([0.05, 0.5, 1, 2, 4, 8], abs=0.051)
    while not mesh.starting:
        mesh.tick(0.05)
    mesh.settle()
    mesh.check_at_rest()
    again = mesh.alive[0]
    mesh.kill(again)
    mesh.report(again)
    mesh.tick(0.01)
    assert list(mesh.starting) == ["a"], "a death is urgent, whatever came before it"


def test_the_reason_of_a_failed_start_is_cut():
    mesh = up("a", "b")
    mesh.step(sv.StartFailed("a", "x" * 10_000))
    assert records(mesh, "handler_start_failed") == [{"handler": "a", "reason": "x" * 500}]
