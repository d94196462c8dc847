"""Handlers of one mesh do the same work: what is usual among them, and how many can be ill at once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping


def usual(values: Mapping[bytes, float]) -> dict[bytes, float]:
    """For each of several handlers the median of all others; nothing for one alone.

    Args:
        values: by nonce.
    """
    if len(values) < 2:
        return {}
    ordered = sorted(values.values())
    return {nonce: _median_without(ordered, own) for nonce, own in values.items()}


def most_ill(number: int) -> int:
    """Of so many handlers, a third, or one; none of one alone.

    Were it more, the others could not carry its load, and it were likelier that something else is wrong.
    """
    return max(1, number // 3) if number > 1 else 0


def _median_without(ordered: list[float], own: float) -> float:
    """In a sorted list, of all but one of that value."""
    at, rest = bisect_left(ordered, own), len(ordered) - 1

    def nth(k: int) -> float:
        return ordered[k if k < at else k + 1]

    return nth(rest // 2) if rest % 2 else (nth(rest // 2 - 1) + nth(rest // 2)) / 2
