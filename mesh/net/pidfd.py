"""Handing over a pidfd: how a handler lets its warden know of its exit for certain.

The handler opens a descriptor of *itself* and passes it over a local socket. A pid that is sent as a number
can be reused or belong to another namespace, and "no such process" then proves nothing (counterexamples
F16); the descriptor refers to this very process for good and becomes readable when it has exited.

The socket lies in Linux's abstract namespace: no file is left behind, whoever dies.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable

import msgpack

from mesh.errors import SetupError

_CREDENTIALS = struct.Struct("3i")
_ACK = b"watching"


async def hand_over(address: str, nonce: bytes, id_: str, *, timeout_s: float = 5.0) -> None:
    """Give the warden at `address` a pidfd of this process; returns once it watches.

    Raises:
        SetupError: there is no warden, or it does not answer.
    """
    loop = asyncio.get_running_loop()
    pidfd = os.pidfd_open(os.getpid())
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.setblocking(False)
    try:
        async with asyncio.timeout(timeout_s):
            sock.connect(b"\0" + address.encode())
            socket.send_fds(sock, [msgpack.packb([nonce, id_])], [pidfd])
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
        on_exit: called with the nonce of a process that has exited, at once.
    """

    def __init__(
        self, on_watch: Callable[[bytes, str, int], None], on_exit: Callable[[bytes], None]
    ) -> None:
        self._on_watch = on_watch
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._watched: dict[bytes, int] = {}

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
        for fd in self._watched.values():
            self._loop.remove_reader(fd)
            os.close(fd)
        self._watched.clear()

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
                data, fds, _flags, _address = socket.recv_fds(sock, 1024, 1)
            except OSError:
                return
            if not fds:
                return
            if _pid_of(fds[0]) != pid:
                # Not a descriptor of the process that sent it: it would prove another's death.
                os.close(fds[0])
                return
            nonce, id_ = msgpack.unpackb(data)
            self._watched[nonce] = fds[0]
            self._loop.add_reader(fds[0], self._exited, nonce)
            self._on_watch(nonce, id_, pid)
            sock.send(_ACK)

    def _exited(self, nonce: bytes) -> None:
        fd = self._watched.pop(nonce)
        self._loop.remove_reader(fd)
        os.close(fd)
        self._on_exit(nonce)


def _pid_of(fd: int) -> int:
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
        for line in info:
            name, _, value = line.partition(":")
            if name == "Pid":
                return int(value)
    return -1
