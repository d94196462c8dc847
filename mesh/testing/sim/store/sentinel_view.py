"""What a Sentinel believes: of the primary, its replicas and the other Sentinels, and how it chooses.

Pure: the time comes in, nothing goes out. Periods are the real Sentinel's, in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

PING_S = 1.0
INFO_S = 10.0
INFO_IN_FAILOVER_S = 1.0
HELLO_S = 2.0
ASK_S = 1.0
MOST_DESYNC_S = 1.0
MOST_ELECTION_S = 10.0
CONVERT_S = 4 * HELLO_S
"""How long a node that should be a replica may say that it is a primary."""

Address = tuple[str, int]


@dataclass
class SentinelConfig:
    """A Sentinel's configuration file: what it is told, and what it writes into it. It outlives restarts.

    Attributes:
        id: 40 hex digits.
        primary, replicas: as far as known.
        others: id of each other Sentinel, by its address.
        leader, leader_epoch: whom it voted for last.
    """

    id: str
    name: str
    primary: Address
    replicas: list[Address]
    others: dict[Address, str]
    quorum: int = 2
    down_after_s: float = 1.0
    failover_timeout_s: float = 3.0
    parallel_syncs: int = 2
    password: str = ""
    tilt_s: float = 30.0
    current_epoch: int = 0
    config_epoch: int = 0
    leader: str = ""
    leader_epoch: int = 0


@dataclass(eq=False)
class Instance:
    """A node or a Sentinel, as this Sentinel sees it. Times are the loop's; None: never."""

    address: Address
    known_since: float
    available_at: float
    """When it last answered a PING as a living server does."""
    answered_at: float
    pinged_at: float | None = None
    """When the PING was sent that it still owes the answer to."""
    connected: bool = False
    down_since: float | None = None
    run_id: str = ""
    # Of INFO, as old as that is.
    info_at: float | None = None
    role: str = ""
    role_since: float = 0.0
    primary: Address | None = None
    primary_since: float = 0.0
    link_up: bool = False
    link_down_s: float = 0.0
    priority: int = 100
    offset: int = 0
    # Of a Sentinel.
    id: str = ""
    says_down_at: float | None = None
    vote: str = ""
    vote_epoch: int = 0
    asked_at: float = -1e9

    @property
    def is_down(self) -> bool:
        return self.down_since is not None

    def look(self, now: float, down_after_s: float) -> None:
        """Is it subjectively down?"""
        if self.pinged_at is not None:
            silent_s = now - self.pinged_at
        elif not self.connected:
            silent_s = now - self.available_at
        else:
            silent_s = 0.0
        if silent_s > down_after_s:
            self.down_since = now if self.down_since is None else self.down_since
        else:
            self.down_since = None

    def no_down_for(self, now: float, seconds: float) -> bool:
        """Whether it has been there all that time."""
        return not self.is_down and now - self.known_since > seconds

    def read_info(self, text: str, now: float) -> None:
        """Take in what it said of itself."""
        said = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        self.info_at = now
        self.run_id = said.get("run_id", self.run_id)
        role = said.get("role", self.role)
        if role != self.role:
            self.role, self.role_since = role, now
        if role == "slave":
            primary = (said["master_host"], int(said["master_port"]))
            if primary != self.primary:
                self.primary, self.primary_since = primary, now
            self.link_up = said["master_link_status"] == "up"
            self.link_down_s = float(said.get("master_link_down_since_seconds", 0))
            self.priority = int(said["slave_priority"])
            self.offset = int(said["slave_repl_offset"])


@dataclass
class Failover:
    """One attempt of this Sentinel's, or its wait until somebody else's is over."""

    epoch: int
    started_at: float
    state: str = "wait_start"
    state_since: float = 0.0
    promoted: Instance | None = None
    sent: dict[Address, float] = field(default_factory=dict)
    """Replicas that were told of the new primary, and when."""
    forced: bool = False

    def enter(self, state: str, now: float) -> None:
        """Go on to the next step."""
        self.state, self.state_since = state, now


def chosen_replica(
    replicas: Iterable[Instance],
    *,
    now: float,
    primary_down_since: float | None,
    down_after_s: float,
) -> Instance | None:
    """Which replica to promote: by priority, then offset, then run id; out of INFO that may be old."""
    down = primary_down_since is not None
    most_info_s = 5 * PING_S if down else 3 * INFO_S
    most_link_down_s = (now - primary_down_since if down and primary_down_since else 0.0) + (
        10 * down_after_s
    )
    fit = [
        replica
        for replica in replicas
        if not replica.is_down
        and replica.connected
        and now - replica.available_at <= 5 * PING_S
        and replica.priority > 0
        and replica.info_at is not None
        and now - replica.info_at <= most_info_s
        and replica.link_down_s <= most_link_down_s
        and replica.role == "slave"
    ]
    if not fit:
        return None
    return min(fit, key=lambda replica: (replica.priority, -replica.offset, replica.run_id or "~"))


def elected(votes: Iterable[str], voters: int, quorum: int) -> str:
    """Whom a majority, and the quorum, voted for; empty: nobody."""
    counts: dict[str, int] = {}
    for vote in votes:
        counts[vote] = counts.get(vote, 0) + 1
    needed = max(quorum, voters // 2 + 1)
    return next((name for name, count in counts.items() if name and count >= needed), "")
