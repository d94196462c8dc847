"""Makes a failing plan small: what it needs to fail is easier to read than what it happened to have.

Greedy: parts of the faults are left out, then parts of the calls, in halves, quarters and at last one by one,
as long as the run still fails. Every run is one of the plan's own seed, so each step can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from mesh.testing.sim.plan import Plan

T = TypeVar("T")


def shrink(plan: Plan, fails: Callable[[Plan], bool], *, most_runs: int = 400) -> Plan:
    """The smallest plan found that still fails.

    Args:
        plan: one that fails.
        fails: runs a plan; whether it fails, in the way that is looked for.
        most_runs: after which the smallest so far is returned.
    """
    left = most_runs

    def still(smaller: Plan) -> bool:
        nonlocal left
        left -= 1
        return left >= 0 and fails(smaller)

    def fewer_faults(plan: Plan) -> Plan:
        found = _fewest(plan.faults, lambda some: still(replace(plan, faults=some)))
        return replace(plan, faults=found)

    def fewer_calls(plan: Plan) -> Plan:
        return replace(
            plan, calls=_fewest(plan.calls, lambda some: still(replace(plan, calls=some)))
        )

    while True:
        before = plan
        plan = fewer_calls(fewer_faults(plan))
        if plan == before or left <= 0:
            return plan


def _fewest(items: tuple[T, ...], fails: Callable[[tuple[T, ...]], bool]) -> tuple[T, ...]:
    """A part of them that still fails, and does not without any one of its own."""
    size = len(items)
    while size:
        start = 0
        while start < len(items):
            rest = items[:start] + items[start + size :]
            if fails(rest):
                items = rest
            else:
                start += size
        size = min(size // 2, len(items))
    return items
