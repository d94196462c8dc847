"""Handing over a pidfd: how a handler lets its warden know of its exit for certain.

The handler opens a descriptor of *itself* and passes it over a local socket. A pid that is sent as a number
can be reused or belong to another namespace, and "no such process" then proves nothing (counterexamples
F16); the descriptor refers to this very process for good and becomes readable when it has exited. With it
goes the process's wire (mesh.net.tripwire), by which the warden knows some 10 ms earlier, and the number of
the thread that its loop runs on, which is what a suspect is judged by (mesh.net.threadstate).

The connection stays open and carries nothing more: its end tells the handler that the warden is gone, and
that the next one has to be given everything anew.

The socket lies in Linux's abstract namespace: no file is left behind, whoever dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable
from typing import NamedTuple

import msgpack

from mesh.core.sightings import Sight
from mesh.errors import SetupError
from mesh.net import tripwire
from mesh.net.threadstate import ThreadView

_CREDENTIALS = struct.Struct("3i")
_ACK = b"watching"
_LOOK_AGAIN_S = 0.0005
_MOST_LOOKS = 200


class _Watched(NamedTuple):
    """A process's descriptors, its pid in this namespace, and its loop's thread."""

    pidfd: int
    pid: int
    wire: int | None
    thread: ThreadView
    sock: socket.socket


class Bond:
    """A process's connection to the warden that watches it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def __repr__(self) -> str:
        return f"Bond({'closed' if self._sock.fileno() < 0 else 'open'})"

    async def broken(self) -> None:
        """Returns when the warden is gone."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while await loop.sock_recv(self._sock, 64):
                pass
        self._sock.close()

    def close(self) -> None:
        """Let go of it; this process stays watched. Nobody may be waiting for its end."""
        self._sock.close()


async def hand_over(address: str, nonce: bytes, id_: str, *, timeout_s: float = 5.0) -> Bond:
    """Give the warden at `address` a pidfd of this process; returns once it watches.

    Called from the loop that is to be judged when this process is suspected of hanging.

    Raises:
        SetupError: there is no warden, or it does not answer.
    """
    wire = tripwire.wire()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.setblocking(False)
    pidfd = os.pidfd_open(os.getpid())
    bond = Bond(sock)
    try:
        async with asyncio.timeout(timeout_s):
            sock.connect(b"\0" + address.encode())
            fds = [pidfd] if wire is None else [pidfd, wire]
            name = msgpack.packb([nonce, id_, threading.get_native_id()])
            socket.send_fds(sock, [name], fds)
            answer = await asyncio.get_running_loop().sock_recv(sock, 64)
    except TimeoutError:
        bond.close()
        raise SetupError(
            f"the warden at {address!r} did not answer within {timeout_s:g} s"
        ) from None
    except OSError as error:
        bond.close()
        raise SetupError(f"no warden at {address!r}: {error.strerror or error}") from error
    except BaseException:
        bond.close()
        raise
    finally:
        os.close(pidfd)
    if answer != _ACK:
        bond.close()
        raise SetupError(f"the warden at {address!r} did not take the descriptor")
    return bond


class PidfdReceiver:
    """The warden's end: takes descriptors and reports exits.

    Args:
        on_watch: called with (nonce, handler id, pid) of each new process.
        on_exit: called with the nonce of a process as soon as it is certain that it executes nothing more.
    """

    def __init__(
        self, on_watch: Callable[[bytes, str, int], None], on_exit: Callable[[bytes], None]
    ) -> None:
        self._on_watch = on_watch
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._watched: dict[bytes, _Watched] = {}

    @property
    def watching(self) -> list[bytes]:
        """Nonces of the processes that are alive."""
        return list(self._watched)

    def look(self, nonce: bytes, at: float) -> Sight | None:
        """How that process's loop is, seen at that time; None where it is not watched, or not to be seen."""
        watched = self._watched.get(nonce)
        return watched.thread.look(at) if watched is not None else None

    def kill(self, nonce: bytes) -> None:
        """End that process, and no other that may have got its number."""
        watched = self._watched.get(nonce)
        if watched is not None:
            with contextlib.suppress(ProcessLookupError):  # dead already; the proof is on its way
                signal.pidfd_send_signal(watched.pidfd, signal.SIGKILL)

    def open(self, address: str) -> None:
        """Listen.

        Raises:
            SetupError: another warden has that address.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setblocking(False)
        try:
            sock.bind(b"\0" + address.encode())
        except OSError as error:
            sock.close()
            raise SetupError(f"another warden has the address {address!r}") from error
        sock.listen(64)
        self._socket = sock
        self._loop.add_reader(sock, self._accept)

    def close(self) -> None:
        """Stop listening, and let go of every descriptor."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        for nonce in list(self._watched):
            self._let_go(nonce)

    def _accept(self) -> None:
        assert self._socket is not None
        try:
            sock, _ = self._socket.accept()
        except BlockingIOError:
            return
        sock.setblocking(False)
        pid, uid, _gid = _CREDENTIALS.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        if uid != os.getuid():
            sock.close()
            return
        self._loop.add_reader(sock, self._take, sock, pid)

    def _take(self, sock: socket.socket, pid: int) -> None:
        self._loop.remove_reader(sock)
        try:
            data, fds, _flags, _address = socket.recv_fds(sock, 1024, 2)
        except OSError:
            sock.close()
            return
        named = _read_name(data)
        # One that is not of the process that sent it would prove another's death.
        if not fds or named is None or _pid_of(fds[0]) != pid:
            for fd in fds:
                os.close(fd)
            sock.close()
            return
        nonce, id_, tid = named
        if nonce in self._watched:
            self._let_go(nonce)  # it has lost its bond, and comes with another
        wire = fds[1] if len(fds) > 1 else None
        watched = _Watched(fds[0], pid, wire, ThreadView(pid, tid), sock)
        self._watched[nonce] = watched
        self._loop.add_reader(watched.pidfd, self._exited, nonce)
        if watched.wire is not None:
            self._loop.add_reader(watched.wire, self._tripped, nonce)
        self._on_watch(nonce, id_, pid)
        with contextlib.suppress(OSError):  # it does not wait any more, and is watched all the same
            sock.send(_ACK)

    def _tripped(self, nonce: bytes) -> None:
        """A hint: look whether it is dying, and again while it is on its way there."""
        watched = self._watched[nonce]
        assert watched.wire is not None
        self._loop.remove_reader(watched.wire)
        self._is_dying(nonce, _MOST_LOOKS)

    def _is_dying(self, nonce: bytes, looks: int) -> None:
        watched = self._watched.get(nonce)
        if watched is None:
            return
        # Asked last, the descriptor says whose threads those were: a pid may be another's by now.
        if tripwire.is_doomed(watched.pid) and _pid_of(watched.pidfd) == watched.pid:
            self._exited(nonce)
        elif looks:
            self._loop.call_later(_LOOK_AGAIN_S, self._is_dying, nonce, looks - 1)

    def _exited(self, nonce: bytes) -> None:
        self._let_go(nonce)
        self._on_exit(nonce)

    def _let_go(self, nonce: bytes) -> None:
        watched = self._watched.pop(nonce)
        for fd in (watched.pidfd, watched.wire):
            if fd is not None:
                self._loop.remove_reader(fd)
                os.close(fd)
        watched.sock.close()


def _read_name(data: bytes) -> tuple[bytes, str, int] | None:
    try:
        nonce, id_, tid = msgpack.unpackb(data)
    except (ValueError, TypeError, msgpack.UnpackException):
        return None
    return nonce, id_, tid


def _pid_of(fd: int) -> int:
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
        for line in info:
            name, _, value = line.partition(":")
            if name == "Pid":
                return int(value)
    return -1
