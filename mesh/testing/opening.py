"""`mesh.testing.mesh`: how a user's test gets a mesh, in async code and in code that blocks."""

from __future__ import annotations

from types import TracebackType

from mesh.core.keyspace import DEFAULT_PARTITIONS
from mesh.testing.blocking import BlockingMesh
from mesh.testing.hosted import InProcessMesh


class Opening:
    """A mesh that is asked for: `async with` it in async code, `with` it in code that blocks."""

    def __init__(self, hosted: InProcessMesh) -> None:
        self._hosted = hosted
        self._blocking: BlockingMesh | None = None

    def __repr__(self) -> str:
        return f"<mesh.testing.mesh: {self._hosted!r}>"

    async def __aenter__(self) -> InProcessMesh:
        return await self._hosted.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._hosted.__aexit__(kind, error, trace)

    def __enter__(self) -> BlockingMesh:
        self._blocking = BlockingMesh(self._hosted)
        self._blocking.start()
        return self._blocking

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._blocking is not None
        self._blocking.stop()


def mesh(
    *entities: type,
    handlers: int = 2,
    partitions: int = DEFAULT_PARTITIONS,
    replaces: bool = True,
    token: str = "",
) -> Opening:
    """A mesh in this process for tests: no Ray, no store's servers, ready in milliseconds.

        async with mesh.testing.mesh(Account) as m:
            async with m.connect() as client:
                await client.call(Account.deposit, "alice", 5)
                await m.kill(m.owner_of("alice"))
                assert await client.call(Account.read, "alice") == 5

    Its clock stands still until the test moves it: `m.clock.advance(10)`. With `with` in the place of
    `async with` everything of it blocks, and its clients are `mesh.Client`s.

    Args:
        entities: the classes it serves, beside KV.
        handlers: how many handlers there should be.
        partitions: of the key space.
        replaces: a handler that died gets a replacement, 0.25 s later by the mesh's clock.
        token: that clients have to know; `m.connect()` and `m.client()` do.

    Raises:
        SetupError: an entity cannot be served, or the numbers do not fit.
    """
    return Opening(
        InProcessMesh(
            entities, handlers=handlers, partitions=partitions, replaces=replaces, token=token
        )
    )
