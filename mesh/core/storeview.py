"""What a leader sees of the store: each node by its own word, and the Sentinels' view of all of them.

Names are "host:port", as ROLE and Sentinels write them. Nothing in here decides; mesh.core.storekeeping does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mesh.core.records import Life


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """What a data node said of itself, on one connection, at one time.

    Attributes:
        run_id: of the server process.
        histories: ids of the replication histories that its data belongs to: its own, and the one that
            it continued when it was promoted.
        offset: how far it has its history.
        links: of a primary: each replica's name, and what that one has confirmed.
        follows: of a replica: its primary's name; "" of a primary.
        is_linked: of a replica: whether that link is up.
        priority: Sentinel's for promoting it; 0: never. None: a primary does not tell.
        life: the record in its own data; None: it has never held the mesh.
        clock_us: its clock before it was asked anything else.
        keeps_all: it forgets nothing that it has carried out, even where its process ends.
        pid: of the server process, on its own machine; 0: it has none, or does not tell.
    """

    name: str
    run_id: str
    histories: frozenset[str]
    offset: int
    links: tuple[tuple[str, int], ...] = ()
    follows: str = ""
    is_linked: bool = False
    priority: int | None = None
    life: Life | None = None
    clock_us: int = 0
    keeps_all: bool = False
    pid: int = 0

    @property
    def is_primary(self) -> bool:
        return not self.follows

    @property
    def is_open(self) -> bool:
        """Whether functions take calls there: the life is this very process's, and of its history."""
        life = self.life
        is_own = life is not None and life.run_id == self.run_id and life.history in self.histories
        return self.is_primary and is_own

    @property
    def number(self) -> int:
        """Of the recorded life; 0: none."""
        return self.life.number if self.life else 0

    @property
    def recorded(self) -> tuple[int, int]:
        """Life and set version on record there: what came later is larger."""
        return (self.life.number, self.life.sync_set.version) if self.life else (0, 0)


@dataclass(frozen=True, slots=True)
class ReplicaSeen:
    """A replica, as a Sentinel sees it."""

    is_down: bool
    priority: int


@dataclass(frozen=True, slots=True)
class SentinelSeen:
    """What a Sentinel said.

    Attributes:
        primary: whom it holds for the primary.
        primary_age_ms: since that one last answered it.
        is_primary_down: whether it is subjectively down, or worse.
        is_tilted: it does nothing at present, and its verdicts stand still.
        down_after_ms: its configuration.
        others: how many other Sentinels it knows.
        pid: as a node's.
    """

    name: str
    primary: str
    primary_age_ms: int
    is_primary_down: bool
    is_tilted: bool
    down_after_ms: int
    others: int
    replicas: Mapping[str, ReplicaSeen] = field(default_factory=dict)
    pid: int = 0


@dataclass(frozen=True, slots=True)
class StoreSeen:
    """One round of looks.

    Attributes:
        nodes: those that answered.
        sentinels: those that answered; none where they were not asked.
        watchers: how many Sentinels the store has by all that is known; 0: it has none.
        is_managed: the mesh itself restarts the nodes, at priority 0 until they are members again. Elsewhere
            one that is at 0 is there because its operator wants it never to be promoted.
    """

    nodes: tuple[NodeSeen, ...] = ()
    sentinels: tuple[SentinelSeen, ...] = ()
    watchers: int = 0
    is_managed: bool = False

    def node(self, name: str) -> NodeSeen | None:
        """The one of that name, if it answered."""
        return next((node for node in self.nodes if node.name == name), None)

    @property
    def primaries(self) -> tuple[NodeSeen, ...]:
        """Every node that says it is a primary."""
        return tuple(node for node in self.nodes if node.is_primary)

    def is_majority(self, sentinels: Iterable[SentinelSeen]) -> bool:
        """Whether so many are more than half of all that there are, not of those that answered."""
        return self.watchers > 0 and len({s.name for s in sentinels}) > self.watchers // 2

    @property
    def named_primary(self) -> str:
        """Whom most Sentinels hold for the primary; "": they do not agree, or were not asked."""
        for name in {sentinel.primary for sentinel in self.sentinels}:
            if self.is_majority(s for s in self.sentinels if s.primary == name):
                return name
        return ""
