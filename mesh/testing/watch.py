"""What a mesh says of itself while it is being hurt, and when it said it.

Every supervisor is asked again and again on a connection of its own, since the one that knew may be the one
that was hurt. What is kept is what changed.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mesh.client.tool import Tool
from mesh.errors import MeshError
from mesh.net import clock

_POLL_S = 0.01
_ANSWER_S = 0.3

Status = dict[str, Any]
STORE_ROLES = ["primary", "replica", "replica", "sentinel", "sentinel", "sentinel"]
_WHOLE_STORES: tuple[list[str], ...] = ([], STORE_ROLES[:3], STORE_ROLES)
"""A leader that has just begun has seen nobody yet; Sentinels that the mesh was not told of it never sees."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What a leader said at a time (of mesh.net.clock): its id and pid, who owns how many partitions."""

    at: float
    leader: str
    pid: int
    owned: dict[str, int]


def _nodes(status: Status) -> list[dict[str, Any]]:
    """The store's servers; none before a leader has looked at them."""
    return list(status["store"].get("nodes", ()))


def _pids(status: Status) -> list[int]:
    rows = (*status["handlers"], *status["supervisors"], *status["wardens"], *_nodes(status))
    return [row["pid"] for row in rows]


def _is_alive(pid: int) -> bool:
    """Whoever says that it is there may not have heard yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZTX"


class Watch:
    """Asks all supervisors that it hears of. Use it as a context manager.

    Args:
        status: of the mesh when it was whole.
    """

    def __init__(self, status: Status) -> None:
        self.latest = status
        """The last word of a leader."""
        self.latest_at = clock.now()
        self.sights: list[Sight] = []
        self.events: dict[tuple[float, str], dict[str, Any]] = {}
        """All that any supervisor has recorded: by time."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._supervisors = len(status["supervisors"])

    async def __aenter__(self) -> Self:
        self._follow(self.latest)
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _follow(self, status: Status) -> None:
        for supervisor in status["supervisors"]:
            address = f"{supervisor['host']}:{supervisor['port']}"
            if address not in self._tasks:
                loop = asyncio.get_running_loop()
                self._tasks[address] = loop.create_task(self._poll(address))

    async def _poll(self, address: str) -> None:
        while True:
            with contextlib.suppress(MeshError):
                tool = await Tool.open(address, timeout_s=_ANSWER_S)
                try:
                    while True:
                        self._take(address, await tool.ask("status", timeout_s=_ANSWER_S))
                        await asyncio.sleep(_POLL_S)
                finally:
                    tool.close()
            await asyncio.sleep(_POLL_S)

    def _take(self, address: str, status: Status) -> None:
        self._follow(status)
        for s in status["supervisors"]:
            if f"{s['host']}:{s['port']}" == address and s["role"] == "leader":
                self.latest, self.latest_at = status, clock.now()
                owned = {h["process"]: len(h["partitions"]) for h in status["handlers"]}
                last = self.sights[-1] if self.sights else None
                if last is None or (last.pid, last.owned) != (s["pid"], owned):
                    self.sights.append(Sight(self.latest_at, s["id"], s["pid"], owned))

    async def gather_events(self) -> list[dict[str, Any]]:
        """What any supervisor that answers has recorded, in order."""
        for address in list(self._tasks):
            with contextlib.suppress(MeshError):
                tool = await Tool.open(address, timeout_s=1.0)
                try:
                    for event in await tool.ask("events"):
                        self.events[event["at"], f"{event}"] = event
                finally:
                    tool.close()
        return [self.events[key] for key in sorted(self.events)]

    @property
    def is_whole(self) -> bool:
        """Everybody is there: handlers, supervisors, and the store with all its replicas."""
        status = self.latest
        return (
            clock.now() - self.latest_at < 2 * _ANSWER_S
            and bool(status["ready"])
            and len(status["supervisors"]) == self._supervisors
            and sorted(node["role"] for node in _nodes(status)) in _WHOLE_STORES
            and len(status["store"]["in_sync"]) == STORE_ROLES.count("replica")
            and all(map(_is_alive, _pids(status)))
        )

    @property
    def is_even(self) -> bool:
        """Every handler has its share, or one more."""
        held = [len(handler["partitions"]) for handler in self.latest["handlers"]]
        return max(held) - min(held) <= 1

    async def whole(self, within_s: float) -> bool:
        """Wait until everybody is there; False where that takes too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while True:
                    if self.is_whole:
                        return True
                    await asyncio.sleep(_POLL_S)
        return False

    def new_leader_s(self, since: float, old: set[int]) -> float | None:
        """Seconds until another process than these led; None where none did."""
        return next((s.at - since for s in self.sights if s.at > since and s.pid not in old), None)

    def moved_s(self, since: float, processes: list[str]) -> float | None:
        """Seconds until none of these handler processes owned anything; None where one still does."""
        for sight in self.sights:
            if sight.at > since and not any(sight.owned.get(process) for process in processes):
                return sight.at - since
        return None

    def first_moved_s(self, since: float, before: dict[str, int]) -> float | None:
        """Seconds until one of these handler processes owned less than before; None where none did."""
        for sight in self.sights:
            if sight.at > since and any(sight.owned.get(p, 0) < n for p, n in before.items()):
                return sight.at - since
        return None
