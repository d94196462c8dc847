"""What clients and programs rely on: no Ray, no Linux, ten seconds, 1 MiB, and the keys of an event."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from inspect import signature

import pytest
from mesh_in_process import InProcess
from mesh_in_thread import mesh_in_thread

import mesh
from mesh.testing.load import OpenLoop

MIB = 1024 * 1024

# What other systems than Linux lack, and Ray, are out of reach before anything is imported.
ELSEWHERE = """
import builtins, os, select, signal, socket, sys, sysconfig, time

sysconfig.get_config_vars()  # of the system that it runs on, once and for all

sys.modules["ray"] = sys.modules["actors"] = None
for module, *names in (
    (os, "pidfd_open", "eventfd", "memfd_create", "sched_setaffinity", "sched_getaffinity", "splice"),
    (select, "epoll"),
    (signal, "pidfd_send_signal", "sigtimedwait"),
    (socket, "SO_PEERCRED", "SO_PASSCRED", "AF_NETLINK", "TCP_USER_TIMEOUT", "TCP_KEEPIDLE"),
    (time, "CLOCK_BOOTTIME"),
):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
opened = builtins.open
def guarded(file, *rest, **more):
    assert not str(file).startswith("/proc"), file
    return opened(file, *rest, **more)
builtins.open = guarded
sys.platform = "darwin"
import asyncio, mesh
"""

CALLS = """
assert mesh.AsyncClient and mesh.local and mesh.up and mesh.testing
with mesh.Client(sys.argv[1]) as client:
    print(client.call(mesh.KV.incr, "k", 5), client.submit("KV.incr", "k").result())
async def main():
    async with mesh.connect(sys.argv[1]) as client:
        print(await client.call(mesh.KV.get, b"k"))
asyncio.run(main())
"""


def test_a_client_needs_neither_ray_nor_linux():
    with mesh_in_thread(replaces=False) as meshed:
        done = subprocess.run(
            [sys.executable, "-c", ELSEWHERE + CALLS, meshed.endpoint],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
    assert (done.stdout, done.stderr) == ("5 6\n6\n", "")


@pytest.mark.parametrize("connect", [mesh.connect, mesh.Client])
def test_a_connect_that_is_told_no_time_takes_ten_seconds_at_most(connect):
    assert signature(connect).parameters["timeout"].default == 10.0


async def test_a_call_that_is_told_no_time_ends_after_ten_seconds():
    async with mesh.testing.mesh(handlers=1, replaces=False) as m, m.connect() as client:
        await m.kill("h-0")
        alice = client.entity(mesh.KV, "alice")
        calls = (
            client.call(mesh.KV.get, "k"),
            client.call("KV.get", "k"),
            alice.get(),
            alice.with_options(priority=1).get(),
            client.call(mesh.KV.get, "k", timeout=30),
            alice.with_options(timeout=30).get(),
            alice.with_options(timeout=30).with_options(priority=1).get(),
        )
        waiting = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0)
        for until, done in ((9.9, 0), (10.1, 4), (29.9, 4), (30.1, 7)):
            await m.clock.advance(until - m.clock.passed_s)
            if done:
                await asyncio.wait(waiting[:done])
            assert [call.done() for call in waiting] == [True] * done + [False] * (7 - done)
        for call, seconds in zip(waiting, (10, 10, 10, 10, 30, 30, 30), strict=True):
            with pytest.raises(mesh.MeshError, match=f"within {seconds} s"):
                await call


async def test_a_key_as_text_and_as_bytes_is_one_entity():
    async with mesh.testing.mesh() as m, m.connect() as client:
        for key, count in (("zürich", 1), ("zürich".encode(), 2), ("k" * 512, 1), (b"k" * 512, 2)):
            assert await client.call(mesh.KV.incr, key) == count


async def test_a_state_and_a_reply_may_have_a_mebibyte_but_for_their_names():
    value = b"x" * (MIB - 100)
    async with mesh.testing.mesh() as m, m.connect() as client:
        await client.call(mesh.KV.put, "k", value)
        assert await client.call(mesh.KV.get, "k") == value
        with pytest.raises(mesh.EntityError, match="over the limit of 1048576"):
            await client.call(mesh.KV.put, "k", value + b"x" * 100)
        assert len(await client.call(mesh.KV.get, "k")) == len(value)


async def test_a_failover_and_a_handover_have_the_fields_that_programs_read():
    async with InProcess(3) as meshed:
        before = time.time()
        killed = await meshed.kill("h-1")
        await meshed.replaced("h-1", killed)
        [failover] = json.loads(json.dumps(await meshed.events("failover")))
        [handover] = json.loads(json.dumps(await meshed.events("handover")))
    assert failover.keys() == {"kind", "at", "handler", "pid", "cause", "partitions", "phases_ms"}
    assert list(failover["phases_ms"]) == ["detect", "decide", "fence", "publish", "ready"]
    assert failover["cause"] == "exit" and type(failover["partitions"]) is int
    assert handover.keys() == {"kind", "at", "from", "to", "partitions", "why", "took_ms"}
    for event in (failover, handover):
        assert before - 1 < event["at"] < time.time() + 1


async def test_the_demos_ledger_finds_what_was_lost_and_what_took_effect_twice():
    async with InProcess(2, replaces=False) as meshed:
        client = await meshed.connect()
        load = OpenLoop(client, rate=500, keys=4)
        await load.start()
        await meshed.until(lambda: len(load.samples) > 40)
        await load.stop()
        good = await load.verdict()
        assert good.kept and good.acknowledged == good.calls and not good.failed
        await client.call("KV.incr", "load-0", -2)
        await client.call("KV.incr", "load-1", 3)
        bad = await load.verdict()
    assert (bad.lost, bad.doubled, bad.kept) == (2, 3, False)
