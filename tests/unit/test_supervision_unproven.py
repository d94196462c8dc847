"""The supervisor, step by step: taken over without a proof, and nobody answers twice."""

import pytest
from unit.mesh_rig import LEASE, up

from mesh.core import signals as sv
from mesh.core.epochs import unpack_epochs
from mesh.core.messages import Beat, Grant


def first(mesh, id_):
    return mesh.processes[f"{id_}.0".encode()]


def renewing(*ids, partitions=9):
    """A mesh at rest; everybody has just renewed, and the leader has seen it."""
    mesh = up(*ids, partitions=partitions)
    for process in mesh.alive:
        process.renew(mesh.now)
        process.renewal_lands()
    read(mesh)
    return mesh


def read(mesh):
    """The leader reads the renewal numbers."""
    for _ in range(8):
        mesh.tick(0.05)
        if mesh.reads:
            mesh.read_renewals()
            return
    raise AssertionError("nobody reads")


def give_up(mesh, id_, cause="unreachable"):
    """Its connection is cut, and the detector has its verdict; the call is on its way."""
    victim = first(mesh, id_)
    if victim.connected:
        mesh.cut(victim)
    mesh.step(sv.Unproven(victim.nonce, cause))
    return victim


def held_by(mesh, *but):
    return {p: x.id for x in mesh.alive if x not in but for p in x.held()}


def failovers(mesh):
    return [r.fields for r in mesh.records if r.kind == "failover"]


def test_it_is_revoked_and_its_partitions_move_in_one_call():
    mesh = renewing("a", "b", "c")
    victim = give_up(mesh, "a")
    [call] = mesh.calls
    assert call.revoke == (victim.nonce,) and len(call.moves) == 3


def test_new_owners_are_told_once_its_lease_is_out_and_not_before():
    mesh = renewing("a", "b", "c")
    seen_at = mesh.now
    victim = give_up(mesh, "a")
    lost = set(victim.held())
    mesh.answer_store()
    mesh.talk()
    while mesh.now + 0.05 < seen_at + LEASE.out_s:
        assert victim.may_answer(mesh.now) and not lost & held_by(mesh, victim).keys()
        mesh.tick(0.05)
        mesh.talk()
    mesh.tick(seen_at + LEASE.out_s - mesh.now)
    mesh.talk()
    assert not victim.may_answer(mesh.now)
    assert held_by(mesh, victim).keys() == set(range(9))


def test_until_then_a_grant_names_what_its_process_had_before():
    mesh = renewing("a", "b", "c")
    b = first(mesh, "b")
    before = b.held()
    give_up(mesh, "a")
    mesh.answer_store()
    [grant] = [m for m in b.inbox if isinstance(m, Grant)]
    assert {p: e for p, e in enumerate(unpack_epochs(grant.epochs)) if e} == before
    mesh.talk()
    assert b.held() == before


def test_clients_get_the_table_at_once():
    mesh = renewing("a", "b", "c")
    published = len(mesh.published)
    victim = give_up(mesh, "a")
    mesh.answer_store()
    assert len(mesh.published) == published + 1
    assert mesh.published[-1].partitions_of(victim.nonce) == []


def test_a_lease_that_has_long_run_out_is_not_waited_for():
    mesh = renewing("a", "b", "c")
    mesh.cut(first(mesh, "a"))
    mesh.tick(LEASE.out_s)
    mesh.read_renewals()
    victim = give_up(mesh, "a")
    mesh.answer_store()
    mesh.talk()
    assert held_by(mesh, victim).keys() == set(range(9)), "at once"


def test_a_renewal_that_nobody_saw_is_waited_out_in_full():
    mesh = renewing("a", "b", "c")
    victim = first(mesh, "a")
    mesh.tick(LEASE.duration_s / 2)
    victim.renew(mesh.now)
    victim.renewal_lands()
    give_up(mesh, "a")
    mesh.answer_store()
    told_at = mesh.now + LEASE.out_s
    mesh.tick(LEASE.out_s - 0.01)
    mesh.talk()
    assert len(held_by(mesh, victim)) == 6
    mesh.tick(told_at - mesh.now)
    mesh.talk()
    assert len(held_by(mesh, victim)) == 9


@pytest.mark.parametrize("when", ["before the answer", "during the wait"])
def test_its_proven_end_ends_the_wait(when):
    mesh = renewing("a", "b", "c")
    victim = give_up(mesh, "a")
    victim.alive = False
    if when == "during the wait":
        mesh.answer_store()
    mesh.report(victim)
    if when == "before the answer":
        mesh.answer_store()
    mesh.talk()
    assert len(held_by(mesh)) == 9
    assert not mesh.leader._affairs.members.revoked


def test_an_heir_that_dies_leaves_its_wait_to_the_next_one():
    """o1 unproven, o2 waits for its lease and dies proven: o3 must not skip o1's lease."""
    mesh = renewing("a", "b", "c")
    seen_at = mesh.now
    o1 = give_up(mesh, "a")
    lost = set(o1.held())
    mesh.answer_store()
    mesh.talk()
    o2 = first(mesh, "b")
    mesh.kill(o2)
    mesh.report(o2)
    mesh.answer_store()
    mesh.talk()
    o3 = first(mesh, "c")
    assert len(o3.held()) == 9 - len(lost), "what was o2's own, at once"
    mesh.tick(seen_at + LEASE.out_s - mesh.now)
    mesh.talk()
    assert len(o3.held()) == 9


def test_a_heir_that_comes_back_from_a_broken_connection_waits_on():
    mesh = renewing("a", "b", "c")
    victim = give_up(mesh, "a")
    mesh.answer_store()
    mesh.talk()
    b = first(mesh, "b")
    mesh.cut(b)
    mesh.connect(b)
    mesh.talk()
    assert len(held_by(mesh, victim)) == 6 and not mesh.calls
    assert not mesh.leader._affairs.handovers.missing, "it lacks what it may not have yet"


def test_while_the_store_is_away_nobody_is_given_up():
    mesh = renewing("a", "b", "c")
    while not mesh.reads:
        mesh.tick(0.05)
    mesh.read_renewals(away=True)
    give_up(mesh, "a")
    assert not mesh.calls
    read(mesh)
    assert not mesh.calls, "it has to be said again"
    give_up(mesh, "a")
    assert mesh.calls


def test_while_a_store_call_hangs_nobody_else_is_given_up():
    mesh = renewing("a", "b", "c")
    mesh.kill(first(mesh, "a"))
    mesh.report(first(mesh, "a"))
    mesh.answer_store(lost=True)
    give_up(mesh, "b")
    mesh.tick(0.06)
    mesh.answer_store()
    assert not mesh.calls and [m.row.id for m in mesh.leader.members] == ["b", "c"]


def test_a_verdict_upon_which_nothing_was_done_is_taken_back_when_it_is_there_again():
    mesh = renewing("a")
    victim = give_up(mesh, "a")
    assert not mesh.calls, "nobody else is there"
    mesh.connect(victim)
    mesh.tick(1.0)
    mesh.talk()
    assert not mesh.calls and not mesh.starting
    assert [m.state for m in mesh.leader.members] == ["alive"]


@pytest.mark.parametrize("how", ["connected", "beats", "registers"])
def test_it_is_told_that_its_grant_is_over_as_soon_as_it_can_be(how):
    mesh = renewing("a", "b", "c")
    victim = first(mesh, "a")
    if how == "connected":
        mesh.step(sv.Unproven(victim.nonce, "hang"))
        mesh.answer_store()
    else:
        give_up(mesh, "a")
        mesh.answer_store()
        victim.connected = True
        if how == "beats":
            mesh.step(sv.Beaten(Beat(victim.nonce, 0, 0, 0, 0, 0, 0)))
        else:
            mesh.connect(victim)
    over = victim.inbox[-1] if how != "connected" else victim.inbox[0]
    assert over == Grant(mesh.leader.token, victim.nonce, 1, 0, False, b"")
    mesh.talk()
    assert victim.held() == {}


def test_a_replacement_is_started_and_gets_its_share():
    mesh = renewing("a", "b", "c")
    victim = give_up(mesh, "a")
    mesh.answer_store()
    mesh.settle()
    mesh.cut(victim)
    victim.alive = False
    mesh.check_at_rest()
    assert sorted(p.nonce for p in mesh.alive) == [b"a.1", b"b.0", b"c.0"]


def test_its_late_end_is_not_taken_for_the_end_of_its_replacement():
    mesh = renewing("a", "b", "c")
    victim = give_up(mesh, "a")
    mesh.answer_store()
    mesh.tick(1.0)
    assert list(mesh.starting) == ["a"]
    victim.alive = False
    mesh.report(victim)
    mesh.tick(1.0)
    assert list(mesh.starting) == ["a"], "the one start that is under way"


@pytest.mark.parametrize("cause", ["hang", "unreachable", "gray"])
def test_the_event_names_the_cause_and_comes_when_new_owners_are_ready(cause):
    mesh = renewing("a", "b", "c")
    give_up(mesh, "a", cause)
    mesh.answer_store()
    mesh.talk()
    assert not failovers(mesh)
    mesh.tick(LEASE.out_s)
    mesh.talk()
    [failover] = failovers(mesh)
    assert (failover["cause"], failover["partitions"]) == (cause, 3)


def test_a_killed_hang_is_a_hang():
    mesh = renewing("a", "b")
    victim = first(mesh, "a")
    mesh.kill(victim)
    mesh.step(sv.ProcessExited(victim.nonce, "a", mesh.now, "hang"))
    mesh.answer_store()
    mesh.talk()
    assert [f["cause"] for f in failovers(mesh)] == ["hang"]
    assert len(held_by(mesh)) == 9, "proven: nothing is waited for"


def test_nothing_is_planned_while_somebody_waits():
    mesh = renewing("a", "b", "c")
    give_up(mesh, "a")
    mesh.answer_store()
    mesh.start("x")
    mesh.answer_store()
    mesh.talk()
    assert not mesh.leader._affairs.handovers.intents
    mesh.tick(LEASE.out_s)
    assert mesh.leader._affairs.handovers.intents


def test_renewals_are_read_again_once_the_last_reading_is_back():
    mesh = up("a", "b")
    mesh.reads.clear()
    mesh.leader._affairs.readings.answered()
    for _ in range(10):
        mesh.tick(0.05)
    assert len(mesh.reads) == 1
    assert set(mesh.reads[0]) == {b"a.0", b"b.0"}
    mesh.read_renewals()
    mesh.tick(LEASE.read_s)
    assert len(mesh.reads) == 1


def closed(mesh):
    return [r.fields["life"] for r in mesh.records if r.kind == "life_closed"]


def test_while_a_primary_says_that_the_life_is_closed_nobody_is_given_up():
    mesh = renewing("a", "b")
    mesh.server.restart()
    read(mesh)
    read(mesh)
    give_up(mesh, "a")
    mesh.tick(5.0)
    assert not mesh.calls and not mesh.leader.deposed
    assert closed(mesh) == [1], "said once"


def test_what_another_primary_refuses_is_asked_again_and_carried_out_where_the_life_is_open():
    """One that was left behind is back for a moment, and this leader has found it (seed 4, cut primary)."""
    mesh = renewing("a", "b")
    own = mesh.server.run_id
    mesh.server.restart()
    read(mesh)
    victim = first(mesh, "a")
    mesh.kill(victim)
    mesh.report(victim)
    mesh.answer_store()
    mesh.server.run_id = own
    mesh.settle()
    assert [f["handler"] for f in failovers(mesh)] == ["a"]
    assert closed(mesh) == [1]


def weights(mesh):
    return {p.id: len(p.held()) for p in mesh.alive}


def test_load_is_taken_off_who_is_gray_by_planned_moves_and_comes_back():
    mesh = renewing("a", "b", "c")
    mesh.step(sv.Weigh(b"a.0", 0.0, "gray"))
    mesh.settle()
    assert weights(mesh) == {"a": 0, "b": 5, "c": 4} or weights(mesh) == {"a": 0, "b": 4, "c": 5}
    assert mesh.records[-1].fields["why"] == "gray" and mesh.records[-1].fields["from"] == ["a"]
    assert not failovers(mesh)
    mesh.step(sv.Weigh(b"a.0", 1.0, "well"))
    mesh.settle()
    mesh.check_at_rest()


def test_only_a_few_are_relieved_at_once_and_the_first_come_first():
    mesh = renewing("a", "b", "c")
    mesh.step(sv.Weigh(b"a.0", 0.0, "gray"))
    mesh.tick(0.05)
    mesh.step(sv.Weigh(b"b.0", 0.0, "gray"))
    mesh.settle()
    assert weights(mesh)["a"] == 0 and weights(mesh)["b"] > 0
    mesh.step(sv.Weigh(b"a.0", 1.0, "well"))
    mesh.settle()
    assert weights(mesh)["a"] > 0 and weights(mesh)["b"] == 0


def test_the_partitions_of_the_dead_do_not_go_to_who_is_gray():
    mesh = renewing("a", "b", "c")
    mesh.step(sv.Weigh(b"a.0", 0.0, "gray"))
    mesh.settle()
    mesh.kill(first(mesh, "b"))
    mesh.report(first(mesh, "b"))
    mesh.answer_store()
    mesh.talk()
    assert weights(mesh) == {"a": 0, "c": 9}


def test_where_only_the_gray_are_left_they_carry_on():
    mesh = renewing("a", "b")
    mesh.step(sv.Weigh(b"a.0", 0.0, "gray"))
    mesh.settle()
    mesh.kill(first(mesh, "b"))
    mesh.report(first(mesh, "b"))
    mesh.answer_store()
    mesh.talk()
    assert weights(mesh) == {"a": 9}
