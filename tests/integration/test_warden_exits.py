"""The witness of exits: real processes hand over descriptors of themselves, and are killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgpack
import pytest

from mesh.core.messages import Exited, WardenHere
from mesh.errors import SetupError
from mesh.ids import new_nonce
from mesh.net.listener import free_port
from mesh.net.pidfd import hand_over
from mesh.warden import Warden
from tests.integration.suspects_rig import Ear, running

CHILD = """
import asyncio, sys
from mesh.net.pidfd import hand_over
asyncio.run(hand_over(sys.argv[1], bytes.fromhex(sys.argv[2]), "h-0"))
print("handed over", flush=True)
sys.stdin.read()
"""


@pytest.fixture
async def ear() -> AsyncIterator[Ear]:
    ear = Ear("warden")
    await ear.listener.open("127.0.0.1", 0)
    yield ear
    await ear.listener.close()


@pytest.fixture
def address() -> str:
    return f"raymesh-test-{new_nonce().hex()}"


@contextlib.asynccontextmanager
async def warden_at(address: str, *ports: int) -> AsyncIterator[Warden]:
    warden = Warden("m", "w-0", address, tuple(f"127.0.0.1:{p}" for p in ports), "secret")
    warden.start()
    try:
        yield warden
    finally:
        await warden.stop()


def child(address: str, nonce: bytes) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
    """A process that has handed itself over and waits."""
    return running(CHILD, address, nonce.hex(), says=b"handed over\n")


def watched(warden: Warden) -> list[bytes]:
    return warden._receiver.watching


def is_bound(address: str) -> bool:
    return f"@{address}\n" in Path("/proc/net/unix").read_text()


async def send_descriptor(address: str, fd: int) -> bytes:
    """Offer any descriptor as one's own; what the warden answers."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.setblocking(False)
    with sock:
        sock.connect(b"\0" + address.encode())
        socket.send_fds(sock, [msgpack.packb([b"nonce", "h-0", os.getpid()])], [fd])
        async with asyncio.timeout(5):
            return await asyncio.get_running_loop().sock_recv(sock, 64)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, None])
async def test_an_exit_is_reported_within_a_second_however_it_came(ear, address, how):
    nonce = new_nonce()
    async with warden_at(address, ear.listener.port) as warden:
        await ear.hear(WardenHere)
        async with child(address, nonce) as process:
            assert watched(warden) == [nonce]
            if how is None:
                process.stdin.close()
            else:
                process.send_signal(how)
            exited = await ear.hear(Exited, within_s=1.0)
        assert exited.nonce == nonce
        assert 0 <= exited.ago_ms < 1000
        assert watched(warden) == []


async def test_a_process_that_lives_is_not_reported(ear, address):
    """One dies and one lives: the report names the one."""
    dying, living = new_nonce(), new_nonce()
    async with warden_at(address, ear.listener.port) as warden:
        async with child(address, living) as survivor:
            async with child(address, dying) as victim:
                victim.kill()
                assert (await ear.hear(Exited)).nonce == dying
            survivor.send_signal(signal.SIGSTOP)  # stopped is not dead
            assert watched(warden) == [living]
            assert not [m for m in ear.heard if isinstance(m, Exited)]


async def test_a_supervisor_that_comes_later_still_hears_of_the_exit(address):
    nonce, port, ear = new_nonce(), free_port(), Ear("warden")
    async with warden_at(address, port) as warden:
        async with child(address, nonce) as process:
            process.kill()
        async with asyncio.timeout(5):
            while watched(warden):  # noqa: ASYNC110 - nobody is there to be told
                await asyncio.sleep(0.005)
        await ear.listener.open("127.0.0.1", port)
        assert (await ear.hear(WardenHere)).watching == []
        exited = await ear.hear(Exited)
        assert exited.nonce == nonce
        assert exited.ago_ms > 0
        await ear.listener.close()


async def test_a_supervisor_that_was_away_hears_who_lives_and_who_died(ear, address):
    dead, alive = new_nonce(), new_nonce()
    async with warden_at(address, ear.listener.port), child(address, alive):
        async with child(address, dead) as process:
            process.kill()
            await ear.hear(Exited)
        await ear.hear(WardenHere)
        for conn in list(ear.wardens):
            conn.close()
        assert (await ear.hear(WardenHere)).watching == [alive]
        assert (await ear.hear(Exited)).nonce == dead


async def test_each_of_several_supervisors_hears_of_it(ear, address):
    other, nonce = Ear("warden"), new_nonce()
    await other.listener.open("127.0.0.1", 0)
    async with warden_at(address, ear.listener.port, other.listener.port):
        await asyncio.gather(ear.hear(WardenHere), other.hear(WardenHere))
        async with child(address, nonce) as process:
            process.kill()
            exits = await asyncio.gather(ear.hear(Exited), other.hear(Exited))
    assert [e.nonce for e in exits] == [nonce, nonce]
    await other.listener.close()


async def test_a_descriptor_of_another_process_is_refused(address):
    async with warden_at(address) as warden:
        fd = os.pidfd_open(os.getppid())
        assert await send_descriptor(address, fd) == b""
        os.close(fd)
        assert watched(warden) == []


async def test_a_descriptor_of_no_process_is_refused(address):
    async with warden_at(address) as warden:
        fd = os.open(os.devnull, os.O_RDONLY)
        assert await send_descriptor(address, fd) == b""
        os.close(fd)
        assert watched(warden) == []


async def test_a_descriptor_under_no_name_is_refused_and_let_go(address):
    async with warden_at(address) as warden:
        pidfd = os.pidfd_open(os.getpid())
        before = len(os.listdir("/proc/self/fd"))
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setblocking(False)
        with sock:
            sock.connect(b"\0" + address.encode())
            socket.send_fds(sock, [b"\xc1"], [pidfd])
            async with asyncio.timeout(5):
                assert await asyncio.get_running_loop().sock_recv(sock, 64) == b""
        assert watched(warden) == []
        assert len(os.listdir("/proc/self/fd")) == before
        os.close(pidfd)


async def test_a_message_without_a_descriptor_is_ignored(address):
    async with warden_at(address) as warden:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(b"\0" + address.encode())
            sock.send(b"hello")
            sock.setblocking(False)
            async with asyncio.timeout(5):
                assert await asyncio.get_running_loop().sock_recv(sock, 64) == b""
        assert watched(warden) == []


async def test_the_socket_leaves_no_file_and_is_gone_with_the_warden(
    address, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    async with warden_at(address):
        assert is_bound(address)
        with pytest.raises(SetupError, match="another warden has the address"):
            Warden("m", "w-1", address, ()).start()
    assert not is_bound(address)
    assert os.listdir(tmp_path) == []


async def test_without_a_warden_a_handler_says_so(address):
    with pytest.raises(SetupError, match=f"no warden at '{address}': Connection refused"):
        await hand_over(address, b"n", "h-0")


async def test_a_warden_that_does_not_answer_is_named(address):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.bind(b"\0" + address.encode())
        silent.listen()
        with pytest.raises(SetupError, match="did not answer within"):
            await hand_over(address, b"n", "h-0", timeout_s=0.05)
