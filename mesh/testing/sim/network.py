"""The simulated network: hosts, connections between their processes, and what goes wrong on the way.

    delay and jitter   of each packet, by the two hosts; `slow` adds to it
    chop               packets are cut in two, as TCP may, and the rest comes later
    block, unblock     nothing gets from some hosts to others, in one direction; what was sent arrives after
    reset              a connection breaks; what was under way is gone

A connection is made by kernels: a stopped process has accepted it before it knows, and a host that cannot be
reached answers nothing at all, where a host without that listener refuses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from random import Random

from mesh.testing.sim.loop import SimLoop
from mesh.testing.sim.pipe import ACCEPT, OPEN, RST, Medium, Pipe
from mesh.testing.sim.process import Host, Process
from mesh.testing.sim.steps import DEAD
from mesh.testing.sim.transport import SimServer, SimTransport

Factory = Callable[[], asyncio.BaseProtocol]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_RETRANSMIT_S = 0.2


class Network:
    """All hosts, and what connects them.

    Args:
        loop: whose network this is.
        dice: for delays and cuts.
        delay_s: between two hosts, at the least.
        jitter_s: at most so much more.
        chop: share of the packets that are cut in two.

    Attributes:
        wires: the connections there are, oldest first.
        blocked: pairs of hosts, by name, from one of which nothing gets to the other.
        digest: of everything that ever arrived: equal in two runs that were the same.
    """

    def __init__(
        self,
        loop: SimLoop,
        dice: Random,
        *,
        delay_s: float = 50e-6,
        jitter_s: float = 200e-6,
        chop: float = 0.01,
    ) -> None:
        self.loop = loop
        self.dice = dice
        self.chop = chop
        self.digest = 0
        self.wires: dict[Wire, None] = {}
        self.hosts: dict[str, Host] = {}
        self._named: dict[str, Host] = {}
        self._delay_s = delay_s
        self._jitter_s = jitter_s
        self.random = dice.random
        self.blocked: set[tuple[str, str]] = set()
        self._slow: dict[tuple[str, str], float] = {}
        loop.network = self

    def __repr__(self) -> str:
        return f"<Network, {len(self.wires)} connections, {len(self.blocked)} ways blocked>"

    def host(self, name: str) -> Host:
        """The host of that name, made when it is first asked for."""
        host = self._named.get(name)
        if host is None:
            host = Host(name, f"10.0.{len(self.hosts) // 200}.{1 + len(self.hosts) % 200}")
            self._named[name] = self.hosts[host.address] = host
        return host

    # ------------------------------------------------------------- what goes wrong

    def block(self, sources: Iterable[str], targets: Iterable[str]) -> None:
        """Nothing gets from any of these hosts to any of those, until `unblock`. By name; a host always
        reaches itself.
        """
        targets = list(targets)
        self.blocked.update((s, t) for s in sources for t in targets if s != t)

    def unblock(self, sources: Iterable[str], targets: Iterable[str]) -> None:
        """The ways are free again; what was held up arrives once its sender tries again."""
        targets = list(targets)
        self.blocked.difference_update([(s, t) for s in sources for t in targets])
        for wire in self.wires:
            for pipe in (wire.forth, wire.back):
                if not self.blocks(pipe.source, pipe.target):
                    pipe.let_through(self.dice.random() * _RETRANSMIT_S)

    def cut(self, some: Iterable[str], others: Iterable[str]) -> None:
        """Block both directions."""
        some, others = list(some), list(others)
        self.block(some, others)
        self.block(others, some)

    def mend(self, some: Iterable[str], others: Iterable[str]) -> None:
        """Unblock both directions."""
        some, others = list(some), list(others)
        self.unblock(some, others)
        self.unblock(others, some)

    def slow(self, some: Iterable[str], others: Iterable[str], by_s: float) -> None:
        """Packets between these hosts and those take up to so much longer, each; 0 ends it."""
        others = list(others)
        for pair in [(s, o) for s in some for o in others]:
            for way in (pair, pair[::-1]):
                if by_s:
                    self._slow[way] = by_s
                else:
                    self._slow.pop(way, None)

    def heal(self) -> None:
        """Every way is free and fast."""
        self._slow.clear()
        names = [host.name for host in self.hosts.values()]
        if self.blocked:
            self.unblock(names, names)

    def reset(self, wire: Wire) -> None:
        """Break a connection."""
        wire.reset()

    def give_up(self, wire: Wire, host: str) -> None:
        """The end at that host takes a connection for broken: what it has sent still arrives, and this after
        it.
        """
        wire.break_at(host)

    def between(self, one: str, other: str) -> Iterator[Wire]:
        """The connections between two processes, by name, oldest first."""
        for wire in self.wires:
            if wire.server and {wire.client.name, wire.server.name} == {one, other}:
                yield wire

    def of(self, process: Process) -> Iterator[Wire]:
        """The connections of a process, oldest first."""
        for wire in self.wires:
            if process is wire.client or process is wire.server:
                yield wire

    # ---------------------------------------------------------- what pipes ask

    def delay_s(self, source: Host, target: Host) -> float:
        """See Medium."""
        if source is target:
            return 20e-6 + self.random() * 20e-6
        delay = self._delay_s + self.random() * self._jitter_s
        if self._slow:
            delay += self.random() * self._slow.get((source.name, target.name), 0.0)
        return delay

    def blocks(self, source: Host, target: Host) -> bool:
        """See Medium."""
        return bool(self.blocked) and (source.name, target.name) in self.blocked

    # ----------------------------------------------------------- what loops ask

    def listen(self, process: Process, factory: Factory, host: str | None, port: int) -> SimServer:
        """See Net."""
        machine = process.host
        if host not in (None, "", "0.0.0.0", machine.address, *_LOOPBACK):  # noqa: S104 - a wildcard
            raise OSError(99, f"{host} is not an address of {machine.name}")
        if port == 0:
            port = machine.next_port
            machine.next_port += 1
        if port in machine.listening:
            raise OSError(98, "Address already in use")
        return SimServer(machine, port, process, factory)

    async def connect(
        self, process: Process, factory: Factory, host: str, port: int
    ) -> tuple[SimTransport, asyncio.BaseProtocol]:
        """See Net."""
        machine = process.host if host in _LOOPBACK else self.hosts.get(host)
        if machine is None:
            raise OSError(113, f"No route to host {host}")
        wire = Wire(self, process, factory, machine, port)
        self.wires[wire] = None
        try:
            await wire.connected
        except BaseException:
            wire.give_up()
            raise
        assert wire.near is not None
        return wire.near, wire.near.get_protocol()


class Wire:
    """A connection, as the network sees it.

    Attributes:
        client: who connects.
        server: who listened; None while nobody has taken it.
        near, far: their ends.
    """

    __slots__ = (
        "_factory",
        "_left",
        "_local",
        "_network",
        "_port",
        "back",
        "client",
        "connected",
        "far",
        "forth",
        "near",
        "server",
    )

    def __init__(
        self, network: Network, client: Process, factory: Factory, target: Host, port: int
    ) -> None:
        medium: Medium = network
        self.client = client
        self.server: Process | None = None
        self.near: SimTransport | None = None
        self.far: SimTransport | None = None
        self.connected: asyncio.Future[None] = network.loop.create_future()
        self._network = network
        self._factory = factory
        self._port = port
        self._local = (client.host.address, client.host.next_port)
        client.host.next_port += 1
        self._left = 2
        self.forth = Pipe(medium, client.host, target, self._at_server)
        self.back = Pipe(medium, target, client.host, self._at_client)
        self.forth.send(OPEN, b"")

    def __repr__(self) -> str:
        server = self.server.name if self.server else self.forth.target.name
        return f"<Wire {self.client.name} - {server}>"

    def _at_server(self, kind: int, data: bytes) -> None:
        if kind != OPEN:
            if self.far is not None:
                self.far.receive(kind, data)
            return
        host = self.forth.target
        listener: SimServer | None = host.listening.get(self._port)
        if listener is None:
            self.back.send(RST, b"")
            return
        self.server = listener.process
        far = self.far = SimTransport(
            self, listener.process, (host.address, self._port), self._local
        )
        far.tie(self.back, self.forth)
        self.back.send(ACCEPT, b"")
        far.step(self._accept, far, listener.factory)

    def _accept(self, far: SimTransport, factory: Factory) -> None:
        if not far.is_closing():
            far.open(factory())

    def _at_client(self, kind: int, data: bytes) -> None:
        if self.near is not None:
            self.near.receive(kind, data)
        elif kind == ACCEPT and self.client.state != DEAD and not self.connected.done():
            host = self.forth.target
            near = self.near = SimTransport(
                self, self.client, self._local, (host.address, self._port)
            )
            near.tie(self.forth, self.back)
            near.step(self._establish, near)
        elif kind == RST:
            self._fail(ConnectionRefusedError(111, "Connection refused"))
        else:
            self.forth.send(RST, b"")
            self.ended()

    def _establish(self, near: SimTransport) -> None:
        if self.connected.done():
            near.abort()
        elif not near.is_closing():
            near.open(self._factory())
            self.connected.set_result(None)

    def _fail(self, error: OSError) -> None:
        self._network.wires.pop(self, None)
        self._network.loop.post(self.client, self.client.context.copy(), self._tell, error)

    def _tell(self, error: OSError) -> None:
        if not self.connected.done():
            self.connected.set_exception(error)

    def give_up(self) -> None:
        """Its caller does not want it any more, before it is there."""
        if self.near is not None:
            self.near.abort()

    def reset(self) -> None:
        """It breaks."""
        self.forth.lose()
        self.back.lose()
        for end in (self.near, self.far):
            if end is not None:
                end.be_reset()
        if self.near is None:
            self._fail(ConnectionResetError(104, "Connection reset by peer"))

    def break_at(self, host: str) -> None:
        """It is over for its end at that host."""
        for end in (self.near, self.far):
            if end is not None and end.process.host.name == host:
                end.be_reset()

    def ended(self) -> None:
        """See Connected."""
        self._left -= 1
        if not self._left:
            self._network.wires.pop(self, None)
