"""A mesh's status, as every way to have a mesh hands it out."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Self


class Status(dict[str, Any]):
    """What `mesh status --json` prints. It is there at once; async code may also await it."""

    def __await__(self) -> Generator[None, None, Self]:
        yield from ()
        return self
