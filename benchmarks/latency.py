"""How long a call takes: one at a time, and at fixed rates.

One at a time is a closed loop of one caller. Rates are an open loop: calls are due at fixed times, latency
counts from then (no coordinated omission). Beside it redis-py straight to the same store, as durable.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.arena import HANDLERS, Arena, conclude

GOAL = 1.5
SHARES = ("p50", "p90", "p99", "p99.9", "p100")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All contenders, all rates, in rounds."""
    questions: dict[str, dict[str, Any]] = {
        f"{what}, one at a time": {"what": what, "in_flight": 1, "seconds": arguments.seconds}
        for what in ("writes", "reads")
    }
    for rate in arguments.rates:
        for what in ("writes", "reads"):
            questions[f"{what}, {rate:,}/s"] = {
                "what": what,
                "rate": rate,
                "seconds": arguments.seconds,
            }
    with Arena.open(
        arguments.contenders, handlers=arguments.handlers, against=arguments.against
    ) as arena:
        arena.play(questions, arguments.rounds)
        return {
            "rounds": arguments.rounds,
            "results": {
                question: {
                    name: {
                        **{f"{share}_us": arena.us(name, question, share) for share in SHARES},
                        "failed": arena.failed(name, question),
                        "mesh_is_times": round(
                            arena.us("mesh", question, "p50") / arena.us(name, question, "p50"), 2
                        ),
                    }
                    for name in arena.workers
                }
                for question in questions
            },
        }


def report(figures: dict[str, Any]) -> str:
    """The figures as people read them."""
    head = "".join(f"{share:>9}" for share in SHARES)
    lines = [
        f"milliseconds; medians of {figures['rounds']} rounds",
        "",
        f"{'':24}{'contender':14}{head}{'p50 ratio':>11}",
    ]
    for question, rows in figures["results"].items():
        for name, row in rows.items():
            values = "".join(f"{row[f'{share}_us'] / 1000:>9.2f}" for share in SHARES)
            ratio = "" if name == "mesh" else f"{row['mesh_is_times']:.2f} x"
            failed = f"   {row['failed']} failed" if row["failed"] else ""
            lines.append(f"{question:24}{name[:13]:14}{values}{ratio:>11}{failed}")
    lines += ["", f"goal: one write at a time, p50 at most {GOAL} x the store's"]
    return "\n".join(lines)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of one run (default: 4)")
    parser.add_argument("--rates", type=int, nargs="*", default=[500, 2000, 5000])
    parser.add_argument(
        "--handlers", type=int, default=HANDLERS, help="processes (default: one a core, 4 at most)"
    )
    parser.add_argument("--contenders", nargs="*", default=["store"], help="beside this mesh")
    parser.add_argument(
        "--against", metavar="REV", help="an older revision, installed anew beside it"
    )
    arguments = parser.parse_args()
    figures = measure(arguments)
    conclude(figures, report(figures), arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
