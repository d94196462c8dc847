"""A user's module whose counter is slow, or fails half of its calls, in the processes that are told to.

The switches are files named after the process, in a folder that the environment names.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from pathlib import Path

import mesh

FOLDER_VARIABLE = "SICKLY"
SLOW_S = 0.03
"""Ten times what a call takes of a mesh that is not busy, and more."""
_NUMBERS = itertools.count()


def switch(folder: Path, how: str, pid: int) -> Path:
    """While this file is there, that process is ill."""
    return folder / f"{how}-{pid}"


def _is(how: str) -> bool:
    folder = Path(os.environ.get(FOLDER_VARIABLE, "/nonexistent"))
    return switch(folder, how, os.getpid()).exists()


@mesh.entity
class Sickly:
    """A number for each key."""

    value: int = 0

    @mesh.command
    async def incr(self) -> int:
        """Add one; the new number."""
        if _is("failing") and next(_NUMBERS) % 2:
            raise RuntimeError("told to fail")
        if _is("slow"):
            await asyncio.sleep(SLOW_S)
        self.value += 1
        return self.value

    @mesh.query
    def get(self) -> int:
        """The number."""
        return self.value
