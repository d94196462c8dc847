"""mesh demo: the main job, before one's eyes."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from mesh.cli.common import run_async, say
from mesh.client.aio import connect
from mesh.client.tool import Tool
from mesh.config import MeshConfig
from mesh.errors import SetupError, Unavailable
from mesh.launch import Launched, launch
from mesh.testing.killer import Kill, Killer
from mesh.testing.load import OpenLoop, Verdict

RATE = 1000
_WATCH_S = 1.5
_READY_S = 30.0

Progress = Callable[[str], None]


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument(
        "--handlers", type=int, default=4, metavar="N", help="handler processes (default: 4)"
    )
    parser.add_argument(
        "--kills",
        type=int,
        default=3,
        metavar="N",
        help="handlers killed, one after the other (default: 3)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; exit code 1 if anything was lost, doubled or failed."""
    if arguments.kills < 1:
        raise SetupError(f"--kills must be 1 or more, not {arguments.kills}")
    if arguments.handlers < 2:
        raise SetupError("--handlers must be 2 or more: somebody has to survive the kill")
    begun = time.monotonic()

    def progress(line: str) -> None:
        say(f"{time.monotonic() - begun:6.1f} s  {line}")

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    name = f"demo-{time.time():.0f}"
    log = Path(tempfile.gettempdir()) / f"raymesh-{name}.log"
    try:
        code = _run(arguments, name, log, progress)
    except KeyboardInterrupt:
        log.unlink(missing_ok=True)
        raise
    if code == 0:
        log.unlink()
    else:
        say(f"log: {log}")
    return code


def _run(arguments: argparse.Namespace, name: str, log: Path, progress: Progress) -> int:
    with tempfile.TemporaryDirectory(prefix="raymesh-demo-") as folder:
        config = MeshConfig(
            name=name,
            handlers=arguments.handlers,
            port=0,
            data_dir=folder,
            dashboard=False,
            log_file=str(log),  # not in that folder: an error names it, and then it has to be there
        )
        mesh = launch(config, progress=progress)
        try:
            verdict = run_async(_show(mesh, arguments.kills, progress))
        finally:
            say("")
            progress("taking the mesh down ...")
            mesh.stop()
    progress("nothing is left behind")
    return _conclude(verdict)


async def _show(mesh: Launched, kills: int, progress: Any) -> Verdict:
    tool = await Tool.open(mesh.endpoint)
    killer = await Killer.start()
    try:
        async with await connect(mesh.endpoint) as client:
            load = OpenLoop(client, rate=RATE, keys=500)
            await load.start()
            progress(f"load: {RATE} calls/s on 500 keys, due at fixed times (open loop)")
            await asyncio.sleep(1.0)
            calm = [s.latency_s * 1000 for s in load.samples]
            progress(f"calm: p50 {median(calm):.1f} ms, slowest {max(calm):.1f} ms")
            for number in range(kills):
                status = await _ready(tool)
                victim = status["handlers"][number % len(status["handlers"])]
                say("")
                progress(f"SIGKILL {victim['id']} (pid {victim['pid']})")
                kill = await killer.kill(victim["pid"])
                await asyncio.sleep(_WATCH_S)
                await _tell(tool, kill, load)
            await _ready(tool)
            await asyncio.sleep(0.2)
            await load.stop()
            return await load.verdict()
    finally:
        tool.close()
        await killer.stop()


async def _tell(tool: Tool, kill: Kill, load: OpenLoop) -> None:
    """The timeline of one kill, as far as it has come."""
    status = await _ready(tool)
    events = [e for e in await tool.ask("events") if e["at"] >= kill.sent_wall - 0.001]
    failover = next((e for e in events if e["kind"] == "failover"), None)
    if failover is None:
        raise Unavailable("the kill was not noticed; see `mesh events`")
    lines = [(kill.floor_s * 1000, "the kernel reports the exit (pidfd)")]
    at = (failover["at"] - kill.sent_wall) * 1000
    words = {
        "detect": "the supervisor has the proof",
        "decide": f"decided: {failover['partitions']} partitions go to the survivors",
        "fence": "fenced: old grant revoked, new ones on every in-sync replica",
        "publish": "told: new owners first, then clients",
        "ready": "the new owners have taken over",
    }
    for phase, text in words.items():
        at += failover["phases_ms"][phase]
        lines.append((at, text))
    slow = max(
        s.latency_s * 1000
        for s in load.samples
        if s.ended >= kill.sent and s.due < kill.sent + _WATCH_S
    )
    lines.append((slow, "the slowest call had its answer after this long"))
    for event in events:
        since = (event["at"] - kill.sent_wall) * 1000
        if event["kind"] == "handler_started":
            lines.append((since, f"replacement {event['handler']} is up (pid {event['pid']})"))
        elif event["kind"] == "handover":
            lines.append(
                (since + event["took_ms"], f"{event['partitions']} partitions handed to it")
            )
    for since, text in sorted(lines, key=lambda line: line[0]):
        say(f"{since:14.1f} ms  {text}")
    owners = "  ".join(f"{h['id']} {len(h['partitions'])}" for h in status["handlers"])
    say(f"{'':17}partitions now: {owners}")


async def _ready(tool: Tool) -> dict[str, Any]:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_READY_S):
            while True:
                status = await tool.ask("status")
                if status["ready"]:
                    return dict(status)
                await asyncio.sleep(0.05)
    raise Unavailable(f"the mesh was not whole again within {_READY_S:g} s; see `mesh events`")


def _conclude(verdict: Verdict) -> int:
    say("")
    say(
        f"{verdict.calls} calls: {verdict.acknowledged} acknowledged, {verdict.failed} failed, "
        f"{verdict.lost} lost, {verdict.doubled} doubled"
    )
    for error, count in verdict.errors.items():
        say(f"    {count} x {error}")
    if verdict.kept and not verdict.failed:
        say("verdict: every call was answered, nothing was lost, nothing took effect twice")
        return 0
    say("verdict: a promise was broken" if not verdict.kept else "verdict: some calls failed")
    return 1
