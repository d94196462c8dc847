"""What `mesh.connect` returns: to be awaited, or entered as a context manager, whichever reads better."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import Any, Protocol, TypeVar


class Closable(Protocol):
    """Something to close."""

    async def close(self) -> None:
        """Close it."""
        ...


C = TypeVar("C", bound=Closable)


class Connecting(Coroutine[Any, Any, C]):
    """`await` it for a client, or `async with` it for one that is closed at the end of the block.

    A coroutine like any other, too, for `asyncio.create_task` and its like.
    """

    def __init__(self, work: Coroutine[Any, Any, C]) -> None:
        self._work = work
        self._client: C | None = None

    def __await__(self) -> Generator[Any, Any, C]:
        return self._work.__await__()

    async def __aenter__(self) -> C:
        self._client = await self._work
        return self._client

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._client is not None
        await self._client.close()

    def send(self, value: Any) -> Any:
        """See Coroutine."""
        return self._work.send(value)

    def throw(self, *error: Any) -> Any:
        """See Coroutine."""
        return self._work.throw(*error)

    def close(self) -> None:
        """See Coroutine."""
        self._work.close()
