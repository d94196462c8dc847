"""A state in several fields, its owner dies in the middle: it is the one or the other, never a mixture."""

import pytest
from unit.parts_rig import Pages, check_pieces, pieces
from unit.rigs import KEYS, PARTITIONS, Leader

from mesh.core.wire import Status
from mesh.store.memory import MemoryServer

K = KEYS[0]
OLD = {"count": 1, "text": "o" * 5000, "notes": ["o" * 3000]}
NEW = {"count": 2, "text": "n" * 5000, "notes": []}


@pytest.fixture
def server():
    return MemoryServer()


@pytest.fixture
def leader(server):
    leader = Leader(server)
    leader.open_life()
    return leader


@pytest.fixture
def o1(server, leader):
    """It owns everything, has committed OLD, and NEW is in its hands."""
    owner = Pages(server, b"o1").owns_all(leader)
    owner.does("write", K, OLD)
    owner.call("Page.write", K, NEW)
    owner.load()
    return owner


def taken_over(server, leader, *, revoke=True):
    heir = Pages(server, b"o2")
    heir.counter = 100
    everything = dict.fromkeys(range(PARTITIONS), b"o2")
    leader.takeover(everything, enroll=[b"o2"], revoke=[b"o1"] if revoke else [])
    heir.core.on_grant(leader.grant(b"o2"), heir.now)
    return heir


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("arrives", [False, True])
def test_the_heir_finds_the_whole_commit_or_nothing_of_it(server, leader, o1, arrives, warm):
    batch = o1.send()
    if arrives:
        o1.store.commit_at_once(0, o1.core.grant, batch.seq, 9, batch.entries)
    heir = taken_over(server, leader)
    if warm:
        heir.warm_up()
    assert heir.shown(K) == (NEW if arrives else OLD)
    check_pieces(server)


@pytest.mark.parametrize("revoke", [False, True])
def test_a_delayed_packet_puts_no_old_large_value_beside_a_new_state(server, leader, o1, revoke):
    batch = o1.send()
    heir = taken_over(server, leader, revoke=revoke)
    assert heir.does("write", K, {"text": "short"}).status is Status.OK
    before = pieces(server)
    assert o1.deliver(batch), "refused: the epoch is another's"
    assert pieces(server) == before
    check_pieces(server)
    assert heir.shown(K) == {**OLD, "text": "short"}


def test_a_call_that_the_dead_owner_committed_runs_once_beside_large_values(server, leader, o1):
    o1.flush()
    first = o1.call("Page.incr", K, counter=50)
    o1.flush()
    heir = taken_over(server, leader)
    retry = heir.call("Page.incr", K, counter=50)
    heir.flush()
    assert retry.answer == first.answer == (Status.OK, 3)
    assert heir.shown(K) == {**NEW, "count": 3}


def test_a_partition_that_goes_there_and_back_is_read_anew(server, leader, o1):
    """What the first owner knew of the stored pieces is of an earlier tenure."""
    o1.flush()
    heir = taken_over(server, leader, revoke=False)
    heir.does("write", K, {"text": "h" * 5000, "notes": ["h" * 3000]})
    leader.takeover(dict.fromkeys(range(PARTITIONS), b"o1"))
    o1.core.on_grant(leader.grant(b"o1"), o1.now)
    o1.does("write", K, {"text": NEW["text"], "count": 7})
    check_pieces(server)
    assert o1.shown(K) == {"count": 7, "text": NEW["text"], "notes": ["h" * 3000]}
