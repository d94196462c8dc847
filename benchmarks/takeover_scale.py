"""Whether a takeover stays quick where there is much to take over: keys, and partitions.

Three meshes, one after the other: a small one (10³ keys, 256 partitions), one with 10⁶ keys, one with
16,384 partitions. Each is loaded by an open loop and has handlers killed, as by `redistribution`. What is
compared is the time from the proof of the death until the new owners have taken over, and the slowest call.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from benchmarks import redistribution
from benchmarks.arena import conclude, say
from mesh.client.aio import connect
from mesh.config import MeshConfig
from mesh.launch import launch
from mesh.net import clock

_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class Size:
    """A mesh to be measured; `goal` is how many times the small one's takeover it may take."""

    name: str
    keys: int
    partitions: int
    goal: float | None = None


SIZES = (
    Size("small", 1_000, 256),
    Size("many keys", 1_000_000, 256, 1.5),
    Size("many partitions", 1_000, 16_384, 3.0),
)


async def fill(endpoint: str, keys: int) -> None:
    """Write every key once."""
    numbers = iter(range(keys))
    async with connect(endpoint) as client:

        async def writer() -> None:
            for number in numbers:
                await client.call("KV.put", f"fill-{number}", number)

        await asyncio.gather(*(writer() for _ in range(_AT_ONCE)))


def measure(size: Size, arguments: argparse.Namespace) -> dict[str, Any]:
    """One mesh, from its start to its end."""
    with tempfile.TemporaryDirectory(prefix="raymesh-bench-") as folder:
        config = MeshConfig(
            name=f"bench-{clock.wall():.0f}",
            handlers=arguments.handlers,
            partitions=size.partitions,
            port=0,
            data_dir=folder,
            dashboard=False,
        )
        mesh = launch(config)
        try:
            say(f"{size.name}: {size.keys:,} keys, {size.partitions:,} partitions")
            uvloop.run(fill(mesh.endpoint, size.keys))
            figures = uvloop.run(redistribution.measure(mesh.endpoint, arguments))
        finally:
            mesh.stop()
    takeovers = [row["ready"] - row["detect"] for row in figures["rows"]]
    return {
        "keys": size.keys,
        "partitions": size.partitions,
        "takeover_ms": round(median(takeovers), 2),
        "slowest_call_ms": figures["ms"]["slowest_call"]["p50"],
        "floor_ms": figures["ms"]["floor"]["p50"],
        **{name: figures[name] for name in ("kills", "calls", "failed", "lost", "doubled")},
    }


def report(figures: dict[str, Any]) -> str:
    """The figures as people read them."""
    lines = [
        f"{'':18}{'takeover ms':>13}{'ratio':>8}{'goal':>8}{'slowest call ms':>18}{'failed':>8}",
    ]
    small = figures["small"]["takeover_ms"]
    for size in SIZES:
        row = figures[size.name]
        goal = f"{size.goal:g} x" if size.goal else ""
        lines.append(
            f"{size.name:18}{row['takeover_ms']:>13.1f}{row['takeover_ms'] / small:>7.2f}x{goal:>8}"
            f"{row['slowest_call_ms']:>18.1f}{row['failed']:>8}"
        )
    return "\n".join(lines)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--kills", type=int, default=10, help="in each mesh")
    parser.add_argument("--rate", type=float, default=1000.0, help="calls a second")
    parser.add_argument("--handlers", type=int, default=4)
    arguments = parser.parse_args()
    # What redistribution asks for beside these.
    arguments.keys, arguments.warm_up, arguments.rest, arguments.seed = 1000, 3.0, 2.0, 1
    figures = {size.name: measure(size, arguments) for size in SIZES}
    conclude(figures, report(figures), arguments.json)
    bad = any(row["failed"] or row["lost"] or row["doubled"] for row in figures.values())
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
