"""A partition that its owner lost by itself comes back under a new epoch; a buried process is told so."""

import pytest
from unit.mesh_rig import Mesh, up

from mesh.core import signals as sv
from mesh.core.epochs import unpack_epochs
from mesh.core.keyspace import partition_of
from mesh.core.messages import Beat, Dropped
from mesh.core.wire import Status


def first(mesh, id_):
    return mesh.processes[f"{id_}.0".encode()]


def key_of(mesh, process):
    """A key that it owns, and the key's partition."""
    held = process.held()
    keys = ((f"k{n}", partition_of(f"k{n}".encode(), mesh.partitions)) for n in range(1000))
    return next((key, partition) for key, partition in keys if partition in held)


def lose(mesh, process):
    """The store refuses a batch of it: another program has changed the type of its key."""
    key, partition = key_of(mesh, process)
    process.warm_up()
    mesh.server.wrong_type.add(partition)
    caller = process.call("Account.deposit", key, 1)
    process.flush()
    assert caller.status is Status.NOT_READY
    mesh.server.wrong_type.clear()
    process.outbox.extend(process.core.take_messages())
    return key, partition


def test_a_partition_that_was_lost_gets_a_new_epoch_and_does_not_move():
    mesh = up("a", "b")
    a = first(mesh, "a")
    before = a.held()
    key, partition = lose(mesh, a)
    assert partition not in a.held()
    while a.outbox:
        mesh.hear(a)
    [move] = mesh.calls[0].moves
    assert (move.partition, move.to_nonce) == (partition, a.nonce)
    assert move.epoch == before[partition] + 1
    mesh.settle()
    mesh.check_at_rest()
    again = a.call("Account.deposit", key, 1)
    a.flush()
    assert again.answer == (Status.OK, 1)
    assert a.core.to_repeat() == []


def test_what_the_leader_did_not_hear_is_told_with_every_beat():
    mesh = up("a", "b")
    a = first(mesh, "a")
    _, partition = lose(mesh, a)
    a.outbox.clear()
    [message] = a.core.to_repeat()
    assert message == Dropped(a.nonce, [(partition, mesh.leader.table.epochs[partition])])
    for _ in range(3):
        a.outbox.append(message)
    mesh.settle()
    mesh.check_at_rest()
    assert len([m for c in mesh.made for m in c.moves if m.partition == partition]) == 2, "once"


def test_a_lost_epoch_is_not_taken_up_again():
    """The leader may tell the same grant once more, before it has heard of the loss."""
    mesh = up("a", "b")
    a = first(mesh, "a")
    _, partition = lose(mesh, a)
    a.outbox.clear()
    mesh.step(sv.Beaten(Beat(a.nonce, 0, 0, 0, 0, 0, 0)))
    mesh.receive(a)
    assert partition not in a.held()
    assert a.core.to_repeat()


def test_a_partition_that_is_lost_while_it_is_given_up_does_not_move():
    mesh = up("a", "b", partitions=9)
    joiner = mesh.start("c")
    mesh.answer_store()
    [ask] = [m for m in first(mesh, "a").inbox if type(m).__name__ == "Release"]
    a, epochs = first(mesh, "a"), dict(ask.partitions)
    partition = next(iter(epochs))
    a.inbox.clear()
    a.core._ownership.lose(partition)
    a.outbox.extend(a.core.take_messages())
    mesh.hear(a)
    assert partition not in mesh.leader._affairs.handovers.intents
    mesh.settle()
    assert partition in a.held() or partition in joiner.held()


@pytest.mark.parametrize("odd", ["another's", "an older epoch", "no partition", "of a stranger"])
def test_a_loss_that_cannot_be_is_ignored(odd):
    mesh = up("a", "b")
    a, b = first(mesh, "a"), first(mesh, "b")
    partition, epoch = next(iter(a.held().items()))
    nonce, pair = {
        "another's": (b.nonce, (partition, epoch)),
        "an older epoch": (a.nonce, (partition, epoch - 1)),
        "no partition": (a.nonce, (99, epoch)),
        "of a stranger": (b"x", (partition, epoch)),
    }[odd]
    mesh.step(sv.PartitionsDropped(nonce, [pair]))
    assert not mesh.calls


def test_what_the_leader_has_taken_away_is_no_loss():
    """The store refuses the old owner's batch before the owner has heard of the new grant."""
    mesh = up("a", "b")
    a = first(mesh, "a")
    _, partition = lose(mesh, a)
    mesh.settle()
    assert a.core.to_repeat() == []
    mesh.step(sv.PartitionsDropped(a.nonce, [(partition, 0x10001)]))
    assert not mesh.calls


def beat(mesh, nonce):
    return mesh.leader.step(sv.Beaten(Beat(nonce, 1, 0, 0, 0, 0, 0)), mesh.now)


def test_a_process_that_was_buried_and_beats_is_told_that_its_grant_is_over():
    mesh = up("a", "b")
    a = first(mesh, "a")
    mesh.step(sv.ProcessExited(a.nonce, a.id, mesh.now))
    mesh.answer_store()
    [effect] = beat(mesh, a.nonce)
    assert effect.grant.active is False
    a.core.on_grant(effect.grant, mesh.now)
    assert a.core.revoked


def test_a_process_that_nobody_knows_is_told_that_it_has_no_grant():
    mesh = up("a", "b")
    [effect] = beat(mesh, b"stranger")
    assert (effect.nonce, effect.grant.active) == (b"stranger", False)


def test_before_there_is_a_table_nobody_is_told_so():
    mesh = Mesh("a", "b")
    mesh.start("a")
    assert beat(mesh, b"a.0") == beat(mesh, b"b.0") == []


@pytest.mark.parametrize("waits", [False, True])
def test_a_process_that_is_only_joining_is_not_told_so(waits):
    """Registered, not enrolled; its enrolment may even have to wait for a takeover under way."""
    mesh = up("a", "b")
    if waits:
        mesh.kill(first(mesh, "b"))
        mesh.report(first(mesh, "b"))
    joiner = mesh.start("c")
    assert mesh.calls
    assert not mesh.leader._affairs.members[joiner.nonce].enrolled
    assert beat(mesh, joiner.nonce) == []
    mesh.settle()
    assert any(unpack_epochs(joiner.core.held_epochs()))
