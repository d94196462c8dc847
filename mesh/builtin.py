"""What every entity has without writing it: its keys can be deleted, asked after and listed.

Handlers answer these from what they hold, not by calling a function: an instance of a class does not know
whether it is stored. Their names on the wire begin with "~", which no method of a user's can, and they stand
in no list of an entity's methods: callers have `client.delete`, `client.exists` and `client.keys`.
"""

from __future__ import annotations

from typing import Any, Protocol

from mesh.methods import BuiltIn, Method

MAX_PAGE_KEYS = 1000
"""Keys in one page of a listing; with their most of 512 bytes they stay below 1 MiB."""
MAX_POSITION_BYTES = 1024
"""Of a place in a partition's listing, as its handler writes it: the longest name and a few numbers."""


class Every(Protocol):
    """What a call of each takes and returns."""

    def delete(self) -> bool:
        """Delete the key; whether there was one."""
        ...

    def exists(self) -> bool:
        """Whether there is such a key."""
        ...

    def keys(self, prefix: bytes, position: bytes, limit: int) -> list[Any]:
        """Of one partition: [keys, position to go on from], which is empty at the end."""
        ...


BUILT_IN: dict[str, Method] = {
    method.name: method
    for method in (
        Method(Every.delete, query=False, deletes=True, built_in=BuiltIn.DELETE),
        Method(Every.exists, query=True, built_in=BuiltIn.EXISTS),
        Method(Every.keys, query=True, built_in=BuiltIn.KEYS),
    )
}
"""By name on the wire."""
