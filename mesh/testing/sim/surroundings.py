"""What asyncio asks of an event loop besides time and steps, where nothing but these is simulated.

Refused are threads, sockets that exist, child processes, signals. What is given to an executor is done at
once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn, Protocol, TypeVar

T = TypeVar("T")

Factory = Callable[[], asyncio.BaseProtocol]


class Net(Protocol):
    """What lies below `create_server` and `create_connection`; see mesh.testing.sim.network."""

    def listen(
        self, process: Any, factory: Factory, host: str | None, port: int
    ) -> asyncio.AbstractServer:
        """Listen for a process."""
        ...

    async def connect(
        self, process: Any, factory: Factory, host: str, port: int
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Connect for a process."""
        ...


class Surroundings(asyncio.AbstractEventLoop):
    """Of a loop that runs nothing beside itself."""

    get_debug = bool  # False: asked for each future and task, so without a frame

    def set_debug(self, enabled: bool) -> None:
        """Nothing changes."""

    async def shutdown_asyncgens(self) -> None:
        """Nothing is left to be shut down."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is none."""

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Done at once: no virtual time passes, and nobody runs beside it."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it is the caller's
            future.set_exception(error)
        return future

    async def getaddrinfo(  # type: ignore[override]
        self, host: str, port: int, **_options: object
    ) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        """Every name is the address itself."""
        return [(2, 1, 6, "", (host, port))]


def refuse(what: str) -> NoReturn:
    """It is not simulated."""
    raise NotImplementedError(f"a simulation has no {what}")
