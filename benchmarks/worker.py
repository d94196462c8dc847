"""One contender in a process of its own: brings up what it measures, then runs what it is told.

Orders come as lines of JSON on standard input, answers go as such to standard output. It uses nothing but
the public interface, and nothing of this package, so that an older revision's interpreter can run it
(`--against`): `python benchmarks/worker.py mesh ...` imports the `mesh` that is installed there.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

Call = Callable[[int], Awaitable[Any]]
HERE = Path(__file__).resolve().parent


class Contender:
    """What can be measured: a write and a read of the key of a number."""

    def __init__(self, write: Call, read: Call, about: dict[str, Any]) -> None:
        self.write = write
        self.read = read
        self.about = about


@contextlib.asynccontextmanager
async def mesh_contender(options: argparse.Namespace) -> AsyncIterator[Contender]:
    """A whole mesh on real Ray with its embedded store, as `mesh up` starts it."""
    import mesh

    command = [
        *(sys.executable, "-m", "mesh.cli", "up", "--json", "--port", "0"),
        *("--name", options.name, "--handlers", str(options.handlers)),
        *("--partitions", str(options.partitions), "--app", "counter:Counter"),
        *("--data-dir", options.data_dir),
    ]
    # Its own working folder, not this repository's: `mesh` is the installed one.
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, cwd=HERE, limit=1 << 20
    )
    assert process.stdout is not None
    try:
        line = await process.stdout.readline()
        if not line:
            raise SystemExit("the mesh did not start")
        status = json.loads(line)
        client = await mesh.connect(status["endpoints"][0])
        keys = [f"key-{i}" for i in range(options.keys)]
        count = len(keys)

        async def write(i: int) -> Any:
            return await client.call("Counter.incr", keys[i % count])

        async def read(i: int) -> Any:
            return await client.call("Counter.read", keys[i % count])

        await each_once(write, count)
        yield Contender(write, read, status)
        await client.close()
    finally:
        process.send_signal(signal.SIGINT)
        await process.wait()


@contextlib.asynccontextmanager
async def store_contender(options: argparse.Namespace) -> AsyncIterator[Contender]:
    """redis-py's asyncio client straight to the same store, as durable: SET, WAIT for every replica."""
    import redis.asyncio as redis

    host, _, port = options.store.rpartition(":")
    password = os.environ.get("BENCH_STORE_PASSWORD")
    idle: list[Any] = []

    def connection() -> Any:
        if idle:
            return idle.pop()
        return redis.Redis(
            host=host, port=int(port), password=password, single_connection_client=True
        )

    async def write(i: int) -> Any:
        mine = connection()
        pipe = mine.pipeline(transaction=False)
        pipe.set(f"bench:{i % options.keys}", i)
        pipe.wait(options.replicas, 0)
        _, confirmed = await pipe.execute()
        if confirmed < options.replicas:
            raise RuntimeError(f"{confirmed} of {options.replicas} replicas confirmed")
        idle.append(mine)

    async def read(i: int) -> Any:
        mine = connection()
        value = await mine.get(f"bench:{i % options.keys}")
        idle.append(mine)
        return value

    await each_once(write, options.keys)
    yield Contender(write, read, {})
    for one in idle:
        await one.aclose()


@contextlib.asynccontextmanager
async def actor_contender(options: argparse.Namespace) -> AsyncIterator[Contender]:
    """Plain Ray actors, a counter each: no replication, no failover."""
    ray = _ray(options)

    class Counter:
        def __init__(self) -> None:
            self.value = 0

        async def incr(self) -> int:
            self.value += 1
            return self.value

        async def read(self) -> int:
            return self.value

    actors = [ray.remote(Counter).options(num_cpus=0).remote() for _ in range(options.handlers)]
    await asyncio.gather(*(actor.read.remote() for actor in actors))

    async def write(i: int) -> Any:
        return await actors[i % len(actors)].incr.remote()

    async def read(i: int) -> Any:
        return await actors[i % len(actors)].read.remote()

    yield Contender(write, read, {})
    ray.shutdown()


@contextlib.asynccontextmanager
async def serve_contender(options: argparse.Namespace) -> AsyncIterator[Contender]:
    """A Ray Serve handle, called from Python; replicas keep no common state."""
    ray = _ray(options)
    from ray import serve

    @serve.deployment(
        num_replicas=options.handlers,
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": 0},
    )
    class Counter:
        def __init__(self) -> None:
            self.value = 0

        async def incr(self) -> int:
            self.value += 1
            return self.value

        async def read(self) -> int:
            return self.value

    serve.start(proxy_location="Disabled")
    handle = await asyncio.to_thread(
        lambda: serve.run(Counter.bind(), name="bench", route_prefix=None)
    )

    async def write(_: int) -> Any:
        return await handle.incr.remote()

    async def read(_: int) -> Any:
        return await handle.read.remote()

    await read(0)
    yield Contender(write, read, {})
    await asyncio.to_thread(serve.shutdown)
    ray.shutdown()


def _ray(options: argparse.Namespace) -> Any:
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    ray.init(address=options.ray, namespace="bench", log_to_driver=False, logging_level="ERROR")
    return ray


CONTENDERS = {
    "mesh": mesh_contender,
    "store": store_contender,
    "actor": actor_contender,
    "serve": serve_contender,
}


async def each_once(write: Call, count: int) -> None:
    """Every key is there before anything is measured: making one costs more than changing it."""
    numbers = iter(range(count))

    async def caller() -> None:
        for number in numbers:
            await write(number)

    await asyncio.gather(*(caller() for _ in range(256)))


async def closed_loop(call: Call, in_flight: int, seconds: float, first: int) -> dict[str, Any]:
    """So many callers, each with one call at a time."""
    latencies: list[int] = []
    now = time.perf_counter_ns
    numbers = iter(range(first, sys.maxsize))
    begun = now()
    end = begun + int(seconds * 1e9)

    async def caller() -> None:
        at = now()
        while at < end:
            await call(next(numbers))
            after = now()
            latencies.append(after - at)
            at = after

    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return {"seconds": (now() - begun) / 1e9, "next": next(numbers), **summary(latencies)}


async def open_loop(call: Call, rate: float, seconds: float, first: int) -> dict[str, Any]:
    """Calls due at fixed times; a call's latency counts from when it was due."""
    latencies: list[int] = []
    failed = 0
    now = time.perf_counter_ns
    begun = now()
    count = int(rate * seconds)
    running: set[asyncio.Task[None]] = set()

    async def one(due: int, number: int) -> None:
        nonlocal failed
        try:
            await call(number)
        except Exception:
            failed += 1
        latencies.append(now() - due)

    sent = 0
    while sent < count:
        due = begun + int(sent / rate * 1e9)
        while sent < count and due <= now():
            task = asyncio.ensure_future(one(due, first + sent))
            running.add(task)
            task.add_done_callback(running.discard)
            sent += 1
            due = begun + int(sent / rate * 1e9)
        await asyncio.sleep(0.0005)
    await asyncio.gather(*running)
    seconds = (now() - begun) / 1e9
    return {"seconds": seconds, "next": first + sent, "failed": failed, **summary(latencies)}


def summary(latencies: list[int]) -> dict[str, Any]:
    """Counts and percentiles (microseconds), from an HDR histogram of three digits."""
    from hdrh.histogram import HdrHistogram

    histogram = HdrHistogram(1, 120_000_000, 3)
    for latency in latencies:
        histogram.record_value(max(1, latency // 1000))
    return {
        "calls": len(latencies),
        "us": {
            f"p{share:g}": histogram.get_value_at_percentile(share)
            for share in (50, 90, 99, 99.9, 100)
        },
        "histogram": histogram.encode().decode(),
    }


async def serve_orders(contender: Contender) -> None:
    """Until standard input ends."""
    _say({"ready": True, "about": contender.about})
    number = 0
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        call = contender.write if order["what"] == "writes" else contender.read
        gc.collect()
        if "rate" in order:
            answer = await open_loop(call, order["rate"], order["seconds"], number)
        else:
            answer = await closed_loop(call, order["in_flight"], order["seconds"], number)
        number = answer.pop("next")
        _say(answer)


def _say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


async def run(options: argparse.Namespace) -> None:
    """The contender's whole life."""
    async with CONTENDERS[options.contender](options) as contender:
        await serve_orders(contender)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("contender", choices=sorted(CONTENDERS))
    parser.add_argument("--name", default="bench")
    parser.add_argument("--handlers", type=int, default=4)
    parser.add_argument("--partitions", type=int, default=256)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--data-dir", default="")
    parser.add_argument("--store", default="", metavar="HOST:PORT")
    parser.add_argument("--ray", default="", metavar="ADDRESS")
    # The driver's Ctrl-C reaches the whole group; this process ends in order, when its input does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import uvloop

    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
