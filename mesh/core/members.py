"""Who takes part in a mesh, as its supervisor knows them, and what is under way with them."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.core.messages import Beat
from mesh.core.signals import Record
from mesh.core.table import HandlerRow


@dataclass(frozen=True, slots=True)
class SupervisionConfig:
    """What the mesh should look like, and how patient its supervisor is.

    Attributes:
        handlers: ids of the handlers that should run.
        restart_after_s: how long after a takeover a replacement is started: starting a process
            costs a second of a core, and the survivors need that core first.
        start_s: how long a process may take from its start to its registration.
        restart_most_s: a handler that dies again and again is started ever later, up to this.
        store_retry_s: pause before a store call whose connection broke is sent again.
        settled_s: a handler that lived this long is started as quickly as a new one.
    """

    handlers: tuple[str, ...]
    restart_after_s: float = 0.25
    start_s: float = 30.0
    restart_most_s: float = 10.0
    store_retry_s: float = 0.05
    settled_s: float = 30.0


@dataclass(slots=True)
class Member:
    """One handler process as the supervisor knows it."""

    row: HandlerRow
    pid: int
    warden: str
    weight: float
    registered_at: float
    connected: bool = True
    enrolled: bool = False
    version: int = 0
    adopted: int = 0
    first_sign: float | None = None
    proven_at: float | None = None
    beat: Beat | None = None

    @property
    def state(self) -> str:
        """As `mesh status` shows it."""
        if self.proven_at is not None:
            return "dead"
        if not self.enrolled:
            return "starting"
        return "alive" if self.connected else "suspect"

    @property
    def health(self) -> str:
        """What its entities' own checks say: "ok", or the reason; "ok" until it has said anything."""
        return self.beat.health if self.beat is not None else "ok"


@dataclass(slots=True)
class Failover:
    """One death on its way through the phases."""

    member: Member
    partitions: int
    first_sign: float
    proven_at: float
    decided_at: float
    fenced_at: float = 0.0
    published_at: float = 0.0


@dataclass(slots=True)
class Intent:
    """A planned move: recorded, and asked of the source."""

    source: bytes
    epoch: int
    target: bytes


def record_failover(f: Failover, now: float) -> Record:
    """The event of a failover whose new owners are ready."""

    def ms(begin: float, end: float) -> float:
        return round(max(0.0, end - begin) * 1000, 3)

    return Record(
        "failover",
        {
            "handler": f.member.row.id,
            "pid": f.member.pid,
            "cause": "exit",
            "partitions": f.partitions,
            "phases_ms": {
                "detect": ms(f.first_sign, f.proven_at),
                "decide": ms(f.proven_at, f.decided_at),
                "fence": ms(f.decided_at, f.fenced_at),
                "publish": ms(f.fenced_at, f.published_at),
                "ready": ms(f.published_at, now),
            },
        },
        now - f.first_sign,
    )
