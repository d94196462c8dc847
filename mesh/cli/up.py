"""mesh up"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
from types import FrameType

from mesh.cli.common import add_json, add_settings, complain, layers_of, run_async, say
from mesh.cli.events import render as render_event
from mesh.cli.status import render
from mesh.client.tool import Tool
from mesh.config import SETTINGS
from mesh.errors import MeshError, SetupError
from mesh.launch import Launched, launch

_AGAIN_S = 1.0
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
            telling = None if quiet else group.create_task(_tell(mesh.endpoint, token))
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


async def _tell(endpoint: str, token: str) -> None:
    """Say what happens, as it happens. The mesh serves without a supervisor: so this goes on, too."""
    lost = False
    while True:
        with contextlib.suppress(MeshError):
            tool = await Tool.open(endpoint, token=token)
            if lost:
                complain(f"the supervisor at {endpoint} answers again")
            lost = False
            try:
                async for event in tool.follow():
                    complain(render_event(event))
            finally:
                tool.close()
        if not lost:
            complain(f"the supervisor at {endpoint} does not answer; asking again and again")
        lost = True
        await asyncio.sleep(_AGAIN_S)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
