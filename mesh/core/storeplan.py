"""What the leader may do about the store, as values: each is carried out by mesh.lives, and decided by
mesh.core.storekeeping.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from mesh.core.records import Life, SetChange
from mesh.core.syncset import Durability, InSyncSet


@dataclass(frozen=True, slots=True)
class KeepingConfig:
    """How patient the leader is with the store.

    Attributes:
        durability: what an acknowledgement stands for.
        priority: of a node that may be promoted, where it is not known what it had.
        quick_s: a member this far behind is suspicious: the Sentinels are asked.
        lag_s: a member that is up, and this far behind, does not follow; above the 1 s at which
            replicas confirm while nothing is written.
        steady_s: how long a node has to follow before it becomes a member.
        again_s: before a node that was told something is told again.
        patience_s: how long a Sentinel has to promote a complete member in place of an incomplete one.
    """

    durability: Durability = "replicated"
    priority: int = 100
    quick_s: float = 0.4
    lag_s: float = 1.5
    steady_s: float = 0.5
    again_s: float = 1.0
    patience_s: float = 5.0

    def __post_init__(self) -> None:
        if not self.quick_s < self.lag_s or self.lag_s <= 1.0:
            raise ValueError(
                f"lag_s {self.lag_s} must be above quick_s {self.quick_s} and above the 1.0 s at which "
                f"replicas confirm by themselves"
            )


class Known(NamedTuple):
    """The highest that anyone is known to have had from the store.

    `is_sure`: nobody can have had more, since the one who knows it made each change itself. `seen_open`: the
    life that was seen open last, and on which node. `tried`: the highest number of an opening, even if it was
    never acknowledged; who tries again takes a higher one, and does not see the first as somebody else's.
    """

    life: int = 0
    token: int = 0
    set_version: int = 0
    is_sure: bool = False
    seen_open: tuple[int, str] = (0, "")
    tried: int = 0


@dataclass(frozen=True, slots=True)
class Lead:
    """Bid for the life that is open on this node."""

    node: str
    life: Life
    change: SetChange | None


@dataclass(frozen=True, slots=True)
class Change:
    """Record another set."""

    change: SetChange


@dataclass(frozen=True, slots=True)
class Confirm:
    """The set recorded last is not known to be acknowledged: make the same change again."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """Open the next life on this node.

    `loss`: why something that was acknowledged may be missing there; "": nothing is.
    """

    node: str
    run_id: str
    previous: int
    number: int
    token: int
    sync_set: InSyncSet
    asked_at_us: int | None
    max_age_us: int
    loss: str


@dataclass(frozen=True, slots=True)
class Follow:
    """REPLICAOF, on the connection on which that node just said that it is a replica."""

    node: str
    primary: str


@dataclass(frozen=True, slots=True)
class SetPriority:
    """CONFIG SET replica-priority. Nobody waits for it: one that is stopped carries it out first of all."""

    node: str
    priority: int


@dataclass(frozen=True, slots=True)
class FailOver:
    """Have Sentinel promote this node."""

    node: str


@dataclass(frozen=True, slots=True)
class EndTilt:
    """Sentinels that stand still are needed: their tilt-period becomes this."""

    sentinels: tuple[str, ...]
    tilt_ms: int


@dataclass(frozen=True, slots=True)
class Tell:
    """An event for people."""

    kind: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Somebody else leads."""

    life: int
    token: int


Effect: TypeAlias = (
    Lead | Change | Confirm | Adopt | Follow | SetPriority | FailOver | EndTilt | Tell | GiveUp
)
