"""What a round of looks proves: who is down for a majority, who will never be promoted, which set can have
acknowledged anything.

A Sentinel that heard the primary at time t cannot take it for down before t + down-after. So while a majority
heard it less than three quarters of down-after ago, by the primary's own clock, no other node can have
been promoted, nor will be for a while: what is decided from that has to arrive by then.
"""

from __future__ import annotations

from collections.abc import Iterable

from mesh.core.storeview import NodeSeen, SentinelSeen, StoreSeen
from mesh.core.syncset import InSyncSet

_AGE_SHARE = 0.75
"""Of down-after: for how long behind a Sentinel's answer from the primary that Sentinel's word counts."""
_TRAVEL_SHARE = 0.15
"""Of down-after: what is left of that for the change to arrive."""
_UNWATCHED_AGE_US = 1_000_000
"""Where no Sentinel can promote anyone."""


def max_age_us(seen: StoreSeen) -> int:
    """For how long what a majority of Sentinels said can be relied on."""
    if not seen.sentinels:
        return _UNWATCHED_AGE_US
    shortest_ms = min(sentinel.down_after_ms for sentinel in seen.sentinels)
    return round(shortest_ms * 1000 * _AGE_SHARE)


def _witnesses(primary: NodeSeen, seen: StoreSeen) -> list[SentinelSeen]:
    """Sentinels that have heard this primary so lately that they cannot take it for down for a while."""
    return [
        sentinel
        for sentinel in seen.sentinels
        if sentinel.primary == primary.name
        and not sentinel.is_primary_down
        and not sentinel.is_tilted
        and sentinel.primary_age_ms <= (_AGE_SHARE - _TRAVEL_SHARE) * sentinel.down_after_ms
    ]


def down(
    primary: NodeSeen, names: Iterable[str], seen: StoreSeen
) -> tuple[frozenset[str], int, int]:
    """Those that a majority holds for down and the primary for up; since when; for how long that counts."""
    witnesses = _witnesses(primary, seen)
    gone = frozenset(
        name
        for name in names
        if seen.is_majority(
            witness
            for witness in witnesses
            if name in witness.replicas and witness.replicas[name].is_down
        )
    )
    oldest_ms = max((witness.primary_age_ms for witness in witnesses), default=0)
    return gone, primary.clock_us - oldest_ms * 1000, max_age_us(seen)


def shown_at_zero(name: str, seen: StoreSeen) -> bool:
    """Whether every Sentinel there is would never promote it."""
    views = [sentinel.replicas.get(name) for sentinel in seen.sentinels]
    return len(views) >= seen.watchers and all(view and view.priority == 0 for view in views)


def may_have_acknowledged(sync_set: InSyncSet, life: int, seen: StoreSeen) -> bool:
    """Whether a set that is recorded somewhere can have been the one to acknowledge anything.

    A member that has not even the record proves that it has not.
    """
    return all(
        node is None or node.recorded >= (life, sync_set.version)
        for node in map(seen.node, sync_set.members)
    )
