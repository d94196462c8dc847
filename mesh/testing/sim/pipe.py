"""One direction of a simulated connection: what is under way, when it arrives, and what a partition holds up.

A pipe keeps order and has no way to lose a byte: what a partition holds up comes after it has healed. What is
written at one instant travels together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Protocol
from zlib import crc32

from mesh.testing.sim.loop import SimLoop
from mesh.testing.sim.process import Host

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


_AT, _KIND, _DATA, _MORE = range(4)
"""Of a packet, a list since one is made for each write. _MORE: None, or _DATA and what was written behind it
at the same instant.
"""


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
        self._packets: deque[list[Any]] = deque()
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
                if last[_KIND] == DATA:
                    if last[_MORE] is None:
                        last[_MORE] = [last[_DATA]]
                    last[_MORE].append(data)
                    return
            self._written_at = now
        elif kind >= FIN:
            self.ended = True
        at = now + medium.delay_s(self.source, self.target)
        if at < self._arrive_at:
            at = self._arrive_at
        else:
            self._arrive_at = at
        self._packets.append([at, kind, data, None])
        loop.kernel_at(at, self._arriver)

    def arrive(self) -> None:
        """Let in what is due by now, in order."""
        packets, medium = self._packets, self._medium
        now = self._loop.virtual
        while packets and packets[0][_AT] <= now:
            if medium.blocked and medium.blocks(self.source, self.target):
                return
            _, kind, data, more = packets.popleft()
            if more is not None:
                data = b"".join(more)
            medium.digest = crc32(data, medium.digest ^ kind)
            if kind == DATA and medium.random() < medium.chop and len(data) > 1:
                cut = medium.dice.randrange(1, len(data))
                at = now + medium.delay_s(self.source, self.target)
                packets.appendleft([at, DATA, data[cut:], None])
                self._loop.kernel_at(at, self._arriver)
                self.receiver(DATA, data[:cut])
                return
            self.receiver(kind, data)

    def let_through(self, after_s: float) -> None:
        """The way is free again: the sender's TCP notices some time later."""
        if self._packets and self._packets[0][_AT] <= self._medium.loop.virtual:
            at = self._packets[0][_AT] = self._medium.loop.virtual + after_s
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
