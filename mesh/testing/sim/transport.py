"""Both ends of a simulated TCP connection, and what listens. As with real sockets:

written, up to KERNEL_BYTES   is the kernel's: it arrives although its writer dies or aborts
written beyond                is the writer's: it is lost with it, and counts as its write buffer
received                      is the kernel's until the process is free to take it
a process dies                a FIN follows what it had sent; a RST, where it had not read everything
reset                         both ends break, and what is under way is gone
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol, cast

from mesh.testing.sim.loop import SimLoop
from mesh.testing.sim.pipe import DATA, FIN, KERNEL_BYTES, RST, Pipe
from mesh.testing.sim.process import Host, Process
from mesh.testing.sim.steps import RUNNING


class Connected(Protocol):
    """The connection that an end belongs to; see mesh.testing.sim.network.Wire."""

    def ended(self) -> None:
        """One end has left."""
        ...


class SimServer(asyncio.AbstractServer):
    """A listening socket."""

    def __init__(
        self, host: Host, port: int, process: Process, factory: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        self.factory = factory
        self.process = process
        self.address = (host.address, port)
        self._host = host
        host.listening[port] = self
        process.sockets[self] = None

    def __repr__(self) -> str:
        return f"<SimServer of {self.process.name} at {self.address[0]}:{self.address[1]}>"

    @property
    def sockets(self) -> tuple[SimServer, ...]:
        """As real servers have them."""
        return (self,) if self.is_serving() else ()

    def getsockname(self) -> tuple[str, int]:
        """See socket."""
        return self.address

    def close(self) -> None:
        """Listen no more; connections stay."""
        if self.is_serving():
            del self._host.listening[self.address[1]]
            self.process.sockets.pop(self, None)

    end_with_process = close

    def is_serving(self) -> bool:
        return self._host.listening.get(self.address[1]) is self

    def get_loop(self) -> SimLoop:
        return self.process.loop

    async def start_serving(self) -> None:
        """It does from the start."""

    async def serve_forever(self) -> None:
        await self.process.loop.create_future()

    async def wait_closed(self) -> None:
        """At once."""


class SimTransport(asyncio.Transport):
    """One process's end of a connection."""

    def __init__(
        self,
        wire: Connected,
        process: Process,
        sockname: tuple[str, int],
        peername: tuple[str, int],
    ) -> None:
        # Not the parent's, which keeps a dict of extras.
        self.process = process
        self.peername = peername
        self.opened = False
        """Its protocol was told of it."""
        self._sockname = sockname
        self._wire = wire
        self._loop = process.loop
        self._context = process.context.copy()
        self._protocol: Any = None
        self._out: Pipe
        self._in: Pipe
        self._buffer: deque[bytes] = deque()
        self._buffered = 0
        self._high, self._low = 64 * 1024, 16 * 1024
        self._writing_paused = False
        self._reading = True
        self._held: list[tuple[int, bytes]] = []
        self._closing = False
        self._gone = False
        self._deserted = False
        process.sockets[self] = None

    def __repr__(self) -> str:
        state = "closed" if self._gone else "closing" if self._closing else "open"
        return (
            f"<SimTransport {self.process.name} to {self.peername[0]}:{self.peername[1]}, {state}>"
        )

    def tie(self, out: Pipe, in_: Pipe) -> None:
        """Give it its two pipes."""
        self._out, self._in = out, in_
        out.on_room = self._on_room
        in_.receiver = self.receive

    def step(self, callback: Callable[..., None], *args: object) -> None:
        """Have its process take a step for it."""
        self._loop.post(self.process, self._context, callback, *args)

    def open(self, protocol: asyncio.BaseProtocol) -> None:
        """Give it its protocol, in a step of its process."""
        self._protocol = protocol
        self.opened = True
        protocol.connection_made(self)

    # ------------------------------------------------------- what arrives

    def receive(self, kind: int, data: bytes) -> None:
        """The kernel has got something for its process."""
        if self._gone:
            return
        if kind == DATA and self._reading and not self._closing and self.process.state == RUNNING:
            loop, inward = self._loop, self._in
            if not loop.ready and loop.process is None and inward.load < KERNEL_BYTES:
                # Nearly always: no step of `_take` in between, which would be a call more for each packet.
                inward.load -= len(data)
                loop.step(self.process, self._context, self._protocol.data_received, data)
                return
        self._loop.post(self.process, self._context, self._take, kind, data)

    def _take(self, kind: int, data: bytes) -> None:
        if not self._reading and kind != RST:
            self._held.append((kind, data))
            return
        if kind == DATA:
            inward = self._in
            if inward.load >= KERNEL_BYTES:
                inward.taken(len(data))
            else:
                inward.load -= len(data)
            if not self._closing:
                self._protocol.data_received(data)
            return
        if self._gone:
            return
        if kind == FIN:
            # It has left as a whole: nothing that is written from here on gets anywhere.
            self._deserted = True
            if self._closing or not self._protocol.eof_received():
                self._break(None)
        else:
            self._break(ConnectionResetError(104, "Connection reset by peer"))

    def be_reset(self) -> None:
        """The kernel has seen the connection break."""
        if not self._gone:
            error = ConnectionResetError(104, "Connection reset by peer")
            self._loop.post(self.process, self._context, self._break, error)

    def _break(self, error: Exception | None) -> None:
        """In a step of its process: it is over."""
        if self._gone:
            return
        self._closing = True
        self._drop_buffer()
        self._leave(RST if error is not None or self._in.load else FIN)
        self._loop.call_soon(self._tell_lost, error, context=self._context)

    def _tell_lost(self, error: Exception | None) -> None:
        if self.opened:
            self._protocol.connection_lost(error)

    def _leave(self, kind: int) -> None:
        """The kernel ends its side."""
        self._gone = True
        self.process.sockets.pop(self, None)
        self._out.send(kind, b"")
        self._wire.ended()

    def end_with_process(self) -> None:
        """See Socket."""
        if not self._gone:
            self._drop_buffer()
            self._leave(RST if self._in.load else FIN)

    # ---------------------------------------------------------- what is sent

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or not data:
            return
        if self._deserted:
            self._break(BrokenPipeError(32, "Broken pipe"))
            return
        whole = bytes(data)
        out = self._out
        if not self._buffer and out.load < KERNEL_BYTES:
            room = KERNEL_BYTES - out.load
            if len(whole) <= room:
                out.send(DATA, whole)
                return
            out.send(DATA, whole[:room])
            whole = whole[room:]
        self._buffer.append(whole)
        self._buffered += len(whole)
        if self._buffered > self._high and not self._writing_paused:
            self._writing_paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def _on_room(self) -> None:
        if self._buffer:
            self._loop.post(self.process, self._context, self._write_on)

    def _write_on(self) -> None:
        out = self._out
        while self._buffer and not self._gone and (room := KERNEL_BYTES - out.load) > 0:
            data = self._buffer.popleft()
            if len(data) > room:
                self._buffer.appendleft(data[room:])
                data = data[:room]
            self._buffered -= len(data)
            out.send(DATA, data)
        if self._writing_paused and self._buffered <= self._low:
            self._writing_paused = False
            self._protocol.resume_writing()
        if self._closing and not self._buffer:
            self._break(None)

    def _drop_buffer(self) -> None:
        self._buffer.clear()
        self._buffered = 0

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if not self._buffer:
            self._break(None)

    def abort(self) -> None:
        if not self._gone:
            self._break(None)

    def is_closing(self) -> bool:
        return self._closing

    # ----------------------------------------------------------- what is asked

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": self.peername, "sockname": self._sockname}.get(name, default)

    def get_write_buffer_size(self) -> int:
        return self._buffered

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = 64 * 1024 if high is None else high
        self._low = self._high // 4 if low is None else low

    def can_write_eof(self) -> bool:
        return False

    def write_eof(self) -> None:
        raise NotImplementedError("a simulated connection is closed as a whole")

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        held, self._held = self._held, []
        for kind, data in held:
            self._loop.call_soon(self._take, kind, data, context=self._context)

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def get_protocol(self) -> asyncio.BaseProtocol:
        return cast("asyncio.BaseProtocol", self._protocol)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol
