"""A metronome for load: ticks as exact as the kernel's, where a loop's own timers are off by a millisecond.

uvloop rounds timers to whole milliseconds of a time that it read at the start of the turn; of a
call that takes one millisecond, that would be half of what is measured. A timerfd wakes the loop
when it is time.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from typing import Self

_CLOCK_MONOTONIC = 1
_TFD_NONBLOCK = os.O_NONBLOCK
_SHORTEST_S = 0.0002


class _TimeSpec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("it_interval", _TimeSpec), ("it_value", _TimeSpec))


class Metronome:
    """Ticks every `interval_s` seconds, 0.2 ms at the shortest. Linux only."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = max(_SHORTEST_S, interval_s)
        self._loop = asyncio.get_running_loop()
        self._due = asyncio.Event()
        self._fd = -1

    def __enter__(self) -> Self:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        seconds, rest = divmod(self._interval_s, 1)
        span = _TimeSpec(int(seconds), int(rest * 1e9))
        libc.timerfd_settime(self._fd, 0, ctypes.byref(_TimerSpec(span, span)), None)
        self._loop.add_reader(self._fd, self._on_tick)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _on_tick(self) -> None:
        os.read(self._fd, 8)
        self._due.set()

    async def tick(self) -> None:
        """Wait for the next tick; returns at once if one was missed."""
        await self._due.wait()
        self._due.clear()
