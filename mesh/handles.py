"""A mesh that was brought up from Python, as its user holds it.

The mesh itself runs in processes of its own (mesh.launch). What is asked of it here goes over its sockets, as
from anywhere else.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from mesh.client.aio import AsyncClient, connect
from mesh.client.connecting import Connecting
from mesh.client.status import Status
from mesh.client.sync import Client
from mesh.client.tool import ask
from mesh.errors import BadRequest
from mesh.launch import Launched

T = TypeVar("T")


class Handle:
    """A mesh that runs.

    Attributes:
        name: the mesh's.
        endpoint: "host:port" to connect to.
    """

    def __init__(self, launched: Launched, *, token: str) -> None:
        self.name = str(launched.status["name"])
        self.endpoint = launched.endpoint
        self._launched = launched
        self._token = token
        self._clients: list[AsyncClient] = []
        self._blocking: list[Client] = []

    def __repr__(self) -> str:
        state = "ended" if self._launched.process.poll() is not None else f"at {self.endpoint}"
        return f"<{type(self).__name__} {self.name} {state}>"

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Every "host:port" that clients may start from."""
        return self._launched.endpoints

    def status(self) -> Status:
        """What `mesh status --json` prints. Asked anew, which takes some milliseconds.

        Raises:
            Unavailable: no supervisor answers.
        """
        asked = _apart(lambda: asyncio.run(ask(self.endpoints, "status", token=self._token)))
        return Status({**asked, "log": str(self._launched.log)})

    def connect(self, *, timeout: float = 10.0) -> Connecting[AsyncClient]:
        """An async client of this mesh: `await` it, or `async with` it.

        Args:
            timeout: seconds until a table has to be there.
        """
        return Connecting(self._connect(timeout))

    async def _connect(self, timeout: float) -> AsyncClient:
        client = await connect(*self.endpoints, token=self._token, timeout=timeout)
        self._clients.append(client)
        return client

    def client(self, *, timeout: float = 10.0) -> Client:
        """A blocking client of this mesh, safe to share between threads.

        Args:
            timeout: seconds until a table has to be there.
        """
        client = Client(*self.endpoints, token=self._token, timeout=timeout)
        self._blocking.append(client)
        return client

    async def close_clients(self) -> None:
        """Close the async clients that it has made, on the loop that they were made on."""
        for client in self._clients:
            await client.close()

    def stop(self) -> None:
        """Close its blocking clients, end it, and wait until everything that was started for it is gone.

        Raises:
            SetupError: it does not end.
        """
        for client in self._blocking:
            client.close()
        self._launched.stop()


class LocalMesh(Handle):
    """A mesh on this machine that ends with its block; see `mesh.local`."""

    @property
    def handlers(self) -> tuple[str, ...]:
        """Ids of the handlers that live: "h-0", "h-1", ..."""
        rows = self.status()["handlers"]
        return tuple(row["id"] for row in rows if row["state"] != "dead")

    def kill(self, handler: str) -> int:
        """SIGKILL a handler's process, as a crash would end it; returns its pid.

        Args:
            handler: its id, such as "h-0".

        Raises:
            BadRequest: no handler of that id lives.
        """
        rows = self.status()["handlers"]
        pids = {row["id"]: int(row["pid"]) for row in rows if row["pid"] and row["state"] != "dead"}
        if handler not in pids:
            raise BadRequest(f"no handler {handler!r} lives; there are {sorted(pids)}")
        os.kill(pids[handler], signal.SIGKILL)
        return pids[handler]


class UpMesh(Handle):
    """A mesh that `mesh.up` brought up. As a context manager it ends with its block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _apart(work: Callable[[], T]) -> T:
    """Run something that turns a loop, also where the caller is on one."""
    if asyncio._get_running_loop() is None:
        return work()
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name="mesh-status")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
