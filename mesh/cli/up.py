"""mesh up"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
from collections.abc import Sequence
from types import FrameType

from mesh.cli.common import add_json, add_settings, complain, layers_of, run_async, say
from mesh.cli.events import render as render_event
from mesh.cli.status import render
from mesh.client.tool import follow
from mesh.config import SETTINGS
from mesh.errors import SetupError
from mesh.launch import Launched, launch

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument(
        "--detach",
        action="store_true",
        help="return once the mesh is ready, and end it with `mesh down`; without it the mesh ends "
        "with this command, however that ends",
    )
    add_json(parser)
    add_settings(parser, [name for name in SETTINGS if name != "timeout"])  # of `mesh call`


def run(arguments: argparse.Namespace) -> int:
    """Start a mesh; stay with it, or leave it to itself."""
    layers = layers_of(arguments)
    config = layers.config()
    for note in layers.notes:
        complain(f"note: {note}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    quiet = arguments.json
    mesh = launch(
        config, tethered=not arguments.detach, progress=(lambda _: None) if quiet else complain
    )
    say(json.dumps(mesh.status) if quiet else render(mesh.status))
    if arguments.detach:
        return 0
    if not quiet:
        complain("Ctrl-C ends it and everything it started. What happens from here on:")
    run_async(_stay(mesh, config.token, quiet=quiet))
    for number in _ENDING:  # the loop left its own
        signal.signal(number, _interrupt)
    if not quiet:
        complain("taking the mesh down ...")
    mesh.stop()
    return 0


async def _stay(mesh: Launched, token: str, *, quiet: bool) -> None:
    """Until somebody ends this command.

    Raises:
        SetupError: the mesh ended before.
    """
    loop = asyncio.get_running_loop()
    told, ended = asyncio.Event(), asyncio.Event()
    for number in _ENDING:
        loop.add_signal_handler(number, told.set)
    pidfd = os.pidfd_open(mesh.process.pid)
    loop.add_reader(pidfd, ended.set)
    try:
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(event.wait()) for event in (told, ended)]
            telling = None if quiet else group.create_task(_tell(mesh.endpoints, token))
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in (*waiting, telling):
                if task is not None:
                    task.cancel()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
    if ended.is_set() and not told.is_set():
        code = mesh.process.wait()
        raise SetupError(f"the mesh ended by itself, with code {code}; see {mesh.log}")


async def _tell(endpoints: Sequence[str], token: str) -> None:
    """Say what happens, as it happens."""
    async for event in follow(endpoints, token=token, tell=complain):
        complain(render_event(event))


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
