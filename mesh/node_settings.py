"""Where a handler stands, and by which numbers it works.

Made by whoever hosts it (a Ray actor, a process of a test, the simulator) from what the mesh's configuration
says for all handlers alike, and what differs from one to the next: its name, its address, its node's warden.
"""

from __future__ import annotations

from dataclasses import dataclass

from mesh.core.handling_config import HandlingConfig
from mesh.core.timing import Timing


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Where a handler stands.

    Attributes:
        mesh: the mesh's name.
        id: of the handler; outlives its processes.
        supervisors: "host:port" of each.
        host: address to listen on, and to be reached at.
        warden: address of the node's warden (mesh.net.pidfd).
        token: the mesh's secret; empty on loopback.
        weight: share of the partitions relative to others'.
        timing: how often it beats.
        health_port: where it answers /healthz and /readyz; 0 for a free port, None for nowhere.
    """

    mesh: str
    id: str
    supervisors: tuple[str, ...]
    partitions: int
    host: str = "127.0.0.1"
    port: int = 0
    warden: str = ""
    token: str = ""
    weight: float = 1.0
    region: str | None = None
    zone: str | None = None
    handling: HandlingConfig = HandlingConfig()  # noqa: RUF009 - frozen
    timing: Timing = Timing()  # noqa: RUF009 - frozen
    health_port: int | None = None
