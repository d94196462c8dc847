"""The entity that benchmarks of faults call: a counter that is slow, or fails, in a process that is told to.

The switches are files named after the process, in a folder that the environment names: they can be thrown for
one handler from outside, and asking for one costs 2 µs.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import mesh

FOLDER_VARIABLE = "BENCH_FAULTY"
_FOLDER = Path(os.environ.get(FOLDER_VARIABLE, "/nonexistent"))
_SLOW_S = 0.0015
"""Ten times what a handler's core takes for a call (0.15 ms, at 2,000 calls a second on four handlers)."""


def failing(folder: Path, pid: int) -> Path:
    """While this file exists, the process of that pid fails half of its calls."""
    return folder / f"failing-{pid}"


def slow(folder: Path, pid: int) -> Path:
    """While this file exists, the process of that pid takes ten times as long for each call."""
    return folder / f"slow-{pid}"


_FAILING = str(failing(_FOLDER, os.getpid()))
_SLOW = str(slow(_FOLDER, os.getpid()))


@mesh.entity
class Faulty:
    """A number for each key."""

    value: int = 0

    @mesh.command
    def incr(self) -> int:
        """Add one; the new number."""
        if os.path.exists(_FAILING) and random.random() < 0.5:
            raise RuntimeError("told to fail")
        if os.path.exists(_SLOW):
            until = time.perf_counter() + _SLOW_S
            while time.perf_counter() < until:
                pass
        self.value += 1
        return self.value

    @mesh.query
    def get(self) -> int:
        """The number."""
        return self.value
