"""How many simulated meshes does one core get through in a second?

Seeds are run one after the other in this process, as tests/sim/test_clean_seeds.py does in each of its own.
The time is that of the CPU: a machine on which others work gives the core away now and then. It slows the
rest down all the same, since caches are shared; of each seed the fastest of some runs counts. A loop of a
million additions in the same interpreter stands beside the figures, so that machines can be told apart.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from mesh.testing.sim.result import Result
from mesh.testing.sim.world import simulate

GOAL = 20.0
GOAL_CALLS, GOAL_FAULTS = 200, 10
_WARM_UP = 3
"""Seeds that nobody counts: modules are imported, Lua is started, functions are specialised."""


def measure(first: int, seeds: int, repeats: int) -> dict[str, Any]:
    """Run that many seeds; figures of all, and of one seed on average."""
    for seed in range(first, first + _WARM_UP):
        simulate(seed)
    fastest = [float("inf")] * seeds
    results: list[Result] = []
    for _ in range(repeats):
        results.clear()
        for index in range(seeds):
            begun = time.process_time()
            result = simulate(first + index)
            fastest[index] = min(fastest[index], time.process_time() - begun)
            results.append(result)
    begun = time.process_time()
    total = 0
    for i in range(1_000_000):
        total += i
    additions_s = time.process_time() - begun
    return {
        "seeds": seeds,
        "seeds_per_s": round(seeds / sum(fastest), 2),
        "median_ms": round(median(fastest) * 1000, 1),
        "slowest_ms": round(max(fastest) * 1000, 1),
        "slowest_seed": first + fastest.index(max(fastest)),
        "calls": round(sum(len(r.plan.calls) for r in results) / seeds, 1),
        "least_calls": min(len(r.plan.calls) for r in results),
        "faults": round(sum(len(r.plan.faults) for r in results) / seeds, 1),
        "least_faults": min(len(r.plan.faults) for r in results),
        "steps": round(sum(r.steps for r in results) / seeds),
        "virtual_s": round(sum(r.lasted_s for r in results) / seeds, 2),
        "broken": [r.plan.seed for r in results if not r.ok],
        "million_additions_ms": round(additions_s * 1000, 1),
    }


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, the fastest counts")
    arguments = parser.parse_args()
    figures = measure(arguments.first, arguments.seeds, arguments.repeats)
    print(
        f"seeds a second, one core: {figures['seeds_per_s']:8.2f}      (goal {GOAL:g})\n"
        f"a seed, median:           {figures['median_ms']:8.1f} ms\n"
        f"the slowest:              {figures['slowest_ms']:8.1f} ms   "
        f"(seed {figures['slowest_seed']})\n"
        f"calls of a seed:          {figures['calls']:8.1f}      "
        f"(at least {figures['least_calls']}, goal {GOAL_CALLS})\n"
        f"faults of a seed:         {figures['faults']:8.1f}      "
        f"(at least {figures['least_faults']}, goal {GOAL_FAULTS})\n"
        f"steps, virtual seconds:   {figures['steps']:8d}, {figures['virtual_s']:.2f} s\n"
        f"a million additions:      {figures['million_additions_ms']:8.1f} ms"
    )
    if figures["broken"]:
        print(f"promises are broken under the seeds {figures['broken']}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return bool(figures["broken"])


if __name__ == "__main__":
    sys.exit(main())
