"""What became of a simulated run."""

from __future__ import annotations

from dataclasses import dataclass, field

from mesh.testing.history import History
from mesh.testing.sim.checks import Violation
from mesh.testing.sim.plan import Plan
from mesh.testing.sim.simulation import Trace


@dataclass(slots=True)
class Result:
    """What became of a run.

    Attributes:
        violations: promises that were broken; none after a good run.
        trace: what happened.
        history: of all calls.
        digest: of every byte on the network: two runs of one plan have the same.
        lasted_s: virtual seconds.
        steps: of all processes.
        gave_up: keys whose history was too much to judge.
    """

    plan: Plan
    violations: list[Violation]
    trace: Trace
    history: History
    digest: int
    lasted_s: float
    steps: int
    gave_up: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """No promise was broken."""
        return not self.violations

    def report(self, *, traced: bool = True) -> str:
        """For people: what was broken, under which plan, and what had happened."""
        parts = [str(self.plan), *map(str, self.violations)]
        if traced:
            parts.append(str(self.trace))
        return "\n".join(parts)
