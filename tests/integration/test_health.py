"""/healthz and /readyz: what answers, what does not, and what it costs to ask badly."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator

import pytest

from mesh.errors import SetupError
from mesh.net.health import HealthPort


class State:
    """What the process would say of itself."""

    def __init__(self) -> None:
        self.wrong = ""


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
async def port(state: State) -> AsyncIterator[HealthPort]:
    port = HealthPort({"/healthz": lambda: "", "/readyz": lambda: state.wrong})
    await port.open("127.0.0.1", 0)
    yield port
    await port.close()


async def ask(port: HealthPort, raw: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port.port)
    writer.write(raw)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await writer.wait_closed()
    return answer


def fetch(port: HealthPort, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def test_it_is_well_and_ready_until_it_is_not(port: HealthPort, state: State) -> None:
    assert await asyncio.to_thread(fetch, port, "/healthz") == (200, "ok\n")
    assert await asyncio.to_thread(fetch, port, "/readyz?verbose") == (200, "ok\n")
    state.wrong = "it has no grant"
    assert await asyncio.to_thread(fetch, port, "/healthz") == (200, "ok\n")
    assert await asyncio.to_thread(fetch, port, "/readyz") == (503, "it has no grant\n")


async def test_another_path_is_told_what_there_is(port: HealthPort) -> None:
    assert await asyncio.to_thread(fetch, port, "/") == (404, "there is /healthz and /readyz\n")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"200"),
        (b"GET /healthz HTTP/1.0\r\n\r\n", b"200"),
        (b"POST /healthz HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", b"405"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/2\r\n\r\n", b"400"),
        (b"GET /\xff\xff HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /healthz HTTP/1.1\r\n" + b"x: y\r\n" * 2000, b"431"),
    ],
)
async def test_whatever_is_asked_is_answered_and_the_connection_ends(
    port: HealthPort, raw: bytes, status: bytes
) -> None:
    answer = await ask(port, raw)
    assert answer.split()[:2] == [b"HTTP/1.1", status]
    assert b"Connection: close" in answer
    if raw.startswith(b"HEAD"):
        assert answer.endswith(b"\r\n\r\n")


async def test_a_request_may_come_in_pieces(port: HealthPort) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port.port)
    for piece in (b"GET /hea", b"lthz HTTP/1.1\r\n", b"\r", b"\n"):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.001)
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()


async def test_silent_peers_keep_nobody_out(port: HealthPort) -> None:
    silent = [await asyncio.open_connection("127.0.0.1", port.port) for _ in range(100)]
    assert (await ask(port, b"GET /healthz HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200")
    assert len(port._peers) <= 64
    for _, writer in silent:
        writer.close()


async def test_a_port_that_is_taken_is_named(port: HealthPort) -> None:
    with pytest.raises(SetupError, match=f"on 127.0.0.1:{port.port}: .*; choose another"):
        await HealthPort({}).open("127.0.0.1", port.port)
