"""Who takes part in a mesh, as its supervisor knows them, and what is under way with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mesh.core.lease import LeaseTiming
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
        contact_s: how long a new leader waits for a process on record that renews its lease and does not
            come, and for handlers that the last leader may just have been starting.
        lease: when leases are out.
    """

    handlers: tuple[str, ...]
    restart_after_s: float = 0.25
    start_s: float = 30.0
    restart_most_s: float = 10.0
    store_retry_s: float = 0.05
    settled_s: float = 30.0
    contact_s: float = 5.0
    lease: LeaseTiming = LeaseTiming()  # noqa: RUF009 - frozen


class Weighed(NamedTuple):
    """A smaller weight, since when it is below its own, and why: "gray", "starved" or "well"."""

    weight: float
    since: float
    why: str


@dataclass(slots=True)
class Member:
    """One handler process as the supervisor knows it.

    Attributes:
        weight: share of the partitions that it asks for.
        contacted: it has shown itself to this leader, in this life; others are only on record.
        enrolled: it has a grant.
        version: of its grant; adopted: the version that it has taken up, all of it.
        first_sign: when something was first seen to be wrong with it.
        gone_at: when it was proven dead, or given up without a proof; then `cause` says why.
        weighed: what counts in place of its weight while it is ill.
    """

    row: HandlerRow
    pid: int
    warden: str
    weight: float
    registered_at: float
    connected: bool = True
    contacted: bool = True
    enrolled: bool = False
    version: int = 0
    adopted: int = 0
    first_sign: float | None = None
    gone_at: float | None = None
    cause: str = ""
    weighed: Weighed | None = None
    beat: Beat | None = None

    @property
    def state(self) -> str:
        """As `mesh status` shows it."""
        if self.gone_at is not None:
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
    gone_at: float
    decided_at: float
    is_news: bool = True
    """False of a process of an earlier up, which went with it."""
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
            "cause": f.member.cause,
            "partitions": f.partitions,
            "phases_ms": {
                "detect": ms(f.first_sign, f.gone_at),
                "decide": ms(f.gone_at, f.decided_at),
                "fence": ms(f.decided_at, f.fenced_at),
                "publish": ms(f.fenced_at, f.published_at),
                "ready": ms(f.published_at, now),
            },
        },
        now - f.first_sign,
    )
