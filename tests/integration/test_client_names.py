"""Endpoints that are names: resolved anew whenever the client connects again."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from mesh_in_process import NAME, PARTITIONS, InProcess

import mesh
from mesh.client import links
from mesh.client.aio import AsyncClient
from mesh.core.messages import Welcome
from mesh.errors import Unavailable
from mesh.net.listener import free_port

HERE, THERE = "127.0.0.1", "127.0.0.2"


@pytest.fixture
def names(monkeypatch):
    """What each name that ends with .test stands for; changed by the test."""
    names: dict[str, list[str]] = {}
    look_up = links._look_up

    async def stand_in(host: str, port: int):
        if not host.endswith(".test"):
            return await look_up(host, port)
        if host not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in names[host]
        ]

    monkeypatch.setattr(links, "_look_up", stand_in)
    return names


class Greeter:
    """A peer that welcomes, and hangs up when told."""

    def __init__(self) -> None:
        self.writers: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        self.all: list[asyncio.StreamWriter] = []
        self.server: asyncio.Server

    async def listen(self, host: str, port: int) -> int:
        self.server = await asyncio.start_server(self._welcome, host, port)
        return self.server.sockets[0].getsockname()[1]

    async def _welcome(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(Welcome(NAME, "supervisor", "s-0", b"nonce", PARTITIONS).frame())
        self.writers.put_nowait(writer)
        self.all.append(writer)

    async def connected(self) -> asyncio.StreamWriter:
        async with asyncio.timeout(5):
            return await self.writers.get()

    async def stop(self) -> None:
        self.server.close()
        for writer in self.all:
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@pytest.fixture
async def greeters() -> AsyncIterator[tuple[Greeter, Greeter, int]]:
    """One here and one there, on the same port."""
    here, there = Greeter(), Greeter()
    port = await here.listen(HERE, 0)
    await there.listen(THERE, port)
    yield here, there, port
    await here.stop()
    await there.stop()


async def test_a_name_that_has_moved_is_found_where_it_is_now(names, greeters):
    here, there, port = greeters
    names["mesh.test"] = [HERE]
    client = AsyncClient([f"mesh.test:{port}"])
    client._links.keep(f"mesh.test:{port}")
    first = await here.connected()
    names["mesh.test"] = [THERE]
    first.transport.abort()
    await there.connected()
    assert here.writers.empty()
    await client.close()


async def test_each_address_of_a_name_is_tried(names):
    async with InProcess(1, replaces=False) as meshed:
        port = meshed.endpoint.rpartition(":")[2]
        names["mesh.test"] = ["127.0.0.9", HERE]  # nothing listens at the first
        client = await meshed.connect(f"mesh.test:{port}")
        assert await client.call("KV.incr", "k") == 1


async def test_a_name_that_is_unknown_is_an_error_with_the_name_in_it(names):
    with pytest.raises(Unavailable, match=r"the name 'gone\.test' cannot be resolved: .*not known"):
        await mesh.connect("gone.test:7400", timeout=0.2)
    with pytest.raises(Unavailable, match=r"the name 'a\.\.test' cannot be resolved"):
        await mesh.connect("a..test:7400", timeout=0.2)


async def test_a_name_that_comes_to_be_known_later_is_found(names):
    async with InProcess(1, replaces=False) as meshed:
        port = meshed.endpoint.rpartition(":")[2]
        connecting = asyncio.create_task(meshed.connect(f"mesh.test:{port}"))
        await asyncio.sleep(0.05)  # some attempts fail
        names["mesh.test"] = [HERE]
        assert await (await connecting).call("KV.incr", "k") == 1


@pytest.mark.parametrize("host", ["localhost", "[127.0.0.1]"])
async def test_a_host_may_be_a_name_or_stand_in_brackets(host):
    async with InProcess(1, replaces=False) as meshed:
        client = await meshed.connect(f"{host}:{meshed.endpoint.rpartition(':')[2]}")
        assert await client.call("KV.incr", "k") == 1


async def test_a_client_without_any_peer_comes_back_when_one_does():
    port = free_port()
    greeter = Greeter()
    client = AsyncClient([f"{HERE}:{port}"])
    client._links.keep(f"{HERE}:{port}")
    await asyncio.sleep(0.1)  # refused a few times
    await greeter.listen(HERE, port)
    await greeter.connected()
    await client.close()
    await greeter.stop()
