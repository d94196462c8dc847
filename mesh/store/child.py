"""A server process that never outlives the process that started it, however that one ends.

The kernel kills it with PR_SET_PDEATHSIG. That is set by a launcher between fork and exec: a
preexec_fn can deadlock in a process with threads. The signal is tied to the *thread* that forked
(prctl(2)), so all children are started from one thread that lives as long as its `Launcher`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_LAUNCH = """
import ctypes, os, sys
PR_SET_PDEATHSIG, SIGKILL = 1, 9
if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0):
    sys.exit("prctl: " + os.strerror(ctypes.get_errno()))
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone already")
os.execv(sys.argv[2], sys.argv[2:])
"""

_POLL_S = 0.005
_ASK_AGAIN_S = 0.25


class Child:
    """One server process."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def last_words(self, lines: int = 5) -> str:
        """The end of its log, for a message."""
        try:
            text = self.log.read_text(errors="replace")
        except OSError:
            return f"no log at {self.log}"
        return f"{self.log} ends:\n" + "\n".join(text.splitlines()[-lines:])

    def kill(self) -> None:
        """End it at once."""
        if self.is_running:
            self._process.kill()

    async def terminate(self, within_s: float) -> None:
        """Ask it to shut down (SIGTERM: the AOF is written and synced first), then kill it.

        A server that is writing its first AOF refuses ("Can't exit"), so it is asked again and again.
        """
        for _ in range(max(1, round(within_s / _ASK_AGAIN_S))):
            if not self.is_running:
                return
            self._process.send_signal(signal.SIGTERM)
            await self._exits(_ASK_AGAIN_S)
        await self.killed()

    async def killed(self) -> None:
        """End it at once, and wait until it is gone."""
        self.kill()
        while not await self._exits(_ASK_AGAIN_S):
            pass

    async def _exits(self, within_s: float) -> bool:
        for _ in range(round(within_s / _POLL_S)):
            if not self.is_running:
                return True
            await asyncio.sleep(_POLL_S)
        return False


class Launcher:
    """Starts children; they die when it does."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-launcher")

    async def launch(self, arguments: Sequence[str | Path], *, log: Path, keep_fd: int) -> Child:
        """Run a program.

        Args:
            arguments: of the program, itself first, with its whole path.
            log: where the program writes its log; what it says before that goes there too.
            keep_fd: a descriptor that stays open in the child, such as a lock that it helps to
            hold.
        """

        def start() -> Child:
            with log.open("ab") as output:
                process = subprocess.Popen(  # noqa: S603 - arguments are this package's own
                    [sys.executable, "-ISc", _LAUNCH, str(os.getpid()), *map(str, arguments)],
                    # Its own copy: Ray, which starts meanwhile in another thread, writes into the process's
                    # environment behind Python's back, and exec then fails now and then (EFAULT).
                    env=dict(os.environ),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(keep_fd,),
                    start_new_session=True,  # Ctrl-C is for the parent, who stops them in order
                )
            return Child(process, log)

        return await asyncio.get_running_loop().run_in_executor(self._thread, start)

    def close(self) -> None:
        """End the thread, and with it every child that still runs."""
        self._thread.shutdown(wait=False)
