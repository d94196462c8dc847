"""The client that a handler has for its own methods: `mesh.context().call(...)` goes through it.

It takes the table from its own handler, so it needs no supervisor, and its calls take the same way as
anyone's: they are routed, resent and counted. What it adds is where a call comes from.
"""

from __future__ import annotations

from typing import Any

from mesh.client.aio import AsyncClient
from mesh.client.prepared import DEFAULT_TIMEOUT_S
from mesh.context import Outgoing
from mesh.core.payload import Meta
from mesh.net.clock import Clock


class InnerClient:
    """Calls for the methods of one handler.

    Args:
        client: connected; closed with it.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def __repr__(self) -> str:
        return f"InnerClient({self._client!r})"

    async def call(self, outgoing: Outgoing) -> Any:
        """Make a method's call. Raises what `AsyncClient.call` raises."""
        o = outgoing
        meta = Meta(idempotency_key=o.idempotency_key, chain=o.chain)
        return await self._client._call(o.method, o.key, o.args, o.kwargs, o.timeout_s, meta)

    async def close(self) -> None:
        """End every call and every connection."""
        await self._client.close()


async def open_inner(address: str, clock: Clock, token: str, mesh: str) -> InnerClient:
    """A client of the handler at that address, connected.

    Args:
        clock: what its deadlines are told by.
        token: the mesh's secret.
        mesh: its name.

    Raises:
        Unavailable: the handler has no table yet.
    """
    client = AsyncClient([address], token=token, mesh=mesh)
    client._clock = clock
    try:
        await client.start(DEFAULT_TIMEOUT_S)
    except BaseException:
        await client.close()
        raise
    return InnerClient(client)
