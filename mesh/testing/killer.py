"""Killing a process and timing the kernel: SIGKILL → pidfd readable, in a process that does nothing else.

That span is the floor of any detection by exit; a mesh whose wires are strung (mesh.net.tripwire) is
below it. It is measured beside the load, in the same run, since most of it is the kernel tearing the
victim's memory down while others run.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
import time
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Kill:
    """When the signal was sent, by both clocks, and how long the kernel took."""

    sent: float
    sent_wall: float
    floor_s: float


class Killer:
    """A helper process that kills on demand. Use `Killer.start`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls) -> Self:
        """Start the helper; it ends when its standard input does."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return cls(process)

    async def kill(self, pid: int) -> Kill:
        """SIGKILL, and wait until the kernel says that the process has exited.

        Raises:
            ProcessLookupError: there is no such process.
        """
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{pid}\n".encode())
        answer = (await self._process.stdout.readline()).split()
        if len(answer) != 3:
            raise ProcessLookupError(f"no process {pid}")
        return Kill(*map(float, answer))

    async def stop(self) -> None:
        """End the helper."""
        assert self._process.stdin
        self._process.stdin.close()
        await self._process.wait()


def main() -> None:
    """The helper's side: a pid a line in, three numbers a line out."""
    for line in sys.stdin:
        try:
            pidfd = os.pidfd_open(int(line))
        except ProcessLookupError:
            print(flush=True)  # noqa: T201 - the answer
            continue
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        wall, sent = time.time(), time.monotonic()  # noqa: TID251 - the measurement itself
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poll.poll()
        floor = time.monotonic() - sent  # noqa: TID251 - the measurement itself
        os.close(pidfd)
        print(sent, wall, floor, flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
