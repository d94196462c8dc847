"""What callers notice of a fault: processes stopped, killed, slowed or starved under load, one at a time.

An open loop of writes, and queries beside it, against a real mesh on Ray with its embedded store; each fault
several times, each time on a mesh that is whole. Whoever is hurt bears the pid that `mesh status` names. What
callers saw stands beside the goal for that fault, met or not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import math
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from benchmarks.arena import conclude, say
from benchmarks.faulty import FOLDER_VARIABLE
from benchmarks.wounds import Victim, Wounds, handlers, store_nodes, supervisors, wardens
from mesh.client.aio import AsyncClient, connect
from mesh.config import MeshConfig
from mesh.core.keyspace import key_bytes, partition_of
from mesh.errors import MeshError, Unavailable
from mesh.launch import Launched, launch
from mesh.net import clock
from mesh.testing.load import OpenLoop
from mesh.testing.netns import Host
from mesh.testing.pinned import Pinned
from mesh.testing.queries import Queries
from mesh.testing.spread import SpreadMesh
from mesh.testing.watch import Status, Watch

Figures = dict[str, Any]
_PROBES = 20
_TELL_S = 3.0
_LONGEST_S = 630.0
"""Of a fault's own time, and what goes before it."""
_NOTHING: list[Victim] = []


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure of each repeat, and the most that it may be."""

    name: str
    figure: str
    most: float


KEPT = (Goal("lost", "lost", 0), Goal("doubled", "doubled", 0), Goal("stale", "stale", 0))
NO_FAILURE = (Goal("calls failed", "failed", 0), *KEPT)
NO_WORD = (
    Goal("old one: stale answers", "old_stale", 0),
    Goal("old one: writes", "old_wrote", 0),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault.

    Attributes:
        whom: the processes that are hurt, out of a status.
        how: the method of Wounds that hurts them.
        holds_s: seconds until whatever can be undone is undone.
        entity: that is called.
        pinned: requests are left with the process that is stopped.
        next_death: afterwards a handler is killed, too.
        spread: the handlers are on hosts of their own (mesh.testing.spread), without Ray.
    """

    whom: Callable[[Status, random.Random], list[Victim]]
    how: str
    goals: tuple[Goal, ...]
    holds_s: float = 0.0
    entity: str = "KV"
    pinned: bool = False
    next_death: bool = False
    spread: bool = False


def _handler(status: Status, dice: random.Random) -> list[Victim]:
    return [dice.choice(handlers(status))]


def _handler_and_warden(status: Status, dice: random.Random) -> list[Victim]:
    return [dice.choice(handlers(status)), *wardens(status)]


def _leader(status: Status, _: random.Random) -> list[Victim]:
    return supervisors(status, "leader")


def _leader_and_handler(status: Status, dice: random.Random) -> list[Victim]:
    return [*supervisors(status, "leader"), dice.choice(handlers(status))]


def _all_supervisors(status: Status, _: random.Random) -> list[Victim]:
    return supervisors(status)


def _primary(status: Status, _: random.Random) -> list[Victim]:
    return store_nodes(status, "primary")


def _replica(status: Status, dice: random.Random) -> list[Victim]:
    return [dice.choice(store_nodes(status, "replica"))]


def _nobody(_: Status, __: random.Random) -> list[Victim]:
    return _NOTHING


_HOLD_S = 6.0
_SLOWEST = Goal("slowest call, ms", "slowest_call_ms", 1000)
_LEADER = Goal("new leader, ms", "new_leader_ms", 500)
_LEADER_LATE = Goal("new leader, ms", "new_leader_ms", 1500)
_ANSWER = Goal("its keys answer, ms", "keys_answer_ms", 1500)
_WRITES = Goal("writes again, ms", "writes_again_ms", 1500)
_MOVED = Goal("partitions moved off, ms", "moved_ms", 5000)
_CALM = Goal("handlers taken for dead", "innocent", 0)

FAULTS = {
    "handler-stopped": Fault(
        _handler, "stop", (_SLOWEST, *NO_FAILURE, *NO_WORD), _HOLD_S, pinned=True
    ),
    "handler-and-warden-stopped": Fault(
        _handler_and_warden, "stop", (*NO_FAILURE, *NO_WORD), _HOLD_S, pinned=True
    ),
    "host-cut": Fault(
        _handler,
        "cut",
        (
            Goal("slowest call, ms", "slowest_call_ms", 2000),
            *NO_FAILURE,
            *NO_WORD,
        ),
        _HOLD_S,
        pinned=True,
        spread=True,
    ),
    "leader-killed": Fault(_leader, "kill", (_LEADER, *NO_FAILURE)),
    "leader-stopped": Fault(_leader, "stop", (_LEADER_LATE, *NO_FAILURE), _HOLD_S),
    "leader-and-handler-killed": Fault(
        _leader_and_handler, "kill", (_LEADER, _ANSWER, *NO_FAILURE)
    ),
    "supervisors-killed": Fault(
        _all_supervisors,
        "kill",
        (
            *NO_FAILURE,
            Goal("new client, ms", "new_client_ms", 1000),
            Goal("next death: calls failed", "next_death_failed", 0),
        ),
        next_death=True,
    ),
    "primary-killed": Fault(_primary, "kill", (_WRITES, *NO_FAILURE)),
    "primary-stopped": Fault(_primary, "stop", (_WRITES, *NO_FAILURE), _HOLD_S),
    "replica-killed": Fault(_replica, "kill", (_WRITES, *NO_FAILURE)),
    "replica-stopped": Fault(_replica, "stop", (_WRITES, *NO_FAILURE), _HOLD_S),
    "handler-slow": Fault(_handler, "slow", (_MOVED, *KEPT), 10.0),
    "handler-failing": Fault(_handler, "fail", (_MOVED, *KEPT), 10.0, entity="Faulty"),
    "starved": Fault(_nobody, "starve", (_CALM, *NO_FAILURE), 600.0),
}


class Repeat:
    """One fault, once, on a mesh that is whole.

    Args:
        fault: what happens.
        options: the command line's.
        dice: choose the victim.
        folder: where the switches are.
        host_of: the host of a handler, where there are several.
    """

    def __init__(
        self,
        fault: Fault,
        options: argparse.Namespace,
        dice: random.Random,
        folder: Path,
        host_of: Callable[[str], Host] | None = None,
    ) -> None:
        self._host_of = host_of
        self._fault = fault
        self._options = options
        self._dice = dice
        self._folder = folder
        self._span = (math.inf, math.inf)
        """From the fault until everybody was there again."""
        self._mine: set[int] = set()
        """Partitions of the handlers that were hurt."""
        self.figures: Figures = {}
        self.status: Status = {}
        """The mesh's last word of itself."""

    async def run(self, addresses: list[str], status: Status) -> None:
        """Load the mesh, hurt it, heal it, and put the figures together."""
        options = self._options
        async with await connect(*addresses) as client, Watch(status) as watch:
            if not await watch.whole(options.limit):
                raise Unavailable(f"the mesh was not whole within {options.limit:g} s")
            load = OpenLoop(
                client,
                rate=options.rate,
                keys=options.keys,
                prefix=f"load-{clock.wall():.3f}-",
                entity=self._fault.entity,
            )
            queries = Queries(client, load, rate=options.queries)
            await load.start()
            queries.start()
            gc.collect()
            gc.freeze()
            try:
                await asyncio.sleep(options.warm_up + self._dice.random() * 0.5)
                await self._hurt(watch, load, client)
            finally:
                self.status = watch.latest
                await load.stop()
                await queries.stop()
                gc.unfreeze()
            await self._settle(load, queries)

    async def _hurt(self, watch: Watch, load: OpenLoop, client: AsyncClient) -> None:
        fault, options, figures = self._fault, self._options, self.figures
        victims = fault.whom(watch.latest, self._dice)
        hurt = [v for v in victims if v.process]
        before = {v.process: len(v.partitions) for v in hurt}
        pinned = await Pinned.open(hurt[0].address) if fault.pinned else None
        probes = Probes.of(load, hurt, watch.latest["partitions"])
        led = {v.pid for v in supervisors(watch.latest, "leader")} & {v.pid for v in victims}
        holds_s = options.hold if fault.holds_s and options.hold is not None else fault.holds_s
        figures["hurt"] = [v.name for v in victims]
        with Wounds(self._folder, self._host_of) as wounds:
            wall, since = clock.wall(), clock.now()
            getattr(wounds, fault.how)(victims)
            probes.leave(pinned, load)
            if fault.next_death:
                figures["new_client_ms"] = await _new_client(watch.latest)
            await asyncio.sleep(max(0.0, since + holds_s - clock.now()))
            probes.leave(pinned, load)
            moved = bool(before) and watch.moved_s(since, list(before)) is not None
            wounds.heal()
            if pinned is not None:
                figures.update(await _last_words(pinned, probes, client, moved=moved))
        await asyncio.sleep(max(0.0, since + options.window - clock.now()))
        figures["whole_again"] = await watch.whole(options.limit)
        if fault.next_death and figures["whole_again"]:
            figures["next_death_failed"] = await _next_death(watch, load, self._dice, options)
        until = clock.now()
        await asyncio.sleep(0.5)
        if led:
            figures["new_leader_ms"] = _ms(watch.new_leader_s(since, led))
        if before:
            figures["moved_ms"] = _ms(watch.moved_s(since, list(before)))
            figures["first_moved_ms"] = _ms(watch.first_moved_s(since, before))
        self._span = (since, until)
        self._mine = {partition for victim in hurt for partition in victim.partitions}
        await self._of_events(watch, wall, {v.name for v in victims})

    async def _of_events(self, watch: Watch, wall: float, hurt: set[str]) -> None:
        events = [e for e in await watch.gather_events() if e["at"] >= wall - 0.001]
        failovers = [e for e in events if e["kind"] == "failover"]
        self.figures["causes"] = [f"{e['handler']} {e['cause']}" for e in failovers]
        self.figures["innocent"] = sum(e["handler"] not in hurt for e in failovers)
        self.figures["events"] = sorted({e["kind"] for e in events})

    async def _settle(self, load: OpenLoop, queries: Queries) -> None:
        """What the ledger says, once all calls have ended."""
        figures = self.figures
        figures["queries"] = queries.verdict.queries
        figures["queries_failed"] = queries.verdict.failed
        figures["slowest_query_ms"] = _ms(queries.verdict.slowest_s)
        figures["stale"] = queries.verdict.stale
        figures.update(_of_samples(load, *self._span, self._mine, self.status["partitions"]))
        try:
            async with asyncio.timeout(self._options.limit):
                verdict = await load.verdict()
        except (MeshError, TimeoutError) as error:
            # Nobody can read the counters back: neither kept nor broken, and no goal is met.
            figures.update(calls=len(load.samples), ledger=f"{type(error).__name__}: {error}"[:200])
            return
        told = sum(n for error, n in verdict.errors.items() if error.startswith("EntityError"))
        figures.update(
            calls=verdict.calls,
            failed=verdict.failed - told + queries.verdict.failed,
            failed_by_the_entity=told,
            lost=verdict.lost,
            doubled=verdict.doubled,
            errors={
                **verdict.errors,
                **{f"query: {k}": n for k, n in queries.verdict.errors.items()},
            },
        )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


@dataclass(frozen=True, slots=True)
class Probes:
    """What is left with a process that is stopped.

    Attributes:
        asked: some of the load's keys that are the process's, for queries.
        written: names of as many others that nobody else calls, for commands.
    """

    asked: list[int]
    written: list[str]

    @classmethod
    def of(cls, load: OpenLoop, hurt: list[Victim], partitions: int) -> Probes:
        """Probes of the first one that is hurt; none where nobody is."""
        if not hurt:
            return cls([], [])
        mine = set(hurt[0].partitions)
        asked = [k for k in range(len(load.names)) if load.partition(k, partitions) in mine]
        names = (f"probe-{clock.wall():.3f}-{i}" for i in range(100 * partitions))
        written = (n for n in names if partition_of(key_bytes(n), partitions) in mine)
        return cls(asked[:_PROBES], list(islice(written, _PROBES)))

    def leave(self, pinned: Pinned | None, load: OpenLoop) -> None:
        """Send them, whoever may read them."""
        if pinned is not None:
            for key in self.asked:
                pinned.leave("KV.get", load.names[key], load.highest[key])
            for name in self.written:
                pinned.leave("KV.incr", name, None)


async def _last_words(
    pinned: Pinned, probes: Probes, client: AsyncClient, *, moved: bool
) -> Figures:
    """What the old process says once it goes on, and whether it could still write.

    Args:
        moved: its partitions were another's by then; before that it may write, of course.
    """
    verdict = await pinned.wait(_TELL_S)
    pinned.close()
    written = [await client.call("KV.get", name) or 0 for name in probes.written]
    return {
        "old_asked": verdict.asked,
        "old_answered": verdict.answered,
        "old_gone": pinned.is_gone,
        "old_stale": verdict.stale,
        "old_wrote": max(verdict.acknowledged, sum(written)) if moved else 0,
    }


async def _new_client(status: Status) -> float | None:
    """How long somebody new takes to connect to the handlers, and to get one answer."""
    addresses = [f"{h['host']}:{h['port']}" for h in status["handlers"]]
    begun = clock.now()
    with contextlib.suppress(MeshError, TimeoutError):
        async with asyncio.timeout(5.0), await connect(*addresses) as client:
            await client.call("KV.get", "a newcomer's", timeout=5.0)
            return _ms(clock.now() - begun)
    return None


async def _next_death(
    watch: Watch, load: OpenLoop, dice: random.Random, options: argparse.Namespace
) -> int:
    """Kill a handler; how many calls failed from then on."""
    before = len(load.samples)
    with Wounds(Path()) as wounds:
        wounds.kill([dice.choice(handlers(watch.latest))])
    await asyncio.sleep(options.window)
    await watch.whole(options.limit)
    return sum(sample.error is not None for sample in list(load.samples)[before:])


def _of_samples(
    load: OpenLoop, since: float, until: float, mine: set[int], partitions: int
) -> Figures:
    """What the calls of the load saw of the fault."""
    called = {load.partition(key, partitions) for key in range(len(load.names))}
    first: dict[int, float] = {}
    slowest = 0.0
    for sample in load.samples:
        if since <= sample.ended and sample.due <= until:
            slowest = max(slowest, sample.latency_s)
        if since <= sample.due and sample.value is not None:
            partition = load.partition(sample.key, partitions)
            first[partition] = min(first.get(partition, sample.ended), sample.ended)
    figures: Figures = {
        "slowest_call_ms": _ms(slowest),
        "writes_again_ms": _ms(min(first.values()) - since) if first else None,
        "all_write_again_ms": (
            _ms(max(first.values()) - since) if called == first.keys() else None
        ),
    }
    if mine:
        asked = mine & called
        figures["keys_answer_ms"] = (
            _ms(max(first[partition] for partition in asked) - since)
            if asked and asked <= first.keys()
            else None
        )
    return figures


class Meshes:
    """The mesh that is hurt; another one where that one does not come to itself again."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._stack = contextlib.ExitStack()
        self._mesh: Launched | None = None
        self.folder = Path()
        self.status: Status = {}
        self.started = 0

    def current(self) -> Status:
        """The status of a mesh that runs; it is started if need be."""
        if self._mesh is None:
            self.started += 1
            name = f"faults-{os.getpid()}-{self.started}"
            self.folder = Path(
                self._stack.enter_context(tempfile.TemporaryDirectory(prefix="raymesh-bench-"))
            )
            os.environ[FOLDER_VARIABLE] = str(self.folder)
            config = MeshConfig(
                name=name,
                handlers=self._options.handlers,
                app="benchmarks.faulty:Faulty",
                port=0,
                data_dir=str(self.folder / "data"),
                dashboard=False,
            )
            say(f"starting mesh {name}")
            self._mesh = launch(config)
            self._stack.callback(self._end, self._mesh)
            self.status = self._mesh.status
        return self.status

    def addresses(self) -> list[str]:
        """Where clients find it."""
        rows = (*self.status["supervisors"], *self.status["handlers"])
        return [f"{row['host']}:{row['port']}" for row in rows]

    def leave(self) -> None:
        """End it; the next one is new."""
        self._stack.close()
        self._mesh = None

    @staticmethod
    def _end(mesh: Launched) -> None:
        try:
            mesh.stop()
        except MeshError as error:
            say(f"{error}; it is killed, and its processes end with it")
            mesh.process.kill()
            mesh.process.wait()


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
    repeat = Repeat(FAULTS[name], options, dice, meshes.folder)
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


def judge(name: str, rows: list[Figures]) -> list[dict[str, Any]]:
    """Each goal of a fault beside what came of it; None where a repeat never got there."""
    verdicts = []
    for goal in FAULTS[name].goals:
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
    lines = [
        f"{name}, {len(rows)} times; the mesh came to itself again {whole} times",
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
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    # However it is told to end: whoever was stopped goes on first, then everything is taken down.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    names = options.fault or [name for name in FAULTS if name != "starved"]
    dice = random.Random(options.seed)
    figures: Figures = {"rate": options.rate, "handlers": options.handlers, "faults": {}}
    meshes = Meshes(options)
    texts = []
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
            verdicts = judge(name, rows)
            figures["faults"][name] = {"goals": verdicts, "rows": rows}
            texts.append(report(name, rows, verdicts))
            say(texts[-1])
    finally:
        meshes.leave()
    conclude(figures, "\n\n".join(texts), options.json)
    return 0 if all(v["met"] for f in figures["faults"].values() for v in f["goals"]) else 1


if __name__ == "__main__":
    sys.exit(main())
