"""The function library that every store server of a mesh runs.

Functions rather than EVALSHA: a library replicates, so a promoted replica has it at once. Names
carry the version of the calling convention: while a mesh is upgraded, two versions live side by
side.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from importlib import resources
from typing import Any

from mesh.store.resp import pack

VERSION = 1
NAME = f"raymesh_{VERSION}"

_FILES = ("common", "commit", "read", "takeover", "open_life")


def function(name: str) -> bytes:
    """The name under which one function of this version is called."""
    return f"raymesh_{name}_{VERSION}".encode()


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
