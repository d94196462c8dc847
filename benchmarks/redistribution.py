"""How long traffic takes to spread anew when a handler dies.

An open loop calls a mesh of handlers at a fixed rate; one handler after the other is killed with
SIGKILL. For each kill: how far the supervisor was after how many milliseconds, when each of the
dead handler's partitions gave its first good answer, and the slowest call that the client saw,
counted from when it was due. All of it is set against the floor of the same run, SIGKILL → pidfd
readable: when the kernel tells anybody else of the death.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import gc
import json
import random
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from mesh.client.aio import connect
from mesh.client.tool import Tool
from mesh.config import MeshConfig
from mesh.launch import launch
from mesh.net import clock
from mesh.testing.killer import Kill, Killer
from mesh.testing.load import OpenLoop, Sample

PHASES = ("detect", "decide", "fence", "publish", "ready")
TAKEOVER_WINDOW_S = 1.0
"""Calls due up to this long after a kill count for its takeover; later ones for the replacement."""


@dataclasses.dataclass(slots=True)
class Row:
    """One kill, in milliseconds since the signal was sent."""

    handler: str
    partitions: int
    floor: float
    detect: float
    decide: float
    fence: float
    publish: float
    ready: float
    first_success_median: float
    first_success_last: float
    slowest_call: float
    slowest_call_until_next: float
    slowest_call_due: float


def percentile(values: list[float], share: float) -> float:
    """The value below which that share of the values lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(values: list[float]) -> dict[str, float]:
    """The usual percentiles."""
    return {
        "p50": round(median(values), 2),
        "p90": round(percentile(values, 0.90), 2),
        "p99": round(percentile(values, 0.99), 2),
        "max": round(max(values), 2),
    }


async def measure(endpoint: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Load the mesh, kill, and put the figures together."""
    tool = await Tool.open(endpoint)
    killer = await Killer.start()
    dice = random.Random(arguments.seed)
    kills: list[tuple[Kill, dict[str, Any]]] = []
    async with await connect(endpoint) as client:
        load = OpenLoop(client, rate=arguments.rate, keys=arguments.keys)
        await load.start()
        # What was there before the measurement is not looked through by its collector again.
        gc.collect()
        gc.freeze()
        await asyncio.sleep(arguments.warm_up)
        for number in range(arguments.kills):
            await ready(tool)
            # A mesh at rest: what the start of the last replacement left to do is not this kill's.
            await asyncio.sleep(arguments.rest + dice.random() * 0.5)
            status = await ready(tool)
            victim = dice.choice(status["handlers"])
            kill = await killer.kill(victim["pid"])
            kills.append((kill, victim))
            await asyncio.sleep(TAKEOVER_WINDOW_S)
            print(f"\rkill {number + 1} of {arguments.kills}", end="", file=sys.stderr, flush=True)
        await ready(tool)
        await asyncio.sleep(0.5)
        await load.stop()
        print(file=sys.stderr)
        verdict = await load.verdict()
    events = [e for e in await tool.ask("events") if e["kind"] == "failover"]
    tool.close()
    await killer.stop()
    samples = list(load.samples)
    rows = [
        row(kill, victim, event, following, load, samples, status["partitions"])
        for (kill, victim), event, following in zip(
            kills, events, [k.sent for k, _ in kills[1:]] + [clock.now()], strict=True
        )
    ]
    quiet = [s.latency_s * 1000 for s in samples if s.due < kills[0][0].sent]
    return {
        "kills": len(rows),
        "rate": arguments.rate,
        "handlers": arguments.handlers,
        "calls": verdict.calls,
        "failed": verdict.failed,
        "lost": verdict.lost,
        "doubled": verdict.doubled,
        "errors": dict(verdict.errors),
        "ms": {
            field.name: spread([getattr(r, field.name) for r in rows])
            for field in dataclasses.fields(Row)
            if field.name not in ("handler", "partitions", "slowest_call_due")
        },
        "call_before_first_kill_ms": spread(quiet),
        "slowest_call_over_floor": {
            "p50": round(median(r.slowest_call for r in rows) / median(r.floor for r in rows), 2)
        },
        "rows": [dataclasses.asdict(r) for r in rows],
    }


async def ready(tool: Tool) -> dict[str, Any]:
    """Wait until every handler is there and nothing moves."""
    while not (status := await tool.ask("status"))["ready"]:
        await asyncio.sleep(0.05)
    return dict(status)


def row(
    kill: Kill,
    victim: dict[str, Any],
    event: dict[str, Any],
    following: float,
    load: OpenLoop,
    samples: list[Sample],
    partitions: int,
) -> Row:
    """One kill's figures."""
    if event["handler"] != victim["id"]:
        raise SystemExit(f"killed {victim['id']}, but the event tells of {event['handler']}")
    at = (event["at"] - kill.sent_wall) * 1000
    reached = []
    for phase in PHASES:
        at += event["phases_ms"][phase]
        reached.append(round(at, 2))
    owned = set(victim["partitions"])
    first: dict[int, float] = {}
    during: list[Sample] = []
    later: list[Sample] = []
    for sample in samples:
        if sample.ended < kill.sent or sample.due >= following:
            continue
        (during if sample.due < kill.sent + TAKEOVER_WINDOW_S else later).append(sample)
        partition = load.partition(sample.key, partitions)
        if partition in owned and sample.value is not None:
            first[partition] = min(first.get(partition, sample.ended), sample.ended)
    successes = [(ended - kill.sent) * 1000 for ended in first.values()] or [0.0]
    slowest_sample = max(during, key=lambda s: s.latency_s)
    slowest = slowest_sample.latency_s * 1000
    return Row(
        victim["id"],
        event["partitions"],
        round(kill.floor_s * 1000, 2),
        *reached,
        round(median(successes), 2),
        round(max(successes), 2),
        round(slowest, 2),
        round(max([slowest, *(s.latency_s * 1000 for s in later)]), 2),
        round((slowest_sample.due - kill.sent) * 1000, 2),
    )


def report(figures: dict[str, Any]) -> str:
    """The figures as people read them."""
    lines = [
        (
            f"{figures['kills']} kills of one of {figures['handlers']} handlers at "
            f"{figures['rate']:g} calls/s, open loop"
        ),
        "",
        f"{'ms since SIGKILL':34}{'p50':>9}{'p90':>9}{'p99':>9}{'max':>9}",
    ]
    names = {
        "floor": "floor: pidfd readable",
        "detect": "detected",
        "decide": "decided",
        "fence": "fenced and acknowledged",
        "publish": "published",
        "ready": "new owners ready",
        "first_success_median": "first success, median partition",
        "first_success_last": "first success, last partition",
        "slowest_call": "slowest call (takeover)",
        "slowest_call_until_next": "slowest call (with replacement)",
    }
    for key, name in names.items():
        s = figures["ms"][key]
        lines.append(f"{name:34}{s['p50']:9.1f}{s['p90']:9.1f}{s['p99']:9.1f}{s['max']:9.1f}")
    s = figures["call_before_first_kill_ms"]
    lines.append(
        f"{'a call, before the first kill':34}{s['p50']:9.1f}{s['p90']:9.1f}{s['p99']:9.1f}{s['max']:9.1f}"
    )
    lines += [
        "",
        f"slowest call / floor, p50: {figures['slowest_call_over_floor']['p50']}",
        (
            f"{figures['calls']} calls: {figures['failed']} failed, {figures['lost']} lost, "
            f"{figures['doubled']} doubled  {figures['errors'] or ''}"
        ),
    ]
    return "\n".join(lines)


def plot(figures: dict[str, Any], path: Path) -> None:
    """The distribution of each phase over all kills."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    keys = ["floor", "detect", "fence", "publish", "ready", "slowest_call"]
    labels = ["floor\n(pidfd)", "detected", "fenced", "published", "owners\nready", "slowest\ncall"]
    data = [[row[key] for row in figures["rows"]] for key in keys]
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axes.boxplot(data, tick_labels=labels, whis=(1, 99), showfliers=True)
    axes.axhline(60, linestyle=":", linewidth=1, color="tab:red")
    axes.set_ylabel("ms since SIGKILL")
    # Logarithmic: the rare slow one must not flatten all the others.
    axes.set_yscale("log")
    ticks = [1, 2, 5, 10, 20, 50, 100, 200, 500]
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.set_title(
        f"{figures['kills']} kills, {figures['rate']:g} calls/s: "
        f"{figures['failed']} failed, {figures['lost']} lost, {figures['doubled']} doubled"
    )
    figure.savefig(path, dpi=120)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument(
        "--plot", type=Path, help="draw the distribution (PNG; needs raymesh[bench])"
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--rate", type=float, default=2000.0, help="calls a second (default: 2000)")
    parser.add_argument("--handlers", type=int, default=4)
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--warm-up", type=float, default=3.0, metavar="S")
    parser.add_argument("--rest", type=float, default=2.0, metavar="S", help="before each kill")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--endpoint", help="of a running mesh; default: start one")
    arguments = parser.parse_args()
    if arguments.endpoint:
        figures = uvloop.run(measure(arguments.endpoint, arguments))
    else:
        with tempfile.TemporaryDirectory(prefix="raymesh-bench-") as folder:
            config = MeshConfig(
                name=f"bench-{clock.wall():.0f}",
                handlers=arguments.handlers,
                port=0,
                data_dir=folder,
                dashboard=False,
            )
            mesh = launch(config, progress=lambda line: print(line, file=sys.stderr, flush=True))
            try:
                figures = uvloop.run(measure(mesh.endpoint, arguments))
            finally:
                mesh.stop()
    print(report(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    if arguments.plot:
        plot(figures, arguments.plot)
    return 0 if not (figures["failed"] or figures["lost"] or figures["doubled"]) else 1


if __name__ == "__main__":
    sys.exit(main())
