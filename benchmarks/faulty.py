"""The entity that benchmarks of faults call: a counter that fails half of its calls where it is told to.

The switch is a file named after the process, in a folder that the environment names: it can be thrown for one
handler from outside, and asking for it costs 2 µs.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import mesh

FOLDER_VARIABLE = "BENCH_FAULTY"
_SWITCH = f"{os.environ.get(FOLDER_VARIABLE, '/nonexistent')}/failing-{os.getpid()}"


def switch_of(folder: Path, pid: int) -> Path:
    """While this file exists, the process of that pid fails half of its calls."""
    return folder / f"failing-{pid}"


@mesh.entity
class Faulty:
    """A number for each key."""

    value: int = 0

    @mesh.command
    def incr(self) -> int:
        """Add one; the new number."""
        if os.path.exists(_SWITCH) and random.random() < 0.5:
            raise RuntimeError("told to fail")
        self.value += 1
        return self.value

    @mesh.query
    def get(self) -> int:
        """The number."""
        return self.value
