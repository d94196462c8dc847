"""Real processes that stop, burn, sleep and starve, and a place from which wardens are asked of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator

from mesh.core.messages import Hello, Message, Welcome, unpack_message
from mesh.ids import new_nonce
from mesh.net.connection import Connection
from mesh.net.listener import Listener

PROGRAM = """
import asyncio, os, sys, threading, time
try:
    os.setpriority(os.PRIO_PROCESS, 0, -15)  # its threads inherit it: others may keep the machine busy
except PermissionError:
    pass
from mesh.core.answers import Counts
from mesh.core.messages import Hello
from mesh.heart import ThreadHeart
from mesh.net import clock
from mesh.net.pidfd import hand_over
from mesh.presence import Presence
from mesh.vitals import Running, Vitals

warden, nonce, supervisors = sys.argv[1], bytes.fromhex(sys.argv[2]), tuple(sys.argv[3].split())
lock = threading.Lock(); lock.acquire()
what = None

def spin():
    while True:
        pass

DOES = {"spin": spin, "block": lock.acquire, "sleep": lambda: time.sleep(600), "nothing": lambda: None,
        "end": lambda: None}

async def main():
    global what
    tasks = []
    vitals = Vitals(nonce, clock.now, lambda: Counts(3, 5, 2), lambda: clock.now() + 0.7,
                    lambda: what, 30.0)
    presence = Presence("h-0", Hello("m", "handler", "secret", nonce), supervisors, warden, vitals, hand_over,
                        ThreadHeart, 0.1, lambda work, name: tasks.append(asyncio.create_task(work)))
    await presence.begin()
    print("here", flush=True)
    loop = asyncio.get_running_loop()
    does = (await loop.run_in_executor(None, sys.stdin.readline)).strip()
    if does == "end":
        return
    what = Running(object(), "Account." + does, 60.0) if does != "nothing" else None
    DOES[does]()
    await asyncio.Event().wait()

# As in a Ray worker: the loop is not the main thread's.
thread = threading.Thread(target=lambda: asyncio.run(main()))
thread.start()
thread.join()
"""


class Child:
    """A process that has handed itself to a warden, beats, and does what it is told."""

    def __init__(self, process: asyncio.subprocess.Process, nonce: bytes) -> None:
        self.process = process
        self.nonce = nonce
        self.pid = process.pid

    async def does(self, what: str) -> None:
        """Have its loop "spin", "block" or "sleep" for ever, do "nothing", or "end" in good order."""
        assert self.process.stdin is not None
        self.process.stdin.write(what.encode() + b"\n")
        await self.process.stdin.drain()


@contextlib.asynccontextmanager
async def running(
    program: str, *arguments: str, says: bytes
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of that Python program, once it has said so; it is killed at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == says
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@contextlib.asynccontextmanager
async def child(warden: str, *supervisors: str) -> AsyncIterator[Child]:
    """Such a process; it is killed at the end."""
    nonce = new_nonce()
    arguments = (warden, nonce.hex(), " ".join(supervisors))
    async with running(PROGRAM, *arguments, says=b"here\n") as process:
        yield Child(process, nonce)


@contextlib.asynccontextmanager
async def hogs(cpu: int, number: int = 1) -> AsyncIterator[None]:
    """Processes that take all of a CPU."""
    program = f"import os; os.sched_setaffinity(0, {{{cpu}}})\nwhile True: pass"
    running = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", program) for _ in range(number)
    ]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            await process.wait()


class Ear:
    """A supervisor's place: hears wardens and hearts, and tells wardens things.

    Args:
        roles: who may come.
    """

    def __init__(self, *roles: str) -> None:
        self.roles = roles or ("warden", "heart")
        self.heard: list[Message] = []
        self.came = asyncio.Event()
        self.wardens: list[Connection] = []
        self.listener = Listener(self, "m", "secret")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.listener.port}"

    def on_hello(self, conn: Connection, hello: Hello) -> Message:
        assert hello.role in self.roles
        return Welcome("m", "supervisor", "s-0", b"s", 4)

    def on_ready(self, conn: Connection) -> None:
        if conn.role == "warden":
            self.wardens.append(conn)

    def on_frames(self, conn: Connection, frames: list[tuple[int, bytes]]) -> None:
        self.heard += [unpack_message(body) for _, body in frames]
        self.came.set()

    def on_closed(self, conn: Connection, reason: str) -> None:
        if conn in self.wardens:
            self.wardens.remove(conn)

    def tell(self, message: Message) -> None:
        for conn in self.wardens:
            conn.send(message.frame())

    async def hear(self, kind: type[Message], within_s: float = 5.0, **fields: object) -> Message:
        """The first message of that kind, and with these fields, which may have come already."""
        async with asyncio.timeout(within_s):
            while True:
                for message in self.heard:
                    if isinstance(message, kind) and all(
                        getattr(message, name) == value for name, value in fields.items()
                    ):
                        self.heard.remove(message)
                        return message
                self.came.clear()
                await self.came.wait()


def cpus() -> list[int]:
    return sorted(os.sched_getaffinity(0))
