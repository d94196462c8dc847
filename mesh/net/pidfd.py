"""Handing over a pidfd: how a handler lets its warden know of its exit for certain.

The handler opens a descriptor of *itself* and passes it over a local socket. A pid that is sent as a number
can be reused or belong to another namespace, and "no such process" then proves nothing (counterexamples
F16); the descriptor refers to this very process for good and becomes readable when it has exited. With it
goes the process's wire (mesh.net.tripwire), by which the warden knows some 10 ms earlier.

The socket lies in Linux's abstract namespace: no file is left behind, whoever dies.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

import msgpack

from mesh.errors import SetupError
from mesh.net import tripwire

_CREDENTIALS = struct.Struct("3i")
_ACK = b"watching"
_LOOK_AGAIN_S = 0.0005
_MOST_LOOKS = 200


class _Watched(NamedTuple):
    """A process's descriptors, and its pid in this namespace."""

    pidfd: int
    pid: int
    wire: int | None


async def hand_over(address: str, nonce: bytes, id_: str, *, timeout_s: float = 5.0) -> None:
    """Give the warden at `address` a pidfd of this process; returns once it watches.

    Raises:
        SetupError: there is no warden, or it does not answer.
    """
    loop = asyncio.get_running_loop()
    wire = tripwire.wire()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pidfd = os.pidfd_open(os.getpid())
    sock.setblocking(False)
    try:
        async with asyncio.timeout(timeout_s):
            sock.connect(b"\0" + address.encode())
            fds = [pidfd] if wire is None else [pidfd, wire]
            socket.send_fds(sock, [msgpack.packb([nonce, id_])], fds)
            if await loop.sock_recv(sock, 64) != _ACK:
                raise SetupError(f"the warden at {address!r} did not take the descriptor")
    except TimeoutError:
        raise SetupError(
            f"the warden at {address!r} did not answer within {timeout_s:g} s"
        ) from None
    except OSError as error:
        raise SetupError(f"no warden at {address!r}: {error.strerror or error}") from error
    finally:
        sock.close()
        os.close(pidfd)


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
        with sock:
            try:
                data, fds, _flags, _address = socket.recv_fds(sock, 1024, 2)
            except OSError:
                return
            named = _read_name(data)
            # One that is not of the process that sent it would prove another's death.
            if not fds or named is None or _pid_of(fds[0]) != pid:
                for fd in fds:
                    os.close(fd)
                return
            nonce, id_ = named
            watched = _Watched(fds[0], pid, fds[1] if len(fds) > 1 else None)
            self._watched[nonce] = watched
            self._loop.add_reader(watched.pidfd, self._exited, nonce)
            if watched.wire is not None:
                self._loop.add_reader(watched.wire, self._tripped, nonce)
            self._on_watch(nonce, id_, pid)
            sock.send(_ACK)

    def _tripped(self, nonce: bytes) -> None:
        """A hint: look whether it is dying, and again while it is on its way there."""
        watched = self._watched[nonce]
        assert watched.wire is not None
        self._loop.remove_reader(watched.wire)
        self._look(nonce, _MOST_LOOKS)

    def _look(self, nonce: bytes, looks: int) -> None:
        watched = self._watched.get(nonce)
        if watched is None:
            return
        # Asked last, the descriptor says whose threads those were: a pid may be another's by now.
        if tripwire.is_doomed(watched.pid) and _pid_of(watched.pidfd) == watched.pid:
            self._exited(nonce)
        elif looks:
            self._loop.call_later(_LOOK_AGAIN_S, self._look, nonce, looks - 1)

    def _exited(self, nonce: bytes) -> None:
        self._let_go(nonce)
        self._on_exit(nonce)

    def _let_go(self, nonce: bytes) -> None:
        watched = self._watched.pop(nonce)
        for fd in (watched.pidfd, watched.wire):
            if fd is not None:
                self._loop.remove_reader(fd)
                os.close(fd)


def _read_name(data: bytes) -> tuple[bytes, str] | None:
    try:
        nonce, id_ = msgpack.unpackb(data)
    except (ValueError, TypeError, msgpack.UnpackException):
        return None
    return nonce, id_


def _pid_of(fd: int) -> int:
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
        for line in info:
            name, _, value = line.partition(":")
            if name == "Pid":
                return int(value)
    return -1
