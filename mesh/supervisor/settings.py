"""Where a supervisor stands, and what it is given to work with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from mesh.core.leadership import LeadershipConfig
from mesh.core.syncset import Durability
from mesh.core.timing import Timing
from mesh.core.wire import Limits


class Launcher(Protocol):
    """How handler processes are started; Ray's side of the supervisor."""

    async def start_handler(self, id: str) -> None:
        """Start a process for that handler, and end any other that bears its name.

        Called only where none is an alive member. Raises if it cannot be started; then, and when
        it is cancelled, nothing of that process is left.
        """
        ...


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    """Where a supervisor stands and what it looks after.

    Attributes:
        mesh: the mesh's name.
        id: of this supervisor.
        handlers: ids of the handlers that should run.
        replicas: how many of the store's replicas have to be attached before a life is opened.
        durability: what an acknowledgement stands for.
        start_s: how long a handler's process may take from its start to its registration.
        open_s: seconds that the store has for being ready to open a life.
        leadership: its rank among the supervisors, and when a standby bids.
        timing: by which it tells who is alive; None: only exits that a warden proves count.
        health_port: where it answers /healthz and /readyz; 0 for a free port, None for nowhere.
        about: what `mesh status` adds: the store's nodes, Ray's address.
    """

    mesh: str
    id: str
    handlers: tuple[str, ...]
    partitions: int
    host: str = "127.0.0.1"
    port: int = 0
    token: str = ""
    replicas: int = 2
    durability: Durability = "replicated"
    open_s: float = 15.0
    restart_after_s: float = 0.25
    start_s: float = 30.0
    limits: Limits = Limits()  # noqa: RUF009 - frozen
    leadership: LeadershipConfig = LeadershipConfig()  # noqa: RUF009 - frozen
    timing: Timing | None = Timing()  # noqa: RUF009 - frozen
    health_port: int | None = None
    about: dict[str, Any] = field(default_factory=dict)
