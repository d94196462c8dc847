"""Load that does not wait: an open loop, and a ledger that knows what must have come of it.

Calls are due at fixed times, whatever became of those before; their latency counts from when they were due. A
closed loop would send nothing while the service stands still, and so leave out just the calls that hurt
(coordinated omission).
"""

from __future__ import annotations

import asyncio
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from mesh.client.aio import AsyncClient
from mesh.core.keyspace import key_bytes, partition_of
from mesh.errors import MeshError
from mesh.net import clock
from mesh.testing.metronome import Metronome

_TICK_S = 0.001


@dataclass(frozen=True, slots=True)
class Sample:
    """One call: when it was due, when it ended (seconds of mesh.net.clock), and how."""

    due: float
    ended: float
    key: int
    value: int | None
    error: str | None = None

    @property
    def latency_s(self) -> float:
        """From when it was due."""
        return self.ended - self.due


class Samples:
    """Calls in order of their ends.

    Kept as columns of numbers: half a million objects would be walked through by each full collection, and
    the loop would charge its own standstill (measured: 100 ms after two minutes) to what it measures.
    """

    def __init__(self) -> None:
        self._times = array("d")
        self._keys = array("l")
        self._values: list[int | None] = []
        self._errors: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Sample]:
        times = iter(self._times)
        ends = zip(times, times, self._keys, self._values, strict=True)
        for number, (due, ended, key, value) in enumerate(ends):
            yield Sample(due, ended, key, value, self._errors.get(number))

    def add(self, sample: Sample) -> None:
        """The next one that ended."""
        self._times.extend((sample.due, sample.ended))
        if sample.error is not None:
            self._errors[len(self)] = sample.error
        self._keys.append(sample.key)
        self._values.append(sample.value)


@dataclass(slots=True)
class Verdict:
    """What the ledger found. Anything but zeros in the last three is a broken promise."""

    calls: int = 0
    acknowledged: int = 0
    unknown: int = 0
    not_executed: int = 0
    lost: int = 0
    doubled: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> int:
        """Calls that ended in an error, of whatever kind."""
        return self.calls - self.acknowledged

    @property
    def kept(self) -> bool:
        """Nothing that was acknowledged is lost, and nothing took effect twice."""
        return not self.lost and not self.doubled


class OpenLoop:
    """Calls KV.incr at a fixed rate, round-robin over its own keys, and keeps every reply.

    Args:
        client: to call with.
        rate: calls a second.
        keys: number of keys; each starts at 0 in a fresh mesh, or is read first.
        prefix: of the keys' names.
        timeout_s: for each call.
        entity: another one that has `incr` and `get` as KV has them.
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        rate: float,
        keys: int = 1000,
        prefix: str = "load-",
        timeout_s: float = 5.0,
        entity: str = "KV",
    ) -> None:
        self.samples = Samples()
        self.rate = rate
        self.entity = entity
        self.highest = [0] * keys
        """The highest acknowledged number of each key so far: no query may show less from then on."""
        self._client = client
        self.names = [f"{prefix}{i}" for i in range(keys)]
        self._incr = f"{entity}.incr"
        self._timeout_s = timeout_s
        self._before = [0] * keys
        self._running: set[asyncio.Task[None]] = set()
        self._loop_task: asyncio.Task[None] | None = None

    def partition(self, key: int, partitions: int) -> int:
        """The partition of the loop's key of that number."""
        return partition_of(key_bytes(self.names[key]), partitions)

    async def start(self) -> None:
        """Read the counters, then begin."""
        gate = asyncio.Semaphore(64)

        async def read(key: int) -> None:
            async with gate:
                value = await self._client.call(f"{self.entity}.get", self.names[key])
                self._before[key] = self.highest[key] = value or 0

        await asyncio.gather(*(read(key) for key in range(len(self.names))))
        self._loop_task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        begun, sent = clock.now(), 0
        with Metronome(_TICK_S) as metronome:
            while True:
                while (due := begun + sent / self.rate) <= clock.now():
                    task = loop.create_task(self._call(due, sent))
                    self._running.add(task)
                    task.add_done_callback(self._running.discard)
                    sent += 1
                await metronome.tick()

    async def _call(self, due: float, number: int) -> None:
        key = number % len(self.names)
        value, error = None, None
        try:
            value = await self._client.call(self._incr, self.names[key], timeout=self._timeout_s)
            self.highest[key] = max(self.highest[key], value)
        except MeshError as failure:
            word = {True: "executed", False: "not executed", None: "unknown"}[failure.executed]
            error = f"{type(failure).__name__} ({word})"
        self.samples.add(Sample(due, clock.now(), key, value, error))

    async def stop(self) -> None:
        """Send no more; return when every call has ended."""
        if self._loop_task is not None:
            self._loop_task.cancel()
            await asyncio.gather(self._loop_task, return_exceptions=True)
        await asyncio.gather(*self._running)

    async def verdict(self) -> Verdict:
        """Read every counter back and compare it with the replies.

        Each increment that was acknowledged returned a number of its own, and the counter stands at
        least at their count: less is a lost write. It stands at most at the count of all that may
        have run: more, or a number that two calls got, is one that took effect twice.
        """
        verdict = Verdict(calls=len(self.samples))
        acknowledged: Counter[int] = Counter()
        maybe: Counter[int] = Counter()
        seen: Counter[tuple[int, int]] = Counter()
        for sample in self.samples:
            if sample.value is not None:
                verdict.acknowledged += 1
                acknowledged[sample.key] += 1
                seen[sample.key, sample.value] += 1
            elif sample.error is not None:
                verdict.errors[sample.error] += 1
                if "not executed" in sample.error:
                    verdict.not_executed += 1
                else:
                    verdict.unknown += 1
                    maybe[sample.key] += 1
        verdict.doubled += sum(count - 1 for count in seen.values())
        for key in acknowledged | maybe:
            value = await self._client.call(f"{self.entity}.get", self.names[key]) or 0
            grown = value - self._before[key]
            verdict.lost += max(0, acknowledged[key] - grown)
            verdict.doubled += max(0, grown - acknowledged[key] - maybe[key])
        return verdict
