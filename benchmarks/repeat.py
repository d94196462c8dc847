"""One fault, once: the load before it, the wound, the healing, and the figures."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import gc
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.catalogue import Fault
from benchmarks.wounds import Victim, Wounds, handlers, supervisors
from mesh.client.aio import AsyncClient, connect
from mesh.core.keyspace import key_bytes, partition_of
from mesh.errors import MeshError, Unavailable
from mesh.net import clock
from mesh.store.api import StoreRefused, StoreUnreachable
from mesh.testing.lasting import LastingStore
from mesh.testing.load import OpenLoop
from mesh.testing.netns import Host
from mesh.testing.pinned import Pinned
from mesh.testing.queries import Queries
from mesh.testing.watch import Status, Watch

Figures = dict[str, Any]
_PROBES = 20
_TELL_S = 3.0
_AGAIN_S = 0.5
_EVEN_S = 90.0


class Repeat:
    """One fault, once, on a mesh that is whole.

    Args:
        fault: what happens.
        options: the command line's.
        dice: choose the victim.
        folder: where the switches are.
        host_of: the host of a handler, where there are several.
        store: the mesh's, where it is the benchmark's own.
    """

    def __init__(
        self,
        fault: Fault,
        options: argparse.Namespace,
        dice: random.Random,
        folder: Path,
        host_of: Callable[[str], Host] | None = None,
        store: LastingStore | None = None,
    ) -> None:
        self._host_of = host_of
        self._store = store
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
        victims = fault.whom(await self._whole_status(watch), self._dice)
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
        if not fault.spread:  # there nobody is started anew
            figures["whole_again"] = await self._whole(watch)
        if fault.gray:
            figures["load_back_ms"] = await self._even(watch)
        if fault.next_death and figures["whole_again"]:
            next_victim = self._dice.choice(handlers(watch.latest))
            figures["next_death_failed"] = await _next_death(next_victim, watch, load, options)
            hurt.append(next_victim)
        until = clock.now()
        await asyncio.sleep(0.5)
        if led:
            figures["new_leader_ms"] = _ms(watch.new_leader_s(since, led))
        if before:
            figures["moved_ms"] = _ms(watch.moved_s(since, list(before)))
            figures["first_moved_ms"] = _ms(watch.first_moved_s(since, before))
        self._span = (since, until)
        self._mine = {
            partition
            for victim in hurt
            if victim.process in before
            for partition in victim.partitions
        }
        await self._of_events(watch, wall, {v.name for v in (*victims, *hurt)})

    async def _whole(self, watch: Watch) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.limit):
                while not await watch.whole(_AGAIN_S):
                    if self._store is not None:
                        with contextlib.suppress(StoreUnreachable, StoreRefused):
                            await self._store.admit()
                return True
        return False

    async def _even(self, watch: Watch) -> float | None:
        """How long whoever was relieved of its load has to wait for all of it; the next repeat needs that."""
        since = clock.now()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_EVEN_S):
                while not watch.is_even:
                    await asyncio.sleep(_AGAIN_S)
                return _ms(clock.now() - since)
        return None

    async def _whole_status(self, watch: Watch) -> Status:
        """The mesh's status, with the store's servers where the mesh does not know them."""
        if self._store is None:
            return watch.latest
        nodes = [dataclasses.asdict(node) for node in await self._store.nodes()]
        return {**watch.latest, "store": {**watch.latest["store"], "nodes": nodes}}

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
            # Nobody can read the counters back: neither kept nor broken, and that goal is not met.
            failed = sum(sample.error is not None for sample in load.samples)
            figures.update(calls=len(load.samples), failed=failed + queries.verdict.failed)
            figures["ledger"] = f"{type(error).__name__}: {error}"[:200]
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
    gone = pinned.is_gone
    pinned.close()
    written = [await client.call("KV.get", name) or 0 for name in probes.written]
    return {
        "old_asked": verdict.asked,
        "old_answered": verdict.answered,
        "old_gone": gone,
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
    victim: Victim, watch: Watch, load: OpenLoop, options: argparse.Namespace
) -> int:
    """Kill a handler; how many calls failed from then on."""
    before = len(load.samples)
    with Wounds(Path()) as wounds:
        wounds.kill([victim])
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
