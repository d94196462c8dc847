"""The supervisor, step by step: a leader that begins with what others have left."""

import msgpack
import pytest
from unit.mesh_rig import LEASE, Mesh, up

from mesh.core import signals as sv
from mesh.core.learned import Learned, decode_plans, encode_plans
from mesh.core.members import Intent
from mesh.core.messages import Grant, Register, Release
from mesh.core.supervision import Supervision
from mesh.core.table import Table


def first(mesh, id_):
    return mesh.processes[f"{id_}.0".encode()]


def renewing(*ids, partitions=9):
    mesh = up(*ids, partitions=partitions)
    renew(mesh)
    return mesh


def renew(mesh, *processes):
    for process in processes or mesh.alive:
        process.renew(mesh.now)
        process.renewal_lands()


def pass_time(mesh, seconds, *renewers):
    """In ticks; these renew meanwhile, and the leader reads it."""
    end = mesh.now + seconds
    while mesh.now < end:
        if renewers:
            renew(mesh, *renewers)
        mesh.tick(min(0.05, end - mesh.now + 1e-9))
        while mesh.reads:
            mesh.read_renewals()


def everyone_comes(mesh):
    for process in mesh.alive:
        mesh.connect(process)


def test_processes_on_record_go_on_as_they_were():
    mesh = renewing("a", "b", "c")
    before = {p.nonce: p.held() for p in mesh.alive}
    mesh.change_leader()
    everyone_comes(mesh)
    mesh.settle()
    mesh.check_at_rest()
    assert {p.nonce: p.held() for p in mesh.alive} == before
    assert not mesh.leader._affairs.takeovers._numbers, "no call was needed"


def test_in_a_new_life_each_gets_its_grant_of_that_life_with_the_same_epochs():
    mesh = renewing("a", "b", "c")
    before = {p.nonce: p.held() for p in mesh.alive}
    mesh.change_leader(new_life=True)
    everyone_comes(mesh)
    for process in mesh.alive:
        assert [m.life for m in process.inbox if isinstance(m, Grant)] == [2]
    mesh.settle()
    assert {p.nonce: p.held() for p in mesh.alive} == before
    assert {p.core.grant.life for p in mesh.alive} == {2}


def test_a_new_leader_publishes_the_table_on_record():
    """The last one may not have come to it."""
    mesh = renewing("a", "b")
    mesh.change_leader()
    published = len(mesh.published)
    mesh.tick(0.0)
    assert len(mesh.published) == published + 1


def test_nothing_is_taken_from_whom_the_leader_has_not_met_before_its_lease_is_out():
    mesh = renewing("a", "b", "c")
    mesh.change_leader(knows_deaths=False)
    began = mesh.now
    mesh.tick(0.0)
    mesh.read_renewals()
    for id_ in ("b", "c"):
        mesh.connect(first(mesh, id_))
    while mesh.now < began + LEASE.out_s - 0.06:
        pass_time(mesh, 0.05)
        assert not mesh.calls
    pass_time(mesh, 0.1)
    [call] = mesh.calls
    assert call.revoke == (b"a.0",)
    mesh.answer_store()
    mesh.talk()
    assert len(first(mesh, "b").held()) + len(first(mesh, "c").held()) == 9, "its lease is out"


def test_one_that_renews_and_does_not_come_gets_some_time_and_then_its_lease_is_waited_out():
    mesh = renewing("a", "b", "c")
    mesh.change_leader(knows_deaths=False)
    began, a = mesh.now, first(mesh, "a")
    mesh.tick(0.0)
    for id_ in ("b", "c"):
        mesh.connect(first(mesh, id_))
    pass_time(mesh, mesh.config.contact_s - 0.1, a)
    assert not mesh.calls
    pass_time(mesh, 0.2, a)
    assert [c.revoke for c in mesh.calls] == [(a.nonce,)]
    mesh.answer_store()
    mesh.talk()
    assert a.may_answer(mesh.now) and len(first(mesh, "b").held()) == 3
    pass_time(mesh, LEASE.out_s)
    mesh.talk()
    assert len(first(mesh, "b").held()) > 3 and mesh.now > began


def test_while_the_store_is_away_nobody_on_record_is_given_up():
    mesh = renewing("a", "b")
    mesh.change_leader(knows_deaths=False)
    mesh.tick(0.0)
    mesh.connect(first(mesh, "b"))
    for _ in range(60):
        if mesh.reads:
            mesh.read_renewals(away=True)
        mesh.tick(0.1)
    assert not mesh.calls


def test_a_proof_needs_no_wait():
    mesh = renewing("a", "b", "c")
    mesh.kill(first(mesh, "a"))
    mesh.change_leader(knows_deaths=False)
    for id_ in ("b", "c"):
        mesh.connect(first(mesh, id_))
    mesh.report(first(mesh, "a"))
    assert [c.revoke for c in mesh.calls] == [(b"a.0",)]


def test_a_death_that_was_proven_to_the_last_leader_is_known():
    mesh = renewing("a", "b", "c")
    mesh.kill(first(mesh, "a"))
    mesh.report(first(mesh, "a"))
    mesh.change_leader()
    mesh.connect(first(mesh, "b"))
    assert [c.revoke for c in mesh.calls] == [(b"a.0",)]


def taken_over_unproven(*, told):
    """ "a" was given up by a leader that was replaced; had it `told` the others that its lease was out?"""
    mesh = renewing("a", "b", "c")
    mesh.cut(first(mesh, "a"))
    mesh.step(sv.Unproven(b"a.0", "unreachable"))
    mesh.answer_store()
    mesh.talk()
    if told:
        mesh.tick(LEASE.out_s)
        mesh.talk()
        assert len(first(mesh, "b").held()) + len(first(mesh, "c").held()) == 9
    return mesh


@pytest.mark.parametrize("new_life", [False, True])
def test_a_new_leader_starts_the_waits_again(new_life):
    """The table says that they are the new owners'; a table is no permission (F9 b)."""
    mesh = taken_over_unproven(told=False)
    mesh.tick(LEASE.out_s / 2)
    mesh.change_leader(new_life=new_life)
    began = mesh.now
    everyone_comes(mesh)
    for id_ in ("b", "c"):
        while first(mesh, id_).inbox:
            mesh.receive(first(mesh, id_))
    assert len(first(mesh, "b").held()) == 3
    pass_time(mesh, LEASE.out_s - 0.06)
    mesh.talk()
    assert len(first(mesh, "b").held()) == 3
    pass_time(mesh, began + LEASE.out_s - mesh.now)
    mesh.talk()
    assert len(first(mesh, "b").held()) + len(first(mesh, "c").held()) == 9


def test_what_a_process_was_told_by_the_last_leader_it_keeps():
    """The last one had waited: taken away, its calls would be refused, and its batches dropped."""
    mesh = taken_over_unproven(told=True)
    mesh.change_leader(new_life=True)
    held = {id_: first(mesh, id_).held() for id_ in ("b", "c")}
    for id_ in ("b", "c"):
        mesh.connect(first(mesh, id_))
    mesh.talk()
    assert {id_: first(mesh, id_).held() for id_ in ("b", "c")} == held
    assert not mesh.leader._affairs.waits


def test_a_wait_survives_two_leaders_and_an_heir():
    mesh = taken_over_unproven(told=False)
    mesh.change_leader()
    everyone_comes(mesh)
    heir = first(mesh, "b")
    mesh.kill(heir)
    mesh.report(heir)
    mesh.answer_store()
    mesh.change_leader()
    mesh.connect(first(mesh, "c"))
    mesh.talk()
    assert len(first(mesh, "c").held()) < 9
    pass_time(mesh, LEASE.out_s + 0.05)
    mesh.talk()
    assert len(first(mesh, "c").held()) == 9


def test_a_leader_that_was_replaced_moves_nothing_any_more():
    """F9: its call was acknowledged, and it was paused before it could tell."""
    mesh = renewing("a", "b", "c")
    mesh.kill(first(mesh, "a"))
    mesh.report(first(mesh, "a"))
    mesh.change_leader(carried_out=True)
    [former] = mesh.former
    mesh.connect(first(mesh, "b"))
    mesh.connect(first(mesh, "c"))
    mesh.talk()
    mesh.former_goes_on(former)
    late = [m for p in mesh.alive for m in p.late]
    assert late and {m.token for m in late} == {1}
    for process in mesh.alive:
        while process.late:
            mesh.receive_late(process)
    mesh.settle()
    mesh.check_at_rest()


def test_plans_of_the_last_leader_are_carried_out_by_the_next():
    mesh = up("a", "b", partitions=9)
    mesh.start("x")
    mesh.answer_store()
    planned = dict(mesh.leader._affairs.handovers.intents)
    mesh.change_leader()
    everyone_comes(mesh)
    asks = [m for p in mesh.alive for m in p.inbox if isinstance(m, Release)]
    assert {p for ask in asks for p, _ in ask.partitions} == planned.keys()
    assert {ask.token for ask in asks} == {2}
    mesh.settle()
    mesh.check_at_rest()


def test_what_was_released_to_the_last_leader_moves_under_the_next():
    mesh = up("a", "b", partitions=9)
    mesh.start("x")
    mesh.answer_store()
    for process in mesh.alive:
        while process.inbox:
            mesh.receive(process)
    mesh.change_leader()  # the releases are lost on their way
    everyone_comes(mesh)
    mesh.settle()
    mesh.check_at_rest()


def test_a_plan_that_does_not_fit_the_table_on_record_is_over():
    mesh = up("a", "b")
    blob = encode_plans({0: Intent(b"gone", 65537, b"b.0")}, [], [])
    learned = Learned(mesh.leader.table, {b"a.0": "a", b"b.0": "b"}, {}, blob)
    leader = Supervision(mesh.config, partitions=8, life=1, token=2, learned=learned)
    leader.step(sv.Tick(), 1.0)
    assert not leader._affairs.handovers.intents


def test_who_lost_its_grant_under_the_last_leader_is_told_so_by_the_next():
    """R3: it names a life that is closed, and waits for a word."""
    mesh = taken_over_unproven(told=False)
    mesh.change_leader(new_life=True)
    a = first(mesh, "a")
    mesh.connect(a)
    assert [m.active for m in a.inbox if isinstance(m, Grant)] == [False]
    mesh.talk()
    assert not a.alive


def test_one_that_was_revoked_before_it_heard_of_any_grant_is_not_enrolled_again():
    """Its enrolment would be refused as a contradiction, and the leader with it."""
    mesh = renewing("a", "b")
    joiner = mesh.start("x")
    mesh.answer_store()
    mesh.cut(joiner)
    mesh.step(sv.Unproven(joiner.nonce, "unreachable"))
    mesh.answer_store()
    assert not mesh.server.grants[joiner.nonce].active
    mesh.change_leader()
    mesh.connect(joiner)
    assert [m.active for m in joiner.inbox if isinstance(m, Grant)] == [False]
    assert not mesh.calls


def test_a_handler_that_is_missing_is_started_after_a_while():
    """The last leader may just have been starting it."""
    mesh = renewing("a", "b")
    mesh.kill(first(mesh, "a"))
    mesh.report(first(mesh, "a"))
    mesh.answer_store()
    mesh.talk()
    mesh.change_leader()
    mesh.connect(first(mesh, "b"))
    pass_time(mesh, mesh.config.contact_s - 0.1)
    assert not mesh.starting
    pass_time(mesh, 0.2)
    assert list(mesh.starting) == ["a"]


# ------------------------------------------------------------------ the first of an `up`


def up_again():
    """A mesh that was taken down, with everybody dead and nobody told; another `up` begins on its data."""
    mesh = renewing("a", "b", "c")
    for process in list(mesh.processes.values()):
        process.alive = process.connected = False
    mesh.now += 60
    mesh.change_leader(new_life=True, knows_deaths=False, first=True)
    mesh.tick(0.0)
    mesh.published.clear()
    return mesh


def test_an_up_on_old_data_places_everything_evenly_in_one_call_once_old_leases_are_out():
    mesh = up_again()
    began = mesh.now
    mesh.read_renewals()
    for id_ in ("a", "b", "c"):
        mesh.start(id_)
    assert not mesh.calls and not mesh.published
    pass_time(mesh, LEASE.out_s - 0.06)
    assert not mesh.calls
    pass_time(mesh, 0.12)
    [call] = mesh.calls
    assert len(call.revoke) == len(call.enroll) == 3 and len(call.moves) == 9
    mesh.answer_store()
    mesh.talk()
    assert [len(p.held()) for p in mesh.alive] == [3, 3, 3]
    assert mesh.now < began + LEASE.out_s + 0.1
    assert not [r for r in mesh.records if r.kind == "failover"]
    assert not mesh.starting, "whoever brings the mesh up starts its handlers"
    mesh.settle()
    mesh.check_at_rest()


def test_an_up_on_old_data_waits_for_all_handlers_however_long_old_leases_have_been_out():
    mesh = up_again()
    mesh.read_renewals()
    mesh.start("a")
    mesh.start("b")
    pass_time(mesh, 20.0)
    assert not mesh.calls and not mesh.starting and not mesh.published
    mesh.start("c")
    assert len(mesh.calls) == 1
    mesh.settle()
    mesh.check_at_rest()


def test_a_standby_that_leads_before_the_first_table_waits_for_all_handlers_too():
    mesh = Mesh("a", "b")
    mesh.start("a")
    mesh.change_leader()
    everyone_comes(mesh)
    pass_time(mesh, 1.0)
    assert not mesh.calls
    mesh.settle()
    mesh.check_at_rest()


def test_an_owner_on_record_without_a_grant_is_succeeded_after_a_whole_lease():
    """Its grant was ended by somebody who left no word of it."""
    mesh = renewing("a", "b")
    grant = mesh.server.grants[b"a.0"]
    mesh.server.handlers.pop(b"a.0")
    grant.active = False
    grant.epochs.clear()
    mesh.change_leader(knows_deaths=False)
    mesh.connect(first(mesh, "b"))
    mesh.answer_store()
    mesh.talk()
    assert len(first(mesh, "b").held()) < 9
    pass_time(mesh, LEASE.out_s + 0.05)
    mesh.talk()
    assert len(first(mesh, "b").held()) == 9


def test_what_a_leader_leaves_reads_back():
    intents = {3: Intent(b"o1", 65537, b"o2")}
    plans = decode_plans(encode_plans(intents, [[b"o3", b"\0\0\0\1"]], [b"o3"]))
    assert plans.intents == intents
    assert (plans.waits, plans.revoked) == ([(b"o3", b"\0\0\0\1")], [b"o3"])
    assert not decode_plans(b"").intents


def test_plans_of_an_earlier_release_are_made_anew():
    assert not decode_plans(msgpack.packb([[3, b"o1", 65537, b"o2"]])).intents


def test_a_fresh_process_is_no_stranger_to_a_new_leader():
    mesh = renewing("a", "b")
    mesh.change_leader()
    register = Register("n", b"n.0", "127.0.0.1", 7, 1, "", 1.0, None, None, 0, 0, b"")
    assert not [
        e
        for e in mesh.leader.step(sv.Registered(register), mesh.now)
        if isinstance(e, sv.TellGrant)
    ]
    assert isinstance(mesh.leader.table, Table)
