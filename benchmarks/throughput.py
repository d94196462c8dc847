"""How many calls a second, one to 512 at a time: replicated exactly-once writes, and queries.

A closed loop in one client process for each contender: this mesh; redis-py straight to the same store, with
the same durability (SET, then WAIT for every replica) and without exactly-once, entities or failover; plain
Ray actors; a Ray Serve handle. Each runs alone, in turn.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.arena import HANDLERS, Arena, conclude

GOALS = {
    ("writes", 128): {"store": 4.0, "serve": 60.0, "actor": 30.0},
    ("writes", 512): {"store": 6.0},
    ("reads", 128): {"store": 6.0},
}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All contenders, all questions, in rounds."""
    questions = {
        f"{what} {in_flight}": {
            "what": what,
            "in_flight": in_flight,
            "seconds": arguments.seconds,
        }
        for what in ("writes", "reads")
        for in_flight in arguments.in_flight
    }
    with Arena.open(
        arguments.contenders,
        handlers=arguments.handlers,
        partitions=arguments.partitions,
        keys=arguments.keys,
        against=arguments.against,
    ) as arena:
        arena.play(questions, arguments.rounds)
        return {
            "handlers": arguments.handlers,
            "partitions": arguments.partitions,
            "rounds": arguments.rounds,
            "results": {
                question: {
                    name: {
                        "calls_per_s": round(arena.rate(name, question)),
                        "p50_us": arena.us(name, question, "p50"),
                        "p99_us": arena.us(name, question, "p99"),
                        "mesh_is_times": round(
                            arena.rate("mesh", question) / arena.rate(name, question), 2
                        ),
                    }
                    for name in arena.workers
                }
                for question in questions
            },
        }


def report(figures: dict[str, Any]) -> str:
    """The figures as people read them."""
    size = f"{figures['handlers']} handlers, {figures['partitions']} partitions"
    lines = [
        f"{size}; medians of {figures['rounds']} rounds; in flight after the name of the work",
        "",
        f"{'':12}{'contender':14}{'calls/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'mesh is':>10}{'goal':>8}",
    ]
    for question, rows in figures["results"].items():
        what, _, in_flight = question.partition(" ")
        goals = GOALS.get((what, int(in_flight)), {})
        for name, row in rows.items():
            goal = f"{goals[name]:g} x" if name in goals else ""
            times = "" if name == "mesh" else f"{row['mesh_is_times']:.2f} x"
            lines.append(
                f"{question:12}{name[:13]:14}{row['calls_per_s']:>10,}{row['p50_us'] / 1000:>9.2f}"
                f"{row['p99_us'] / 1000:>9.2f}{times:>10}{goal:>8}"
            )
    return "\n".join(lines)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one run (default: 3)")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 16, 128, 512])
    parser.add_argument(
        "--handlers", type=int, default=HANDLERS, help="processes (default: one a core, 4 at most)"
    )
    parser.add_argument("--partitions", type=int, default=256)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument(
        "--contenders", nargs="*", default=["store", "actor", "serve"], help="beside this mesh"
    )
    parser.add_argument(
        "--against", metavar="REV", help="an older revision, installed anew beside it"
    )
    arguments = parser.parse_args()
    figures = measure(arguments)
    conclude(figures, report(figures), arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
