"""Which handler gets which partition: even by weight, and with the fewest moves.

All of it is arithmetic on counts: shares are whole numbers that follow the weights (largest
remainder), and a partition moves only from a handler above its share to one below it.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import TypeVar

H = TypeVar("H", bound=Hashable)

_ROUNDING = 1e-9
"""A share this close to a whole number is that number: 10 partitions at 0.1 of 1.0 are 1, not 0.99…"""


def shares(partitions: int, weights: Mapping[H, float]) -> dict[H, int]:
    """How many partitions each handler should own.

    Follows the weights; whole numbers by largest remainder, earlier names first where remainders tie.

    Raises:
        ValueError: there is no handler, or no weight above 0.
    """
    total = sum(weights.values())
    if not weights or total <= 0 or min(weights.values()) < 0:
        raise ValueError(f"no handler with a weight above 0 among {dict(weights)}")
    exact = {h: partitions * w / total for h, w in weights.items()}
    result = {h: int(e + _ROUNDING) for h, e in exact.items()}
    rest = partitions - sum(result.values())
    by_remainder = sorted(exact, key=lambda h: exact[h] - result[h], reverse=True)
    for h in by_remainder[:rest]:
        result[h] += 1
    return result


def place(
    orphans: Iterable[int], owned: Mapping[H, int], weights: Mapping[H, float]
) -> dict[int, H]:
    """Give each of `orphans` to the handler with the most headroom, one after the other.

    Headroom is what a handler is below its load per weight, so survivors end as even as the
    orphans allow and nothing else moves.

    Args:
        orphans: partitions without an owner.
        owned: number of partitions that each candidate owns already.
        weights: weight of each candidate; one of weight 0 gets nothing.

    Raises:
        ValueError: no candidate has a weight above 0.
    """
    if max(weights.values(), default=0) <= 0:
        raise ValueError(f"no handler with a weight above 0 among {dict(weights)}")
    able = [h for h, w in weights.items() if w > 0]
    if len({weights[h] for h in able}) == 1:
        return dict(zip(orphans, _by_count(able, owned), strict=False))
    heap = [((owned[h] + 1) / weights[h], order, h) for order, h in enumerate(able)]
    heapq.heapify(heap)
    count = {h: owned[h] for h in able}
    result: dict[int, H] = {}
    for partition in orphans:
        _, order, h = heap[0]
        result[partition] = h
        count[h] += 1
        heapq.heapreplace(heap, ((count[h] + 1) / weights[h], order, h))
    return result


def _by_count(able: Sequence[H], owned: Mapping[H, int]) -> Iterator[H]:
    """Who gets the next one, and the next, where all weigh the same: whoever has the fewest, and among
    several the earlier one. No end, and no arithmetic once all have as many.
    """
    behind = sorted(range(len(able)), key=lambda order: owned[able[order]], reverse=True)
    level: list[int] = []
    count = owned[able[behind[-1]]]
    while behind:
        while behind and owned[able[behind[-1]]] == count:
            insort(level, behind.pop())
        if behind:
            yield from (able[order] for order in level)
        count += 1
    yield from cycle(able)


def rebalance(held: Mapping[H, Sequence[int]], weights: Mapping[H, float]) -> dict[int, H]:
    """The fewest moves (partition → new owner) after which every handler owns its share.

    Args:
        held: the partitions of each handler in `weights`.
        weights: weight of each handler.
    """
    count = {h: len(held[h]) for h in weights}
    partitions = sum(count.values())
    target = shares(partitions, weights)
    # A handler whose share is no whole number may keep it rounded up where another rounds down: only
    # the sum is fixed. Extra ones go to those who already hold more, which saves a move each.
    total = sum(weights.values())
    exact = {h: partitions * w / total for h, w in weights.items()}
    low = {h: int(e + _ROUNDING) for h, e in exact.items()}
    extra = partitions - sum(low.values())
    rounds = {h: exact[h] - low[h] > _ROUNDING for h in weights}
    for h in sorted(weights, key=lambda h: (rounds[h], count[h] - low[h], target[h]), reverse=True):
        target[h] = low[h] + (1 if extra > 0 else 0)
        extra -= 1
    below = [h for h in weights if count[h] < target[h]]
    moves: dict[int, H] = {}
    for h in weights:
        for partition in held[h][: max(0, count[h] - target[h])]:
            receiver = below[-1]
            moves[partition] = receiver
            count[receiver] += 1
            if count[receiver] == target[receiver]:
                below.pop()
    return moves
