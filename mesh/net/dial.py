"""Opening connections: connect, say hello, wait for the welcome, all within one time-out.

A welcome is the only sign of life that counts: a process that was just killed, or is stopped, still
accepts connections (8 of 10 right after its death, measured).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mesh.core.messages import Hello, Refused, Welcome, unpack_message
from mesh.core.wire import Kind, Limits
from mesh.errors import AuthenticationError, MeshError, ProtocolError, Unavailable
from mesh.net.connection import Connection, Receiver


class _Greeting:
    """Receives until the welcome is there, then hands over to the real receiver."""

    def __init__(self, receiver: Receiver, address: str) -> None:
        self.receiver = receiver
        self.address = address
        self.welcome: asyncio.Future[Welcome] = asyncio.get_running_loop().create_future()

    def on_frames(self, conn: Connection, frames: list[tuple[int, bytes]]) -> None:
        if not self.welcome.done():
            kind, body = frames.pop(0)
            message = unpack_message(body) if kind == Kind.CONTROL else None
            if isinstance(message, Refused):
                cls = AuthenticationError if message.auth else Unavailable
                self.fail(cls(f"{self.address} refused the connection: {message.reason}"))
                return
            if not isinstance(message, Welcome):
                raise ProtocolError(f"{self.address} does not answer as a mesh does")
            # At once: what follows in the same read is handed on before the dialler's turn comes.
            conn.tag, conn.role = message.nonce, message.role
            self.welcome.set_result(message)
        if frames:
            self.receiver.on_frames(conn, frames)

    def on_closed(self, conn: Connection, reason: str) -> None:
        if self.welcome.done() and not self.welcome.cancelled() and not self.welcome.exception():
            self.receiver.on_closed(conn, reason)
        else:
            self.fail(Unavailable(f"no welcome from {self.address}: {reason}"))

    def fail(self, error: MeshError) -> None:
        if not self.welcome.done():
            self.welcome.set_exception(error)


async def dial(
    address: str,
    receiver: Receiver,
    hello: Hello,
    *,
    timeout_s: float = 2.0,
    limits: Limits | None = None,
    opened: Callable[[Connection], None] | None = None,
) -> tuple[Connection, Welcome]:
    """Connect to "host:port" and exchange greetings.

    Frames that follow the welcome in the same read reach `receiver` before this returns; `opened` is
    called before anything is sent.

    Raises:
        Unavailable: nothing listens there, it did not answer in time, or it refused.
        AuthenticationError: the token is wrong.
    """
    loop = asyncio.get_running_loop()
    greeting = _Greeting(receiver, address)
    host, _, port = address.rpartition(":")
    conn: Connection | None = None
    try:
        async with asyncio.timeout(timeout_s):
            _, conn = await loop.create_connection(
                lambda: Connection(greeting, limits or Limits(), opened), host, int(port)
            )
            conn.send(hello.frame(Kind.HELLO))
            welcome = await greeting.welcome
    except TimeoutError:
        if conn is not None:
            conn.close()
        raise Unavailable(f"{address} did not answer within {timeout_s:g} s") from None
    except OSError as error:
        raise Unavailable(f"cannot connect to {address}: {error.strerror or error}") from None
    except BaseException:
        if conn is not None:
            conn.close()
        raise
    return conn, welcome
