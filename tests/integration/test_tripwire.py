"""Deaths that are known before the kernel has buried the process: real processes, killed."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import msgpack
import pytest

from mesh.ids import new_nonce
from mesh.net import tripwire
from mesh.net.pidfd import PidfdReceiver
from tests.integration.suspects_rig import running

CHILD = """
import asyncio, sys, threading, time
from mesh.net import tripwire
from mesh.net.pidfd import hand_over

exec(sys.argv[4])

async def main():
    await hand_over(sys.argv[1], bytes.fromhex(sys.argv[2]), "h-0")

for _ in range(20):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
memory = bytearray(int(sys.argv[3]) << 20)
memory[::4096] = bytes(len(memory) // 4096 + bool(len(memory) % 4096))
asyncio.run(main())
print("handed over", flush=True)
sys.stdin.read()
"""


def child(
    address: str, nonce: bytes, *, megabytes: int = 1, before: str = ""
) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
    return running(CHILD, address, nonce.hex(), str(megabytes), before, says=b"handed over\n")


class Witness:
    """A receiver, and for each death that it told whether the kernel was done with the process by then."""

    def __init__(self) -> None:
        self.address = f"raymesh-test-{new_nonce().hex()}"
        self.pidfds: dict[bytes, int] = {}
        self.buried: dict[bytes, bool] = {}
        self.told = asyncio.Event()
        self.receiver = PidfdReceiver(self._on_watch, self._on_exit)
        self.receiver.open(self.address)

    def _on_watch(self, nonce: bytes, id_: str, pid: int) -> None:
        self.pidfds[nonce] = os.pidfd_open(pid)

    def _on_exit(self, nonce: bytes) -> None:
        self.buried[nonce] = bool(select.select([self.pidfds[nonce]], [], [], 0)[0])
        self.told.set()

    def close(self) -> None:
        self.receiver.close()
        for fd in self.pidfds.values():
            os.close(fd)


@pytest.fixture
async def witness() -> AsyncIterator[Witness]:
    witness = Witness()
    yield witness
    witness.close()


async def test_most_deaths_of_large_processes_are_told_before_the_kernel_is_done(witness):
    """Most: the thread that holds the wire may happen to be the one that gives back the memory."""
    for _ in range(5):
        witness.told.clear()
        async with child(witness.address, new_nonce(), megabytes=300) as process:
            process.kill()
            async with asyncio.timeout(10):
                await witness.told.wait()
    assert sum(not buried for buried in witness.buried.values()) >= 3
    assert witness.receiver.watching == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, None])
async def test_each_way_to_die_is_told_once(witness, how):
    async with child(witness.address, new_nonce()) as process:
        if how is None:
            process.stdin.close()
        else:
            process.send_signal(how)
        async with asyncio.timeout(10):
            await witness.told.wait()
            await process.wait()
    assert len(witness.buried) == 1


async def test_a_wire_that_breaks_is_no_proof_of_a_death(witness):
    """This very process hands itself over, with a wire that then breaks; it goes on."""
    reading, writing = os.pipe()
    pidfd = os.pidfd_open(os.getpid())
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.setblocking(False)
        sock.connect(b"\0" + witness.address.encode())
        socket.send_fds(sock, [msgpack.packb([b"me", "h-0", os.getpid()])], [pidfd, reading])
        assert await asyncio.get_running_loop().sock_recv(sock, 64) == b"watching"
        os.close(writing)
        await asyncio.sleep(0.02)
        assert witness.receiver.watching == [b"me"]
        assert not witness.buried
    os.close(reading)
    os.close(pidfd)


async def test_a_process_that_lives_or_is_stopped_is_not_doomed(witness):
    async with child(witness.address, new_nonce()) as process:
        process.send_signal(signal.SIGSTOP)
        assert not tripwire.is_doomed(process.pid)
        process.kill()
        await witness.told.wait()
    assert not tripwire.is_doomed(os.getpid())


async def test_a_process_without_a_wire_is_told_by_its_pidfd(witness):
    async with child(
        witness.address, new_nonce(), before="tripwire.wire = lambda: None"
    ) as process:
        process.kill()
        async with asyncio.timeout(10):
            await witness.told.wait()
    assert list(witness.buried.values()) == [True]


async def test_where_threads_cannot_have_their_own_descriptors_there_is_no_wire():
    """As under a seccomp profile that forbids it."""
    script = (
        "from mesh.net import tripwire; tripwire._CLOSE_RANGE = 0xffff; "
        "import threading; print(tripwire.wire(), threading.active_count())"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert said == b"None 1\n"


def test_the_wire_is_one_for_the_process_and_another_in_a_forked_child():
    first = tripwire.wire()
    assert first is not None
    assert tripwire.wire() == first
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        own = tripwire.wire()
        alive = own is not None and not select.select([own], [], [], 0)[0]
        os.write(writing, b"alive" if alive else b"ended")
        os._exit(0)
    assert os.read(reading, 16) == b"alive"
    os.waitpid(pid, 0)
    assert not select.select([first], [], [], 0)[0]
    os.close(reading)
    os.close(writing)


def test_the_thread_of_the_wire_holds_no_other_descriptor():
    tripwire.wire()
    held = {}
    for thread in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{thread}/comm") as comm:
            held[thread] = (comm.read().strip(), os.listdir(f"/proc/self/task/{thread}/fd"))
    own = [fds for _, fds in held.values() if len(fds) == 1]
    assert len(own) == 1
