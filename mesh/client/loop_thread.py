"""An event loop on a thread of its own, for code that blocks.

The thread is a daemon, so that nothing that happens to it keeps an interpreter from ending. It is stopped and
joined all the same wherever there is time for it: a daemon that is still at work when the interpreter
goes is cut off in the middle of whatever it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

STOP_S = 2.0
"""How long the end of the thread is waited for: only a name server that does not answer holds it up."""


class LoopThread:
    """A running loop; `post` and `run` may be called from any other thread.

    Args:
        name: the thread's, for those who look at threads.
    """

    def __init__(self, name: str) -> None:
        self._loop = _new_loop()
        self._thread = threading.Thread(target=_turn, args=(self._loop,), name=name, daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"LoopThread({self._thread.name}, {'running' if self.is_alive else 'ended'})"

    @property
    def is_alive(self) -> bool:
        """It has not ended."""
        return self._thread.is_alive()

    @property
    def is_current(self) -> bool:
        """The caller runs on it."""
        return threading.current_thread() is self._thread

    def post(self, work: Callable[..., object], *args: Any) -> None:
        """Have the loop call this, in the order of posting. Not after `stop`."""
        self._loop.call_soon_threadsafe(work, *args)

    def run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Have the loop run this. Not after `stop`."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def stop(self) -> None:
        """End the loop; what it still runs is cancelled."""
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._loop.stop)

    def join(self) -> None:
        """Wait for the end of the thread, for a while."""
        self._thread.join(STOP_S)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(_finish())
        loop.close()


async def _finish() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
