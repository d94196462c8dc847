"""Both ends of a simulated TCP connection, and the two pipes between them.

A pipe keeps order and has no way to lose a byte: what a partition holds up comes after it has healed. What is
written at one instant travels together. As with real sockets:

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
from random import Random
from typing import Any, Protocol, cast
from zlib import crc32

from mesh.testing.sim.loop import SimLoop
from mesh.testing.sim.process import Host, Process

KERNEL_BYTES = 1 << 20
"""What the two kernels of a connection hold of one direction."""

DATA, OPEN, ACCEPT, FIN, RST = range(5)


class Medium(Protocol):
    """What pipes ask of the network."""

    loop: SimLoop
    dice: Random
    random: Callable[[], float]
    """The dice's, asked for each packet."""
    chop: float
    digest: int
    blocked: set[tuple[str, str]]

    def delay_s(self, source: Host, target: Host) -> float:
        """How long the next packet is under way."""
        ...

    def blocks(self, source: Host, target: Host) -> bool:
        """Nothing gets from one to the other now."""
        ...


class Connected(Protocol):
    """The connection that an end belongs to; see mesh.testing.sim.network.Wire."""

    def ended(self) -> None:
        """One end has left."""
        ...


class _Packet:
    __slots__ = ("at", "data", "kind", "more")

    def __init__(self, at: float, kind: int, data: bytes) -> None:
        self.at = at
        self.kind = kind
        self.data = data
        self.more: list[bytes] | None = None
        """`data`, and what was written behind it at the same instant."""


class Pipe:
    """One direction of a connection.

    Attributes:
        load: bytes that are under way, or wait for the receiving process.
        on_room: called when a full pipe has room again.
        receiver: gets what arrives.
    """

    __slots__ = (
        "_arrive_at",
        "_arriver",
        "_loop",
        "_medium",
        "_packets",
        "_written_at",
        "ended",
        "load",
        "on_room",
        "receiver",
        "source",
        "target",
    )

    def __init__(
        self, medium: Medium, source: Host, target: Host, receiver: Callable[[int, bytes], None]
    ) -> None:
        self.source = source
        self.target = target
        self.load = 0
        self.ended = False
        self.on_room: Callable[[], None] | None = None
        self._medium = medium
        self._loop = medium.loop
        self.receiver = receiver
        self._packets: deque[_Packet] = deque()
        self._arrive_at = 0.0
        self._written_at = -1.0
        self._arriver = self.arrive

    def send(self, kind: int, data: bytes) -> None:
        """Put something on its way; nothing follows a FIN or a RST."""
        if self.ended:
            return
        medium = self._medium
        loop = self._loop
        now = loop.virtual
        if kind == DATA:
            self.load += len(data)
            if self._written_at == now and self._packets:
                last = self._packets[-1]
                if last.kind == DATA:
                    if last.more is None:
                        last.more = [last.data]
                    last.more.append(data)
                    return
            self._written_at = now
        elif kind >= FIN:
            self.ended = True
        at = now + medium.delay_s(self.source, self.target)
        if at < self._arrive_at:
            at = self._arrive_at
        self._arrive_at = at
        self._packets.append(_Packet(at, kind, data))
        loop.kernel_at(at, self._arriver)

    def arrive(self) -> None:
        """Let in what is due by now, in order."""
        packets, medium = self._packets, self._medium
        now = self._loop.virtual
        while packets and packets[0].at <= now:
            if medium.blocked and medium.blocks(self.source, self.target):
                return
            packet = packets.popleft()
            kind = packet.kind
            data = packet.data if packet.more is None else b"".join(packet.more)
            medium.digest = crc32(data, medium.digest ^ kind)
            if kind == DATA and medium.random() < medium.chop and len(data) > 1:
                cut = medium.dice.randrange(1, len(data))
                rest = _Packet(now + medium.delay_s(self.source, self.target), DATA, data[cut:])
                packets.appendleft(rest)
                self._loop.kernel_at(rest.at, self._arriver)
                self.receiver(DATA, data[:cut])
                return
            self.receiver(kind, data)

    def let_through(self, after_s: float) -> None:
        """The way is free again: the sender's TCP notices some time later."""
        if self._packets and self._packets[0].at <= self._medium.loop.virtual:
            at = self._packets[0].at = self._medium.loop.virtual + after_s
            self._arrive_at = max(at, self._arrive_at)
            self._medium.loop.kernel_at(at, self._arriver)

    def taken(self, size: int) -> None:
        """The receiving process has read that much."""
        full = self.load >= KERNEL_BYTES
        self.load -= size
        if full and self.on_room is not None:
            self.on_room()

    def lose(self) -> None:
        """Drop what is under way."""
        self._packets.clear()
        self.ended = True


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
        if not self._gone:
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
