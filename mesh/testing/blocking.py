"""A mesh in this process for code that blocks: its loop turns on a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from mesh.client.loop_thread import LoopThread
from mesh.client.status import Status
from mesh.client.sync import Client
from mesh.testing.clock import ManualClock, Turns
from mesh.testing.hosted import HostedMesh, InProcessMesh

T = TypeVar("T")


class BlockingHost:
    """A `HostedMesh`, asked from outside of its loop."""

    def __init__(self, hosted: HostedMesh) -> None:
        self._hosted = hosted
        self._thread = LoopThread("mesh-testing")

    def __repr__(self) -> str:
        return repr(self._hosted).replace(type(self._hosted).__name__, type(self).__name__, 1)

    @property
    def endpoint(self) -> str:
        """Where to connect to, "host:port", from this process or another."""
        return self._hosted.endpoint

    @property
    def handlers(self) -> tuple[str, ...]:
        """Ids of the handlers that live: "h-0", "h-1", ..."""
        return self._hosted.handlers

    def client(self, *endpoints: str, timeout: float = 10.0, token: str | None = None) -> Client:
        """A blocking client of this mesh, closed with it; see `InProcessMesh.client`."""
        return self._hosted.client(*endpoints, timeout=timeout, token=token)

    def owner_of(self, key: str | bytes) -> str:
        """Id of the handler that owns a key, as the supervisor has it on record."""

        async def ask() -> str:
            return self._hosted.owner_of(key)

        return self._run(ask())

    def status(self) -> Status:
        """What `mesh status --json` prints."""

        async def ask() -> Status:
            return self._hosted.status()

        return self._run(ask())

    def kill(self, handler: str) -> None:
        """Have a handler's process die; see `InProcessMesh.kill`."""
        self._run(self._hosted.kill(handler))

    def until_ready(self, within_s: float = 10.0) -> None:
        """Wait until every handler that should be there has its share and nothing moves."""
        self._run(self._hosted.until_ready(within_s))

    def start(self) -> None:
        """Bring it up."""
        try:
            self._run(self._hosted.__aenter__())
        except BaseException:
            self._end()
            raise

    def stop(self) -> None:
        """Take it down, its clients included."""
        try:
            self._run(self._hosted.__aexit__(None, None, None))
        finally:
            self._end()

    def _end(self) -> None:
        self._thread.stop()
        self._thread.join()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._thread.run(work).result()


class BlockingClock:
    """A mesh's manual clock, for code that awaits nothing."""

    def __init__(self, clock: ManualClock, settle: Callable[[], None]) -> None:
        self._clock = clock
        self._settle = settle

    def __repr__(self) -> str:
        return repr(self._clock)

    @property
    def passed_s(self) -> float:
        """Seconds by which it has been moved."""
        return self._clock.passed_s

    def advance(self, seconds: float) -> None:
        """Move it forward; returns once what became due has been called. See `ManualClock.advance`."""
        _ = self._clock.advance(seconds)
        self._settle()


class BlockingMesh(BlockingHost):
    """A mesh for a user's tests, on a clock of its own; see `mesh.testing.mesh`.

    Attributes:
        clock: `m.clock.advance(seconds)` lets time pass.
    """

    def __init__(self, hosted: InProcessMesh) -> None:
        super().__init__(hosted)
        self.clock = BlockingClock(hosted.clock, self._settle)

    def _settle(self) -> None:
        async def turn() -> None:
            await Turns()

        self._run(turn())
