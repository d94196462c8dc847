"""What callers notice of a fault: processes stopped, killed, slowed or starved under load, one at a time.

An open loop of writes, and queries beside it, against a real mesh on Ray with its embedded store; each fault
several times, each time on a mesh that is whole. Whoever is hurt bears the pid that `mesh status` names. What
callers saw stands beside the goal for that fault, met or not.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from benchmarks.arena import conclude, say
from benchmarks.catalogue import FAULTS, SHIPPED_MS, goals_of
from benchmarks.meshes import Meshes
from benchmarks.repeat import Figures, Repeat
from mesh.errors import MeshError
from mesh.testing.spread import SpreadMesh

_LONGEST_S = 630.0
"""Of a fault's own time, and what goes before it."""


def play_spread(name: str, options: argparse.Namespace, dice: random.Random) -> Figures:
    """One repeat on a mesh of its own, over several hosts."""
    figures: Figures = {}

    async def run() -> None:
        with tempfile.TemporaryDirectory(prefix="raymesh-bench-") as folder:
            async with SpreadMesh(Path(folder), hosts=options.handlers, partitions=256) as mesh:
                status = await mesh.status()
                repeat = Repeat(FAULTS[name], options, dice, Path(folder), mesh.host_of)
                try:
                    await repeat.run([mesh.endpoint], status)
                finally:
                    figures.update(repeat.figures)

    try:
        uvloop.run(_within(run(), options))
    except (MeshError, TimeoutError) as error:
        figures["ended"] = f"{type(error).__name__}: {error}"[:200]
    return figures


def play(name: str, meshes: Meshes, options: argparse.Namespace, dice: random.Random) -> Figures:
    """One repeat, within its time."""
    repeat = Repeat(FAULTS[name], options, dice, meshes.folder, store=meshes.store)
    try:
        uvloop.run(_within(repeat.run(meshes.addresses(), meshes.status), options))
    except (MeshError, TimeoutError) as error:
        repeat.figures["ended"] = f"{type(error).__name__}: {error}"[:200]
    meshes.status = repeat.status or meshes.status
    if not repeat.figures.get("whole_again"):
        meshes.leave()
    return repeat.figures


async def _within(work: Any, options: argparse.Namespace) -> None:
    async with asyncio.timeout((options.hold or 0) + _LONGEST_S + 4 * options.limit):
        await work


def judge(name: str, rows: list[Figures], down_after_ms: int) -> list[dict[str, Any]]:
    """Each goal of a fault beside what came of it; None where a repeat never got there."""
    verdicts = []
    for goal in goals_of(name, down_after_ms):
        values = [row.get(goal.figure) for row in rows]
        known = [value for value in values if value is not None]
        never = len(values) - len(known)
        verdicts.append(
            {
                "goal": goal.name,
                "most": goal.most,
                "p50": median(known) if known else None,
                "max": max(known) if known else None,
                "never": never,
                "met": not never and bool(known) and max(known) <= goal.most,
            }
        )
    return verdicts


def report(name: str, rows: list[Figures], verdicts: list[dict[str, Any]]) -> str:
    """The figures as people read them."""
    whole = sum(bool(row.get("whole_again")) for row in rows)
    again = "" if FAULTS[name].spread else f"; the mesh came to itself again {whole} times"
    lines = [
        f"{name}, {len(rows)} times{again}",
        f"    {'':30}{'p50':>10}{'p99 = max':>12}{'never':>8}{'goal':>10}",
    ]
    for v in verdicts:
        p50, most = (f"{v[k]:.1f}" if v[k] is not None else "-" for k in ("p50", "max"))
        met = "met" if v["met"] else "MISSED"
        lines.append(
            f"    {v['goal']:30}{p50:>10}{most:>12}{v['never'] or '':>8}{v['most']:>10g}  {met}"
        )
    errors: dict[str, int] = {}
    for row in rows:
        for error, count in row.get("errors", {}).items():
            errors[error] = errors.get(error, 0) + count
    causes = sorted({cause.split()[-1] for row in rows for cause in row.get("causes", ())})
    if causes:
        lines.append(f"    failovers by cause: {', '.join(causes)}")
    lines += [f"    {count} x {error}" for error, count in sorted(errors.items())]
    lines += [f"    {row[key]}" for row in rows for key in ("ended", "ledger") if key in row]
    return "\n".join(lines)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument(
        "--fault",
        action="append",
        choices=sorted(FAULTS),
        help="one of them, several times for several; default: all but starved",
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rate", type=float, default=2000.0, help="writes a second")
    parser.add_argument("--queries", type=float, default=200.0, help="queries a second")
    parser.add_argument("--handlers", type=int, default=4)
    parser.add_argument("--keys", type=int, default=500)
    parser.add_argument("--warm-up", type=float, default=2.0, metavar="S")
    parser.add_argument(
        "--hold", type=float, metavar="S", help="until what is stopped or slowed goes on"
    )
    parser.add_argument("--window", type=float, default=4.0, metavar="S", help="watched at least")
    parser.add_argument(
        "--limit", type=float, default=20.0, metavar="S", help="for a mesh to become whole again"
    )
    parser.add_argument(
        "--down-after",
        type=int,
        metavar="MS",
        help="a store of the benchmark's own whose Sentinels wait that long; default: the mesh's "
        "embedded store, with the 1,000 that ship",
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    # However it is told to end: whoever was stopped goes on first, then everything is taken down.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    names = options.fault or [name for name in FAULTS if name != "starved"]
    dice = random.Random(options.seed)
    figures: Figures = {
        "rate": options.rate,
        "handlers": options.handlers,
        "down_after_ms": options.down_after or SHIPPED_MS,
        "faults": {},
    }
    meshes = Meshes(options)
    texts = []
    interrupted = False
    try:
        for name in names:
            rows = []
            for number in range(options.repeats):
                say(f"{name}, {number + 1} of {options.repeats}")
                if FAULTS[name].spread:
                    meshes.leave()
                    rows.append(play_spread(name, options, dice))
                else:
                    meshes.current()
                    rows.append(play(name, meshes, options, dice))
            verdicts = judge(name, rows, options.down_after or SHIPPED_MS)
            figures["faults"][name] = {"goals": verdicts, "rows": rows}
            texts.append(report(name, rows, verdicts))
            say(texts[-1])
    except KeyboardInterrupt:
        say("interrupted; what was started is taken down")
        interrupted = True
    finally:
        meshes.leave()
    conclude(figures, "\n\n".join(texts), options.json)
    if interrupted:
        return 130
    return 0 if all(v["met"] for f in figures["faults"].values() for v in f["goals"]) else 1


if __name__ == "__main__":
    sys.exit(main())
