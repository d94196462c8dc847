"""A handler's beats: ten a second, from a thread of their own, over sockets of their own.

A loop that is busy cannot beat, and a handler whose loop is busy is not dead. So beats come from a thread
that does nothing else; what they say of the loop is how often it has turned. It holds one connection to each
supervisor, which nobody waits for: a beat that cannot leave at once is dropped, since the next one says
all that it said. The thread is a daemon, so it keeps no process alive, and it ends with the process and with
nothing else: it is the last to fall silent.

Where there are no threads, in a simulation, the same beats come from a task (`TaskHeart`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from mesh.core.messages import Hello
from mesh.core.wire import Kind
from mesh.errors import MeshError
from mesh.net.clock import now
from mesh.net.connection import Connection
from mesh.net.dial import dial
from mesh.net.threadstate import OwnThread
from mesh.vitals import Vitals

log = logging.getLogger("mesh.heart")

_RETRY_S = 0.25
_STUCK_S = 2.0
"""After which a connection on which nothing leaves is given up."""
_UNDER_WAY = frozenset({errno.EINPROGRESS, errno.EALREADY, errno.EAGAIN})


class Heart(Protocol):
    """What beats for a handler."""

    def start(self) -> None:
        """Beat from now on; called on the loop that is to be judged by it."""
        ...

    def stop(self) -> None:
        """Beat no more."""
        ...


MakeHeart = Callable[[Vitals, tuple[str, ...], Hello, float], Heart]
"""Makes a heart: of the vitals, "host:port" of each supervisor, the hello, seconds between two beats."""


class ThreadHeart:
    """Beats from a thread of its own.

    Args:
        vitals: what the beats tell.
        supervisors: "host:port" of each.
        hello: first on each connection.
        beat_s: between two beats.
    """

    def __init__(
        self, vitals: Vitals, supervisors: tuple[str, ...], hello: Hello, beat_s: float
    ) -> None:
        self._vitals = vitals
        self._wires = [_Wire(address, hello.frame(Kind.HELLO)) for address in supervisors]
        self._beat_s = beat_s
        self._loop_thread = 0
        self._ending, self._end = -1, -1

    def __repr__(self) -> str:
        return f"ThreadHeart({self._vitals!r}, {self._wires})"

    def start(self) -> None:
        """See Heart."""
        self._vitals.count_turns(self._beat_s / 4)
        self._loop_thread = threading.get_native_id()
        self._ending, self._end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        threading.Thread(target=self._run, name="heart", daemon=True).start()

    def stop(self) -> None:
        """See Heart."""
        if self._end >= 0:
            os.close(self._end)
            self._end = -1

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # so that `top -H` names it
            Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text("heart")
        thread = OwnThread(self._loop_thread)
        due = now()
        try:
            while self._wait_until(due):
                seen = thread.look(self._vitals.now)
                sight, memory_mib = seen if seen is not None else (None, 0.0)
                frame = self._vitals.beat(sight, memory_mib).frame()
                at = now()
                for wire in self._wires:
                    wire.beat(frame, at)
                # What was slept through is not made up for.
                due = max(due + self._beat_s, at)
        except Exception:
            # Its loop still answers probes: a handler without beats is looked at more often, and kept.
            log.exception("the heart stopped; this handler is watched by probes alone")
        finally:
            for wire in self._wires:
                wire.close()
            thread.close()
            os.close(self._ending)

    def _wait_until(self, due: float) -> bool:
        """Tend the connections until then; False once it is to stop."""
        while True:
            left_s = max(0.0, due - now())
            poll = select.poll()
            poll.register(self._ending, select.POLLIN)
            by_number: dict[int, _Wire] = {}
            for wire in self._wires:
                if events := wire.awaits():
                    by_number[wire.number] = wire
                    poll.register(wire.number, events)
            for number, _ in poll.poll(left_s * 1000):
                if number == self._ending:
                    return False
                by_number[number].tend()
            if now() >= due:
                return True


class _Wire:
    """The heart's connection to one supervisor."""

    def __init__(self, address: str, hello: bytes) -> None:
        host, _, port = address.rpartition(":")
        self._address = (host.strip("[]"), int(port))
        self._hello = hello
        self._sock: socket.socket | None = None
        self._is_open = False
        self._out = b""
        self._retry_at = 0.0
        self._moved_at = 0.0

    def __repr__(self) -> str:
        state = "open" if self._is_open else "closed" if self._sock is None else "connecting"
        return f"{self._address[0]}:{self._address[1]} {state}"

    @property
    def number(self) -> int:
        """Of its descriptor."""
        return self._sock.fileno() if self._sock is not None else -1

    def awaits(self) -> int:
        """What to wait for on its socket; 0 without one."""
        if self._sock is None:
            return 0
        return select.POLLIN if self._is_open and not self._out else select.POLLIN | select.POLLOUT

    def beat(self, frame: bytes, at: float) -> None:
        """Send a beat, if it can leave at once."""
        if self._sock is None:
            if at >= self._retry_at:
                self._connect(at)
            return
        if self._out or not self._is_open:
            if at - self._moved_at > _STUCK_S:
                self.close()
            return
        self._moved_at = at
        self._out = frame
        self._send()

    def tend(self) -> None:
        """Its socket has something to tell."""
        if self._sock is None:
            return
        if not self._is_open:
            if self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.close()
                return
            try:
                self._sock.getpeername()
            except OSError:  # still under way
                return
            self._is_open = True
            self._out = self._hello
        try:
            # A welcome, and nothing that matters after it; the end does.
            if self._sock.recv(65_536) == b"":
                self.close()
                return
        except BlockingIOError:  # nothing was said
            pass
        except OSError:
            self.close()
            return
        self._send()

    def close(self) -> None:
        """Let go of it; a later beat connects anew."""
        if self._sock is not None:
            self._sock.close()
        self._sock, self._is_open, self._out = None, False, b""

    def _connect(self, at: float) -> None:
        self._retry_at, self._moved_at = at + _RETRY_S, at
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        self._sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            code = self._sock.connect_ex(self._address)
        except OSError as error:  # a name that cannot be resolved
            code = error.errno or errno.EINVAL
        if code and code not in _UNDER_WAY:
            self.close()

    def _send(self) -> None:
        if not self._out or self._sock is None:
            return
        try:
            self._out = self._out[self._sock.send(self._out) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close()


class TaskHeart:
    """Beats from a task on the loop itself: for a simulation, where there are neither threads nor /proc.

    Args: see ThreadHeart.
    """

    def __init__(
        self, vitals: Vitals, supervisors: tuple[str, ...], hello: Hello, beat_s: float
    ) -> None:
        self._vitals = vitals
        self._supervisors = supervisors
        self._hello = hello
        self._beat_s = beat_s
        self._links: dict[Connection, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"TaskHeart({self._vitals!r}, {len(self._links)} links)"

    def start(self) -> None:
        """See Heart."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._keep_link(a)) for a in self._supervisors]
        self._tasks.append(loop.create_task(self._run()))

    def stop(self) -> None:
        """See Heart."""
        for task in self._tasks:
            task.cancel()
        for conn in list(self._links):
            conn.close()

    def on_frames(self, conn: Connection, frames: list[tuple[int, bytes]]) -> None:
        """See Receiver."""

    def on_closed(self, conn: Connection, reason: str) -> None:
        """See Receiver."""
        if (over := self._links.pop(conn, None)) is not None:
            over.set()

    async def _run(self) -> None:
        while True:
            self._vitals.turned(0.0)  # or it would not be here
            frame = self._vitals.beat(None, 0.0).frame()
            for conn in self._links:
                conn.send(frame)
            await asyncio.sleep(self._beat_s)

    async def _keep_link(self, address: str) -> None:
        while True:
            with contextlib.suppress(MeshError):
                conn, _ = await dial(address, self, self._hello)
                if not conn.is_closed:
                    over = self._links[conn] = asyncio.Event()
                    await over.wait()
            await asyncio.sleep(_RETRY_S)
