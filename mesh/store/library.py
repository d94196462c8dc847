"""The function library that every store server of a mesh runs.

Functions rather than EVALSHA: a library replicates, so a promoted replica has it at once. Each name
carries the version of that function's calling convention: one that means something else gets the next
number, so that no process calls what it does not know.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from importlib import resources
from typing import Any

from mesh.store.resp import pack

NAME = "raymesh_1"

_VERSIONS = {"open_life": 3}
"""Of functions that are not in their first."""
_FILES = ("common", "commit", "read", "takeover", "sets", "open_life")


def function(name: str) -> bytes:
    """The name under which one function is called."""
    return f"raymesh_{name}_{_VERSIONS.get(name, 1)}".encode()


@cache
def source() -> str:
    """The whole library as FUNCTION LOAD takes it: one chunk, its files share their locals."""
    folder = resources.files("mesh.store") / "functions"
    parts = [(folder / f"{name}.lua").read_text() for name in _FILES]
    return "\n".join([f"#!lua name={NAME}", *parts])


async def ensure_loaded(administer: Callable[[bytes], Awaitable[Any]]) -> bool:
    """Load the library where it is absent or differs from this one; whether that was necessary.

    It replicates like data, ahead of whatever its functions write. Compared as a whole: it is
    shorter than most values, and a digest would have to be trusted to be of what is there.
    """
    listed = await administer(pack("FUNCTION", "LIST", "LIBRARYNAME", NAME, "WITHCODE"))
    code = source().encode()
    for library in listed:
        if code in library:
            return False
    await administer(pack("FUNCTION", "LOAD", "REPLACE", code))
    return True
