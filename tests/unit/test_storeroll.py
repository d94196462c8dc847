"""Status shows the store's servers as the leader sees them now, and not as they were at the start."""

from __future__ import annotations

from typing import Any

from mesh.core.storeroll import StoreRoll
from mesh.core.storeview import NodeSeen, SentinelSeen, StoreSeen

A, B, C = "10.0.0.1:7501", "10.0.0.2:7501", "10.0.0.3:7501"
S = "10.0.0.1:7601"
AT_START = [
    {"role": "primary", "pid": 1, "host": "10.0.0.1", "port": 7501},
    {"role": "replica", "pid": 2, "host": "10.0.0.2", "port": 7501, "lag_bytes": 0},
    {"role": "sentinel", "pid": 9, "host": "10.0.0.1", "port": 7601},
]


def primary(name: str, pid: int, **links: int) -> NodeSeen:
    confirmed = tuple((globals()[link], offset) for link, offset in links.items())
    return NodeSeen(name, "run", frozenset(), 100, links=confirmed, pid=pid)


def replica(name: str, pid: int, *, is_linked: bool = True) -> NodeSeen:
    return NodeSeen(name, "run", frozenset(), 90, follows=A, is_linked=is_linked, pid=pid)


def sentinel(pid: int) -> SentinelSeen:
    return SentinelSeen(S, A, 0, False, False, 1000, 2, pid=pid)


def shown(roll: StoreRoll, *members: str, at_start: Any = ()) -> list[tuple[Any, ...]]:
    return [
        (r["role"], r["host"][-1], r["pid"], r.get("lag_bytes"), r.get("in_sync"))
        for r in roll.rows(at_start, members)
    ]


def rounds(roll: StoreRoll, seen: StoreSeen, begin: float, end: float) -> None:
    for tenth in range(round(begin * 10), round(end * 10) + 1):
        roll.note(seen, tenth / 10, sentinels=bool(seen.sentinels))


def test_roles_lag_and_who_is_in_sync_are_as_last_seen() -> None:
    roll = StoreRoll()
    seen = StoreSeen((primary(A, 1, B=98, C=40), replica(B, 2), replica(C, 3)), (sentinel(9),))
    rounds(roll, seen, 0.0, 2.0)
    assert shown(roll, B) == [
        ("primary", "1", 1, None, None),
        ("replica", "2", 2, 2, True),
        ("replica", "3", 3, 60, False),
        ("sentinel", "1", 9, None, None),
    ]


def test_after_a_failover_the_new_primary_is_shown_and_the_old_one_is_down() -> None:
    roll = StoreRoll()
    rounds(roll, StoreSeen((primary(A, 1, B=100), replica(B, 2))), 0.0, 2.0)
    rounds(roll, StoreSeen((primary(B, 2),)), 2.1, 3.0)
    assert ("primary", "2", 2, None, None) in shown(roll, B)
    rounds(roll, StoreSeen((primary(B, 2),)), 3.1, 4.0)
    assert shown(roll) == [("primary", "2", 2, None, None), ("down", "1", 1, None, None)]


def test_a_server_that_comes_back_bears_its_new_pid() -> None:
    roll = StoreRoll()
    rounds(roll, StoreSeen((primary(A, 1, B=100), replica(B, 2)), (sentinel(9),)), 0.0, 1.0)
    rounds(roll, StoreSeen((primary(A, 1), replica(B, 22, is_linked=False)), (sentinel(99),)), 5, 6)
    assert shown(roll) == [
        ("primary", "1", 1, None, None),
        ("replica", "2", 22, None, False),
        ("sentinel", "1", 99, None, None),
    ]


def test_whoever_was_there_at_the_start_and_was_never_seen_is_down_soon() -> None:
    roll = StoreRoll()
    assert [row["role"] for row in roll.rows(AT_START, ())] == ["primary", "replica", "sentinel"]
    rounds(roll, StoreSeen((primary(B, 2),)), 0.0, 0.5)
    assert [role for role, *_ in shown(roll, at_start=AT_START)] == [
        "primary",
        "primary",
        "sentinel",
    ]
    rounds(roll, StoreSeen((primary(B, 2),)), 0.6, 2.0)
    assert [role for role, *_ in shown(roll, at_start=AT_START)] == ["primary", "sentinel", "down"]


def test_sentinels_are_asked_once_somebody_wants_to_know_and_once_a_second_at_most() -> None:
    roll, seen = StoreRoll(), StoreSeen((primary(A, 1),))
    rounds(roll, seen, 0.0, 5.0)
    assert not roll.wants_sentinels
    roll.rows((), ())
    assert roll.wants_sentinels
    roll.note(StoreSeen((primary(A, 1),), (sentinel(9),)), 5.2, sentinels=True)
    assert not roll.wants_sentinels
    roll.note(seen, 5.4, sentinels=False)
    assert [row["role"] for row in roll.rows((), ())] == ["primary", "sentinel"]
    assert not roll.wants_sentinels


def test_sentinels_that_nobody_asked_for_long_are_not_down_for_it() -> None:
    roll = StoreRoll()
    roll.note(StoreSeen((primary(A, 1),), (sentinel(9),)), 0.0, sentinels=True)
    rounds(roll, StoreSeen((primary(A, 1),)), 0.2, 9.0)
    assert [row["role"] for row in roll.rows((), ())] == ["primary", "sentinel"]
    roll.note(StoreSeen((primary(A, 1),), ()), 9.2, sentinels=True)
    assert [row["role"] for row in roll.rows((), ())] == ["primary", "down"]


def test_nodes_in_memory_have_no_process_to_be_shown() -> None:
    roll = StoreRoll()
    rounds(roll, StoreSeen((NodeSeen("memory:0", "run", frozenset(), 0),)), 0.0, 2.0)
    assert roll.rows((), ()) == []
