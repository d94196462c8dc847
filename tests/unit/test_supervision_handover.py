"""The supervisor, step by step: joining, moving on purpose, and messages that got lost."""

from unit.mesh_rig import up

from mesh.core import signals as sv
from mesh.core.learned import decode_plans
from mesh.core.messages import Release


def first(mesh, id_):
    return mesh.processes[f"{id_}.0".encode()]


def joining(partitions=9):
    """Two handlers at rest, a third whose share has been asked for; nothing is released yet."""
    mesh = up("a", "b", partitions=partitions)
    joiner = mesh.start("x")
    mesh.answer_store()
    return mesh, joiner


def moving(mesh):
    return set(mesh.leader._affairs.handovers.intents)


def release(mesh, process):
    """Take messages up to the request for partitions; the answer is on its way."""
    while process.inbox and not any(p.partitions for p in process.outbox if hasattr(p, "token")):
        mesh.receive(process)


def test_what_is_meant_to_move_is_on_record_before_anyone_is_asked():
    mesh = up("a", "b", partitions=9)
    mesh.start("x")
    [call] = mesh.calls
    assert not call.moves and len(decode_plans(call.intents).intents) == 3
    assert not first(mesh, "a").inbox and not first(mesh, "b").inbox
    mesh.answer_store()
    asks = [m for p in mesh.alive for m in p.inbox if isinstance(m, Release)]
    assert sum(len(ask.partitions) for ask in asks) == 3
    assert {ask.token for ask in asks} == {mesh.leader.token}


def test_a_joiner_gets_its_share_and_nothing_else_moves():
    mesh, joiner = joining()
    before = mesh.leader.table
    wanted = moving(mesh)
    mesh.settle()
    mesh.check_at_rest()
    after = mesh.leader.table
    moved = {p for p in range(9) if after.owner(p).handler != before.owner(p).handler}
    assert moved == wanted == set(joiner.held()) and len(moved) == 3
    assert [r.fields["to"] for r in mesh.records if r.kind == "handover"] == [["x"]]


def test_until_it_is_released_a_partition_stays_where_it_is():
    mesh, joiner = joining()
    mesh.receive(joiner)
    mesh.tick(60)
    assert not mesh.calls and joiner.held() == {}
    assert len(first(mesh, "a").held()) + len(first(mesh, "b").held()) == 9


def test_a_release_that_nobody_asked_for_is_ignored():
    mesh = up("a", "b")
    a = first(mesh, "a")
    [(partition, epoch), *_] = a.held().items()
    for token in (mesh.leader.token, mesh.leader.token + 1):
        mesh.step(sv.PartitionsReleased(a.nonce, token, [(partition, epoch)], []))
    assert not mesh.calls


def test_a_release_for_an_earlier_leader_or_epoch_or_of_a_stranger_is_ignored():
    mesh, joiner = joining()
    partition = min(moving(mesh))
    owner, epoch = mesh.leader.table.owner(partition)
    token = mesh.leader.token
    mesh.step(sv.PartitionsReleased(owner.nonce, token - 1, [(partition, epoch)], []))
    mesh.step(sv.PartitionsReleased(owner.nonce, token, [(partition, epoch + 1)], []))
    mesh.step(sv.PartitionsReleased(joiner.nonce, token, [(partition, epoch)], []))
    assert not mesh.calls


def test_a_lost_released_message_is_asked_for_again_when_the_process_returns():
    mesh, joiner = joining()
    a = first(mesh, "a")
    release(mesh, a)
    gone = {p for p in moving(mesh) if mesh.leader.table.owner(p).handler.id == "a"} - set(a.held())
    assert gone, "released, and the message is on its way"
    mesh.cut(a)
    mesh.connect(a)
    mesh.settle()
    mesh.check_at_rest()
    assert gone <= set(joiner.held())


def test_a_process_that_returns_is_not_asked_for_what_is_not_on_record_yet():
    mesh = up("a", "b")
    mesh.start("x")
    a = first(mesh, "a")
    mesh.cut(a)
    mesh.connect(a)
    assert not any(isinstance(m, Release) for m in a.inbox)
    mesh.answer_store()
    assert any(isinstance(m, Release) for m in a.inbox)
    mesh.settle()
    mesh.check_at_rest()


def test_a_process_that_returns_is_told_everything_again():
    mesh = up("a", "b", "c")
    a = first(mesh, "a")
    mesh.cut(a)
    mesh.kill(first(mesh, "b"))
    mesh.report(first(mesh, "b"))
    mesh.answer_store()
    assert not a.inbox and not mesh.leader.ready
    mesh.connect(a)
    mesh.talk()
    held = {p: mesh.leader.table.epochs[p] for p in mesh.leader.table.partitions_of(a.nonce)}
    assert a.held() == held and a.core.table.version == mesh.leader.table.version


def test_a_beat_that_names_an_old_grant_is_answered_with_the_new_one():
    mesh = up("a", "b", "c")
    a, b = first(mesh, "a"), first(mesh, "b")
    beat = a.core.beat()
    mesh.kill(b)
    mesh.report(b)
    mesh.answer_store()
    a.inbox.clear()
    mesh.step(sv.Beaten(beat))
    assert len(a.inbox) == 1
    mesh.receive(a)
    mesh.step(sv.Beaten(a.core.beat()))
    assert not a.inbox


def test_a_partition_missing_from_its_owners_list_gets_a_new_epoch_and_does_not_move():
    mesh = up("a", "b")
    a = first(mesh, "a")
    lost, epoch = next(iter(a.held().items()))
    a.core._ownership.drop(lost)
    mesh.cut(a)
    mesh.connect(a)
    [call] = mesh.calls
    [move] = call.moves
    assert (move.partition, move.from_nonce, move.to_nonce) == (lost, a.nonce, a.nonce)
    assert move.epoch == epoch + 1
    mesh.settle()
    mesh.check_at_rest()


def test_a_list_of_the_wrong_length_is_no_evidence():
    mesh = up("a", "b")
    a = first(mesh, "a")
    a.core.held_epochs = lambda: b""
    mesh.cut(a)
    mesh.connect(a)
    assert not mesh.calls


def test_a_source_that_says_it_does_not_hold_a_partition_has_not_released_it():
    mesh, joiner = joining(partitions=4)
    [partition] = moving(mesh)
    source = mesh.processes[mesh.leader.table.owner(partition).handler.nonce]
    source.core._ownership.drop(partition)
    while source.inbox:
        mesh.receive(source)
    while not mesh.calls:
        mesh.hear(source)
    [move] = mesh.calls[0].moves
    assert (move.partition, move.to_nonce) == (partition, source.nonce), "a new epoch, no move"
    mesh.settle()
    mesh.check_at_rest()
    assert list(joiner.held()) == [partition], "asked again under the new epoch, and not for ever"


def test_a_target_that_dies_during_a_handover_gets_nothing_and_others_take_its_share():
    mesh, joiner = joining()
    release(mesh, first(mesh, "a"))
    mesh.kill(joiner)
    mesh.report(joiner)
    mesh.settle()
    mesh.check_at_rest()
    assert {mesh.leader.table.owner(p).handler.id for p in range(9)} == {"a", "b"}


def test_a_target_that_dies_after_the_release_was_heard_does_not_leave_a_hole():
    mesh, joiner = joining()
    a = first(mesh, "a")
    release(mesh, a)
    mesh.hear(a) if a.outbox else None
    mesh.kill(joiner)
    mesh.report(joiner)
    mesh.settle()
    mesh.check_at_rest()


def test_a_source_that_dies_during_a_handover_is_taken_over_like_any_other():
    for released in (False, True):
        mesh, _ = joining()
        a = first(mesh, "a")
        if released:
            release(mesh, a)
        mesh.kill(a)
        mesh.report(a)
        mesh.settle()
        mesh.check_at_rest()
        assert [p.id for p in mesh.alive] == ["b", "x", "a"]


def test_after_a_death_the_replacement_gets_its_share_back():
    mesh = up("a", "b", "c", partitions=9)
    mesh.kill(first(mesh, "a"))
    mesh.report(first(mesh, "a"))
    mesh.settle()
    mesh.check_at_rest()
    [again] = [p for p in mesh.alive if p.nonce == b"a.1"]
    assert len(again.held()) == 3


def test_a_tell_that_crosses_a_release_does_not_give_it_back():
    """M2, with the leader: a death makes it tell the source again before it hears of the release."""
    mesh = up("a", "b", "c", partitions=9)
    joiner = mesh.start("x")
    mesh.answer_store()
    a, b = first(mesh, "a"), first(mesh, "b")
    release(mesh, a)
    mesh.kill(b)
    mesh.report(b)
    mesh.answer_store()
    while a.inbox:
        mesh.receive(a)
    mesh.settle()
    mesh.check_at_rest()
    assert joiner.held()
