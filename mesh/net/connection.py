"""One connection: bytes to frames and back. Both ends use it.

What is sent within one turn of the loop leaves in one write, so a hundred replies cost one system call.
A peer that does not read is cut off once too much waits for it, rather than kept at the price of
everyone's memory.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol, cast

from mesh.core.messages import Refused
from mesh.core.wire import ForeignProtocol, FrameReader, Limits
from mesh.errors import ProtocolError
from mesh.net.strangers import answer_to


class Receiver(Protocol):
    """Who gets what a connection brings."""

    def on_frames(self, conn: Connection, frames: list[tuple[int, bytes]]) -> None:
        """Frames that arrived together. May raise ProtocolError, which ends the connection."""
        ...

    def on_closed(self, conn: Connection, reason: str) -> None:
        """The connection is over. Called once."""
        ...


class Connection(asyncio.Protocol):
    """A stream of frames.

    Args:
        receiver: gets frames and the end.
        limits: of the wire.
        opened: called when the transport is there.
        frame_bytes: largest frame until `trust`; None for that of the limits.
    """

    __slots__ = (
        "_closed",
        "_limits",
        "_loop",
        "_opened",
        "_out",
        "_reader",
        "_reason",
        "_receiver",
        "_transport",
        "_watched",
        "peer",
        "role",
        "tag",
    )

    def __init__(
        self,
        receiver: Receiver,
        limits: Limits,
        opened: Callable[[Connection], None] | None = None,
        frame_bytes: int | None = None,
    ) -> None:
        self._receiver = receiver
        self._limits = limits
        self._opened = opened
        self._reader = FrameReader(limits)
        if frame_bytes is not None:
            self._reader.limit(frame_bytes)
        self._watched: bytearray | None = None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._closed = False
        self._reason = "closed by the peer"
        self.peer = "?"
        self.role = ""
        """What the peer said it is; empty until its hello."""
        self.tag = b""
        """The peer's nonce, or another name that the receiver gave the connection."""

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"Connection({self.peer}, {self.role or 'no hello yet'}, {state})"

    @property
    def machine(self) -> str:
        """Where the peer is, whatever its port."""
        return self.peer.rpartition(":")[0]

    @property
    def is_closed(self) -> bool:
        """Nothing more will arrive, and what is sent goes nowhere."""
        return self._closed

    @property
    def descriptor(self) -> int:
        """Of the socket; -1 once it is closing, since its number may soon be another file's."""
        if self._transport is None or self._closed or self._transport.is_closing():
            return -1
        sock = self._transport.get_extra_info("socket")
        return -1 if sock is None else int(sock.fileno())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's, they only behave like them.
        self._transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("peername")
        self.peer = f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "local"
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._opened is not None:
            self._opened(self)

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._reader.feed(data)
            if frames:
                self._receiver.on_frames(self, frames)
        except ForeignProtocol as error:
            answer = b"" if self.role else answer_to(error)
            if answer:
                self.send(answer)
                self.close(str(error))
            else:
                self.refuse(str(error))
        except ProtocolError as error:
            self.refuse(str(error))

    def trust(self) -> None:
        """The peer has said who it is: take frames as large as the limits allow."""
        self._reader.limit(self._limits.frame_bytes)

    def is_stuck(self) -> bool:
        """Whether the frame that was unfinished when this was last asked still is."""
        before, self._watched = self._watched, self._reader.unfinished
        return before is not None and before is self._watched

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._reason = f"broken: {exc}"
        self._closed = True
        self._out.clear()
        self._receiver.on_closed(self, self._reason)

    def send(self, frame: bytes) -> None:
        """Queue a frame; it leaves with everything else of this turn of the loop."""
        if self._closed:
            return
        if not self._out:
            self._loop.call_soon(self.flush)
        self._out.append(frame)

    def flush(self) -> None:
        """Write what is queued now."""
        if not self._out or self._transport is None or self._closed:
            return
        out, self._out = self._out, []
        self._transport.write(out[0] if len(out) == 1 else b"".join(out))
        if self._transport.get_write_buffer_size() > self._limits.write_buffer_bytes:
            self._reason = "cut off: it does not read what it is sent"
            self._transport.abort()

    def refuse(self, reason: str, *, auth: bool = False) -> None:
        """Tell the peer why, and close."""
        self.send(Refused(reason, auth).frame())
        self.close(reason)

    def close(self, reason: str = "closed here") -> None:
        """Close after what is queued has left."""
        if self._transport is None or self._closed:
            return
        self._reason = reason
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Close at once; what is queued is dropped."""
        if self._transport is not None and not self._closed:
            self._reason = "closed here"
            self._transport.abort()
