"""The simulated network: what TCP and two kernels do, also when processes die, hang, or are cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from mesh.testing.sim import Process, Simulation
from mesh.testing.sim.pipe import KERNEL_BYTES

Main = Callable[[Process], Coroutine[Any, Any, None]]
PORT = 7000


@pytest.fixture
def sim() -> Iterator[Simulation]:
    with Simulation(5, chop=0.0) as simulation:
        yield simulation


class Sink(asyncio.Protocol):
    """Keeps what arrives, and when."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.at: list[float] = []
        self.lost: list[Exception | None] = []
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got.append(data)
        self.at.append(asyncio.get_running_loop().time())

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)

    @property
    def all(self) -> bytes:
        return b"".join(self.got)


async def forever(process: Process) -> None:
    await process.loop.create_future()


def serving(*sinks: Sink) -> Main:
    """A process that accepts connections, each with the next protocol."""
    left = list(sinks)

    async def serve(process: Process) -> None:
        await process.loop.create_server(lambda: left.pop(0), None, PORT)
        await forever(process)

    return serve


def calling(address: str, sink: Sink, then: Callable[[Any], object] = lambda _: None) -> Main:
    async def call(process: Process) -> None:
        transport, _ = await process.loop.create_connection(lambda: sink, address, PORT)
        then(transport)
        await forever(process)

    return call


def pair(
    sim: Simulation, then: Callable[[Any], object] = lambda _: None
) -> tuple[Process, Process, Sink, Sink]:
    """A server and a client that is about to be connected to it: processes, then their protocols."""
    served, called = Sink(), Sink()
    server = sim.spawn("server", serving(served))
    client = sim.spawn("client", calling(server.host.address, called, then))
    return server, client, served, called


def test_what_is_written_arrives_later_in_order_and_joined_by_instant(sim: Simulation) -> None:
    def write(transport: Any) -> None:
        transport.write(b"one ")
        transport.write(b"two ")
        transport.get_extra_info("socket")
        asyncio.get_running_loop().call_later(0.1, transport.write, b"three")

    async def main() -> None:
        _, _, served, called = pair(sim, write)
        await asyncio.sleep(1)
        assert served.got == [b"one two ", b"three"]
        assert served.at[0] > 0
        assert called.transport.get_extra_info("socket") is None
        host, port = called.transport.get_extra_info("peername")
        assert (host, port) == (sim.network.host("server").address, PORT)

    sim.run(main())


def test_bytes_sent_before_a_kill_arrive_and_then_the_end(sim: Simulation) -> None:
    async def main() -> None:
        _, client, served, called = pair(sim)
        await asyncio.sleep(0.1)
        called.transport.write(b"last words")
        client.kill()
        assert served.got == []
        await asyncio.sleep(0.1)
        assert (served.got, served.lost, called.lost) == ([b"last words"], [None], [])

    sim.run(main())


def test_what_a_process_had_not_read_when_it_was_killed_makes_its_end_a_reset(
    sim: Simulation,
) -> None:
    async def main() -> None:
        server, _, served, called = pair(sim)
        await asyncio.sleep(0.1)
        server.pause()
        called.transport.write(b"never read")
        await asyncio.sleep(0.1)
        server.kill()
        await asyncio.sleep(0.1)
        assert served.got == []
        assert isinstance(called.lost[0], ConnectionResetError)

    sim.run(main())


def test_a_paused_process_takes_in_order_what_came_meanwhile(sim: Simulation) -> None:
    async def main() -> None:
        server, _, served, called = pair(sim)
        await asyncio.sleep(0.1)
        server.pause()
        for number in range(5):
            called.transport.write(b"%d" % number)
            await asyncio.sleep(0.01)
        called.transport.close()
        await asyncio.sleep(1)
        assert served.got == []
        server.resume()
        await asyncio.sleep(0.01)
        assert (served.all, served.lost) == (b"01234", [None])

    sim.run(main())


def test_a_paused_process_is_connected_to_and_a_dead_one_refuses(sim: Simulation) -> None:
    async def main() -> None:
        first, second = Sink(), Sink()
        server = sim.spawn("server", serving(first))
        await asyncio.sleep(0.1)
        server.pause()
        sim.spawn("client", calling(server.host.address, second))
        await asyncio.sleep(0.1)
        assert second.transport is not None and first.transport is None
        server.kill()
        await asyncio.sleep(0.1)
        assert second.lost
        sim.spawn("late", calling(server.host.address, Sink()))
        await asyncio.sleep(0.1)
        assert [type(told["exception"]) for told in sim.unhandled] == [ConnectionRefusedError]

    sim.run(main())


def test_a_partition_holds_up_and_loses_nothing(sim: Simulation) -> None:
    async def main() -> None:
        _, _, served, called = pair(sim)
        await asyncio.sleep(0.1)
        sim.network.cut(["client"], ["server"])
        called.transport.write(b"held ")
        await asyncio.sleep(1)
        called.transport.write(b"up")
        served.transport.write(b"too")
        await asyncio.sleep(1)
        assert (served.got, called.got) == ([], [])
        sim.network.heal()
        await asyncio.sleep(1)
        assert (served.all, called.all, served.lost) == (b"held up", b"too", [])

    sim.run(main())


def test_a_partition_in_one_direction_lets_the_other_through(sim: Simulation) -> None:
    async def main() -> None:
        _, _, served, called = pair(sim)
        await asyncio.sleep(0.1)
        sim.network.block(["client"], ["server"])
        called.transport.write(b"held up")
        served.transport.write(b"passes")
        await asyncio.sleep(1)
        assert (served.all, called.all) == (b"", b"passes")
        sim.network.unblock(["client"], ["server"])
        await asyncio.sleep(1)
        assert served.all == b"held up"

    sim.run(main())


def test_behind_a_partition_connecting_hangs_and_goes_on_once_it_has_healed(
    sim: Simulation,
) -> None:
    async def main() -> None:
        sim.network.host("client")
        sim.network.cut(["client"], ["server"])
        _, _, served, called = pair(sim)
        await asyncio.sleep(5)
        assert called.transport is None
        sim.network.heal()
        await asyncio.sleep(1)
        assert called.transport is not None and served.transport is not None

    sim.run(main())


def test_a_connection_that_is_given_up_while_it_is_made_is_none_to_anybody(sim: Simulation) -> None:
    ended: list[str] = []

    async def impatient(process: Process) -> None:
        sink = Sink()
        address = sim.network.host("server").address
        connecting = process.loop.create_connection(lambda: sink, address, PORT)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connecting, 0.5)
        ended.append("gave up")
        await asyncio.sleep(5)
        assert sink.transport is None

    async def main() -> None:
        served = Sink()
        sim.spawn("server", serving(served))
        sim.network.host("client")
        await asyncio.sleep(0.1)
        sim.network.block(["server"], ["client"])
        client = sim.spawn("client", impatient)
        await asyncio.sleep(1)
        sim.network.heal()
        await asyncio.sleep(1)
        assert served.transport is not None and served.lost
        await asyncio.sleep(5)
        assert not client.alive

    sim.run(main())
    assert ended == ["gave up"]
    assert not sim.unhandled
    assert not sim.network.wires


def test_a_reset_breaks_both_ends_and_loses_what_is_under_way(sim: Simulation) -> None:
    async def main() -> None:
        server, client, served, called = pair(sim)
        await asyncio.sleep(0.1)
        called.transport.write(b"under way")
        for wire in list(sim.network.between("client", "server")):
            sim.network.reset(wire)
        await asyncio.sleep(0.1)
        assert served.got == []
        assert isinstance(served.lost[0], ConnectionResetError)
        assert isinstance(called.lost[0], ConnectionResetError)
        assert client.alive and server.alive and not sim.network.wires

    sim.run(main())


def test_a_connection_given_up_at_one_end_still_brings_the_other_what_was_under_way(
    sim: Simulation,
) -> None:
    """The news that it is over comes behind it."""

    def leave(transport: Any) -> None:
        sim.network.slow(("client",), ("server",), 0.3)
        transport.write(b"late")
        for wire in list(sim.network.wires):
            sim.network.give_up(wire, "client")

    _, _, far, near = pair(sim, leave)
    sim.run(asyncio.sleep(1.0))
    assert far.all == b"late" and len(far.lost) == 1
    assert len(near.lost) == 1


def test_who_does_not_read_fills_the_kernels_and_then_its_peers_buffer(sim: Simulation) -> None:
    async def main() -> None:
        server, client, served, called = pair(sim)
        await asyncio.sleep(0.1)
        server.pause()
        called.transport.write(b"x" * KERNEL_BYTES)
        assert called.transport.get_write_buffer_size() == 0
        called.transport.write(b"y" * 1000)
        await asyncio.sleep(0.1)
        assert called.transport.get_write_buffer_size() == 1000
        server.resume()
        await asyncio.sleep(0.1)
        assert called.transport.get_write_buffer_size() == 0
        assert len(served.all) == KERNEL_BYTES + 1000
        server.pause()
        called.transport.write(b"z" * (KERNEL_BYTES + 1000))
        client.kill()
        server.resume()
        await asyncio.sleep(0.1)
        # What was still the dead process's own went with it.
        assert len(served.all) == 2 * KERNEL_BYTES + 1000

    sim.run(main())


def test_packets_are_cut_and_still_arrive_whole_and_in_order() -> None:
    with Simulation(9, chop=0.9) as sim:

        async def main() -> None:
            _, _, served, called = pair(sim)
            await asyncio.sleep(0.1)
            for number in range(50):
                called.transport.write(b"%03d" % number)
                if number % 7 == 0:
                    await asyncio.sleep(0.0001)
            await asyncio.sleep(1)
            assert served.all == b"".join(b"%03d" % number for number in range(50))
            assert len(served.got) > 15

        sim.run(main())


def test_streams_and_their_drain_work(sim: Simulation) -> None:
    async def echo(process: Process) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                writer.write(line.upper())
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, process.host.address, PORT)
        assert server.sockets[0].getsockname() == (process.host.address, PORT)
        await forever(process)

    async def ask(process: Process) -> None:
        address = sim.network.host("echo").address
        reader, writer = await asyncio.open_connection(address, PORT)
        writer.write(b"hello\n" * 3)
        for _ in range(3):
            assert await reader.readline() == b"HELLO\n"
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        sim.spawn("echo", echo)
        await asyncio.sleep(0.1)
        asking = sim.spawn("ask", ask)
        await asyncio.sleep(0.1)
        assert not asking.alive

    sim.run(main())
    assert not sim.unhandled


def test_a_socket_outside_of_a_process_and_tls_are_refused_in_words(sim: Simulation) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(NotImplementedError, match="outside of a process"):
            await loop.create_server(Sink, None, PORT)
        with pytest.raises(NotImplementedError, match="TLS"):
            await loop.create_server(Sink, None, PORT, ssl=object())  # type: ignore[arg-type]

    sim.run(main())


def test_a_port_that_is_taken_and_a_foreign_address_are_refused(sim: Simulation) -> None:
    async def main() -> None:
        sim.spawn("one", serving(Sink()), host="shared")
        sim.spawn("two", serving(Sink()), host="shared")

        async def elsewhere(process: Process) -> None:
            await process.loop.create_server(Sink, "10.9.9.9", PORT)

        sim.spawn("three", elsewhere)
        await asyncio.sleep(0.1)

    sim.run(main())
    assert [told["exception"].errno for told in sim.unhandled] == [98, 99]


def _chatter(seed: int) -> tuple[int, list[str]]:
    with Simulation(seed, chop=0.2) as sim:

        async def main() -> None:
            server, _, served, called = pair(sim)
            dice = sim.dice("test")
            await asyncio.sleep(0.1)
            for number in range(100):
                if not called.lost:
                    called.transport.write(dice.randbytes(dice.randrange(1, 50)))
                await asyncio.sleep(dice.random() / 1000)
                if number == 50:
                    server.pause()
                if number == 70:
                    server.resume()
                sim.note("client", f"{number} {len(served.all)}")

        sim.run(main())
        return sim.network.digest, [str(line) for line in sim.trace]


def test_one_seed_is_one_run_to_the_last_byte_and_another_seed_another() -> None:
    assert _chatter(4) == _chatter(4)
    assert _chatter(4) != _chatter(5)
