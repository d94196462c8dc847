"""Whether what is kept to recognise repeated calls stays flat: over many calls, and over many clients.

An embedded store, a supervisor and two handlers in one process, no Ray. First one client makes N calls; then
N / 1,000 clients come, make ten calls each, and go; at last N / 100 calls bear a key of their caller's,
which is kept for a day: that is what growth looks like. At intervals the store is asked for its
records (every field of a partition that is no state) and for their bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvloop

from mesh.client.aio import AsyncClient, connect
from mesh.entities import Registry
from mesh.net import clock
from mesh.node import Node
from mesh.node_settings import NodeSettings
from mesh.store.embedded import EmbeddedStore
from mesh.store.redis import RedisStore
from mesh.store.resp import connect as connect_store
from mesh.store.resp import pack
from mesh.supervisor import Supervisor, SupervisorSettings

NAME = "bench-memory"
PARTITIONS = 64
KEYS = 1_000
AT_ONCE = 128
INTERVALS = 10
SHORT_LIVED_CALLS = 10
KINDS = {"o": "outcomes", "w": "watermarks", "c": "callers"}


class Running:
    """The mesh, and a look into its store and its handlers."""

    def __init__(self, endpoint: str, nodes: list[Node], store: Any) -> None:
        self.endpoint = endpoint
        self.nodes = nodes
        self._store = store

    async def sample(self, calls: int) -> dict[str, int]:
        """Records by kind, in the store and in the handlers' memory."""
        fields: Counter[str] = Counter()
        size = 0
        for partition in range(PARTITIONS):
            key = b"raymesh:{%b/0}:p:%d" % (NAME.encode(), partition)
            commands = pack(b"HKEYS", key), pack(b"MEMORY", b"USAGE", key, b"SAMPLES", b"0")
            names, used = await self._store.execute(*commands, within_s=30.0)
            fields.update(name[:1].decode() for name in names)
            size += used or 0
        logs = [t.log for node in self.nodes for t in node._core._tenures.in_memory.values()]
        return {
            "calls": calls,
            **{name: fields[kind] for kind, name in KINDS.items()},
            "records": sum(fields[kind] for kind in KINDS),
            "bytes": size,
            "in_memory": sum(log.count() + len(log.callers.records) for log in logs),
            "sessions": sum(len(list(log.numbers())) for log in logs),
        }


@contextlib.asynccontextmanager
async def mesh() -> AsyncIterator[Running]:
    """Two handlers on an embedded store."""
    with tempfile.TemporaryDirectory(prefix="raymesh-bench-") as folder:
        async with EmbeddedStore(Path(folder), mesh=NAME) as embedded:
            address = embedded.address
            store = RedisStore(address)
            await store.ensure_functions()
            ids = ("h-0", "h-1")
            settings = SupervisorSettings(NAME, "s-0", ids, PARTITIONS)
            supervisor = Supervisor(settings, store, _Nobody())
            await supervisor.listen()
            await supervisor.lead()
            endpoint = f"127.0.0.1:{supervisor.port}"
            nodes = [
                Node(
                    NodeSettings(NAME, id_, (endpoint,), PARTITIONS),
                    Registry([]),
                    RedisStore(address),
                )
                for id_ in ids
            ]
            for node in nodes:
                await node.start()
            while not (await supervisor.status())["ready"]:
                await asyncio.sleep(0.05)
            host, port = address.nodes[0]
            connection = await connect_store(
                host, port, password=address.password or "", within_s=5.0
            )
            try:
                yield Running(endpoint, nodes, connection)
            finally:
                for node in nodes:
                    await node.stop()
                await supervisor.stop()
                await connection.close()


class _Nobody:
    """Replaces no handler: none dies."""

    async def start_handler(self, id: str) -> None:
        raise RuntimeError(f"{id} died")


async def many(client: AsyncClient, numbers: range, **options: Any) -> None:
    """These calls, a number of them at a time."""
    left = iter(numbers)

    async def caller() -> None:
        for number in left:
            own = {name: f"{value}{number}" for name, value in options.items()}
            await client.call("KV.incr", f"k{number % KEYS}", **own)

    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))


async def measure(calls: int) -> dict[str, list[dict[str, int]]]:
    """The three phases."""
    figures: dict[str, list[dict[str, int]]] = {
        "one client": [],
        "clients": [],
        "callers' keys": [],
    }
    async with mesh() as running:
        async with connect(running.endpoint) as client:
            step = max(1, calls // INTERVALS)
            for first in range(0, calls, step):
                await many(client, range(first, first + step))
                figures["one client"].append(await running.sample(first + step))
        clients = max(INTERVALS, calls // 1_000)
        step = clients // INTERVALS
        for first in range(0, clients, step):
            for _ in range(step):
                async with connect(running.endpoint) as client:
                    await many(client, range(SHORT_LIVED_CALLS))
            await asyncio.sleep(0.2)  # their goodbyes are on their way
            figures["clients"].append(await running.sample((first + step) * SHORT_LIVED_CALLS))
        async with connect(running.endpoint) as client:
            step = max(1, calls // 100 // INTERVALS)
            for first in range(0, step * INTERVALS, step):
                await many(client, range(first, first + step), idempotency_key="key-")
                figures["callers' keys"].append(await running.sample(first + step))
    return figures


def is_flat(samples: list[dict[str, int]], name: str) -> bool:
    """The second half holds no more than the first tenth, give or take what is under way."""
    return max(s[name] for s in samples[len(samples) // 2 :]) <= 1.5 * samples[0][name] + 1_000


def report(figures: dict[str, list[dict[str, int]]]) -> str:
    """The figures as people read them."""
    columns = (
        "calls",
        "records",
        "outcomes",
        "watermarks",
        "callers",
        "bytes",
        "in_memory",
        "sessions",
    )
    lines = [f"{'':16}" + "".join(f"{column:>12}" for column in columns)]
    for phase, samples in figures.items():
        lines += [
            f"{phase if sample is samples[0] else '':16}"
            + "".join(f"{sample[column]:>12,}" for column in columns)
            for sample in samples
        ]
    return "\n".join(lines)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--calls", type=int, default=200_000, help="of the one client")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    begun = clock.now()
    samples = uvloop.run(measure(arguments.calls))
    flat = {
        phase: all(is_flat(samples[phase], name) for name in ("records", "in_memory", "sessions"))
        for phase in ("one client", "clients")
    }
    keyed = samples["callers' keys"]
    grown = keyed[-1]["callers"] - keyed[0]["callers"]
    per_key = (keyed[-1]["bytes"] - keyed[0]["bytes"]) / max(1, grown)
    print(report(samples))
    print(
        f"\nflat over one client's calls: {flat['one client']}, over clients: {flat['clients']}\n"
        f"a caller's key takes {per_key:.0f} bytes in the store for as long as it is kept\n"
        f"{clock.now() - begun:.0f} s"
    )
    figures = {"samples": samples, "flat": flat, "bytes_per_callers_key": round(per_key, 1)}
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0 if all(flat.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
