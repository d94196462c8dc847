"""The process that owns a mesh: `python -m mesh.owner`, started by mesh.launch.

It reads its orders (one line of JSON) from standard input and answers in lines of JSON on standard
output: progress, then the status or an error. Ray's and everyone else's output goes to the log
file. If it is tethered, the end of standard input tells it that its parent is gone, however that
ended: it then takes everything down.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, TextIO

import uvloop

from mesh import guard, logs
from mesh.bringup import RunningMesh, up
from mesh.config import MeshConfig
from mesh.errors import MeshError

log = logging.getLogger("mesh.owner")


def main() -> int:
    """Own a mesh until told to end it."""
    # Unbuffered: the end of the input is watched for later, on the bare descriptor.
    with os.fdopen(os.dup(0), "rb", buffering=0) as stdin:
        orders = json.loads(stdin.readline())
    words = os.fdopen(os.dup(1), "w", buffering=1)
    config = MeshConfig(**orders["config"])
    # What Ray and others print comes there too, between the lines.
    log_fd = os.open(config.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    logs.set_up("owner", level=config.log_level, path=config.log_path, secrets=config.secrets)
    _ = _start_guard(config.data_folder if orders["ephemeral"] else None)
    carried = base64.b64decode(orders["carried"])
    return uvloop.run(_own(config, words, tethered=orders["tethered"], carried=carried))


def _start_guard(ephemeral: Path | None) -> subprocess.Popen[bytes] | None:
    """Have someone end this session when its leader, this process, is killed, and remove that folder."""
    if os.getsid(0) != os.getpid():
        return None
    # In a session of its own, or it would end with the one that it guards.
    return subprocess.Popen(  # noqa: S603 - our own file, a number
        [
            sys.executable,
            "-I",
            "-S",
            guard.__file__,
            str(os.getpid()),
            *([str(ephemeral)] if ephemeral else []),
        ],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


async def _own(config: MeshConfig, words: TextIO, *, tethered: bool, carried: bytes = b"") -> int:
    told = asyncio.Event()
    _on_signals(told)
    if tethered:
        _on_end_of_input(told)
    loop = asyncio.get_running_loop()
    starting = loop.create_task(_start(config, words, tethered=tethered, carried=carried))
    stopping = loop.create_task(told.wait())
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    if told.is_set():
        starting.cancel()
    try:
        mesh = await starting
    except MeshError as error:
        _say(words, {"error": str(error)})
        return 1
    except asyncio.CancelledError:
        return 0
    try:
        # Ray has put handlers of its own in the place of ours.
        _on_signals(told)
        _say(words, {"status": await mesh.status()})
        _hang_up(words)
        await stopping
    except MeshError as error:
        log.exception("the mesh is up and cannot be asked")
        _say(words, {"error": str(error)})
        return 1
    finally:
        log.info("taking the mesh down")
        await mesh.stop()
        log.info("the mesh is down; its data is kept")
    return 0


async def _start(
    config: MeshConfig, words: TextIO, *, tethered: bool, carried: bytes
) -> RunningMesh:
    def progress(line: str) -> None:
        log.info("%s", line)
        _say(words, {"progress": line})

    log.info("bringing up mesh %r with %d handlers", config.name, config.handlers)
    try:
        return await up(config, carried=carried, tethered=tethered, progress=progress)
    except MeshError as error:
        log.error("the mesh could not be brought up: %s", error)
        raise


def _say(words: TextIO, word: dict[str, Any]) -> None:
    try:
        words.write(json.dumps(word) + "\n")
    except (BrokenPipeError, ValueError):  # its reader is gone; or we have closed it
        log.info("whoever started this mesh listens no more")


def _hang_up(words: TextIO) -> None:
    # Closing writes what could not be written before, and fails of it once more. A detached mesh goes
    # on without whoever started it; a tethered one hears of the end of its input.
    with contextlib.suppress(BrokenPipeError):
        words.close()


def _on_signals(told: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, told.set)


def _on_end_of_input(told: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def readable() -> None:
        if not os.read(0, 1024):
            loop.remove_reader(0)
            told.set()

    loop.add_reader(0, readable)


if __name__ == "__main__":
    sys.exit(main())
