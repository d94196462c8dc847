"""Who leads: a supervisor's view of that, and when it bids for the lead itself.

Theory of operation. There is no lease. All a leader does is a write or a message that bears its token, and
the store and every receiver refuse a token lower than the highest they know; so two that both think they
lead cost time and nothing else. What is left to decide is when to bid, and a bid should be rare:

    standby ── the leader's connection broke, or it was silent ──► bidding ── the store took it ──► leader
       ▲                                                             │                                │
       └───────────── somebody else was quicker, or has a higher token, or the store says so ─────────┘

    connection broke   the process is gone, or only the connection: it is dialed again at once, and a leader
                       that answers within `grace_s` stays. Then one standby after the other, by rank.
    silence            stopped, cut off, or starved: nothing of `silence_s` of its beats came.
    outbid             the winner is about to say so. If it never does, it is bid for again, ever later: two
                       that cannot hear each other would take the lead from each other in turns.
    life closed        the store's primary is another one: the leader itself opens the next life there, under
                       a new token. It says nothing while it cannot reach the store: a standby may.

A bid is made over the token that was lost, never over whatever the store has: one that comes second finds the
first's token there, and lets it be.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never


class Role(StrEnum):
    """What a supervisor is."""

    STANDBY = "standby"
    BIDDING = "bidding"
    LEADER = "leader"


@dataclass(frozen=True, slots=True)
class LeadershipConfig:
    """When a standby bids.

    Attributes:
        rank: its place among the supervisors, 0 for the first; each waits for those before it.
        stagger_s: for so long, each.
        grace_s: seconds that a leader has for answering anew once its connection broke.
        silence_s: seconds without a beat after which a leader counts as lost.
        beat_s: seconds between two beats.
        store_s: a leader that had no answer of the store for so long says nothing any more. Longer than a
            failover of the store takes, which it looks after itself.
        again_s: pause after a bid that came to nothing.
        patience_most: silence is waited out up to so many times as long after bids that others topped.
        settled_s: whoever led for so long was no mistake: its patience begins anew.

    Raises:
        ValueError: silence is over before three beats can have been missed.
    """

    rank: int = 0
    stagger_s: float = 0.05
    grace_s: float = 0.02
    silence_s: float = 0.7
    beat_s: float = 0.1
    store_s: float = 2.0
    again_s: float = 0.1
    patience_most: int = 8
    settled_s: float = 30.0

    def __post_init__(self) -> None:
        if self.silence_s < 3 * self.beat_s:
            raise ValueError(
                f"silence_s {self.silence_s:g} must be at least three times beat_s {self.beat_s:g}: a "
                f"leader would be taken for lost over a late beat"
            )


# ------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class LeadingHeard:
    """A supervisor says that it leads."""

    token: int
    life: int
    id: str


@dataclass(frozen=True, slots=True)
class BeatHeard:
    """The leader of that token is there."""

    token: int


@dataclass(frozen=True, slots=True)
class LinkLost:
    """The connection to that supervisor broke."""

    id: str


@dataclass(frozen=True, slots=True)
class BidWon:
    """The store took the bid, acknowledged; or this leader has opened the next life."""

    token: int
    life: int


@dataclass(frozen=True, slots=True)
class BidTopped:
    """Somebody else's token is on record, that one."""

    token: int


@dataclass(frozen=True, slots=True)
class BidFailed:
    """Nobody was there to take the bid."""


@dataclass(frozen=True, slots=True)
class Deposed:
    """The store refused this leader's token, since a higher one is on record."""


@dataclass(frozen=True, slots=True)
class Looked:
    """Time has passed."""


LeadershipEvent = (
    LeadingHeard | BeatHeard | LinkLost | BidWon | BidTopped | BidFailed | Deposed | Looked
)

# ------------------------------------------------------------------ effects


@dataclass(frozen=True, slots=True)
class MakeBid:
    """Bid at the store, if the token recorded there is not above `over`; None: whatever it is.

    Answered by BidWon, BidTopped or BidFailed.
    """

    over: int | None


@dataclass(frozen=True, slots=True)
class GiveUpBid:
    """Somebody leads: make that bid no more, if that is possible."""


@dataclass(frozen=True, slots=True)
class BeginToLead:
    """Lead by this token in this life, and say so to everybody."""

    token: int
    life: int


@dataclass(frozen=True, slots=True)
class StandDown:
    """Lead no more."""

    reason: str


@dataclass(frozen=True, slots=True)
class Missed:
    """For the record: the leader is gone, as far as can be seen from here."""

    id: str
    reason: str


LeadershipEffect = MakeBid | GiveUpBid | BeginToLead | StandDown | Missed


class Leadership:
    """One supervisor's part in who leads.

    It bids for nothing before it was told to stand by, or has heard a leader.

    Args:
        config: see LeadershipConfig.
    """

    def __init__(self, config: LeadershipConfig) -> None:
        self.config = config
        self.role = Role.STANDBY
        self.token = 0
        """The highest that was heard of; whatever bears a lower one is refused."""
        self.life = 0
        self.leader: str | None = None
        """Id of who leads, as far as this supervisor knows; None where nobody does."""
        self._heard: str | None = None
        """Whose lead was last heard of; beats of its token are its own."""
        self._is_unknown = True
        """Who leads was never heard of: a bid is made over whatever the store has on record."""
        self._patience = 1
        self._led_since = 0.0
        self._reason = ""
        """Why the leader counts as lost once `_due` is there."""
        self._due: float | None = None

    def __repr__(self) -> str:
        return f"Leadership({self.role}, token {self.token}, leader {self.leader})"

    @property
    def due(self) -> float | None:
        """When to look next, if nothing happens before; None: not at all."""
        return self._due if self.role is Role.STANDBY else None

    def stand_by(self, now: float) -> None:
        """Bid from now on, if no leader is heard."""
        if self._due is None:
            self._wait(now)

    def step(self, event: LeadershipEvent, now: float) -> list[LeadershipEffect]:
        """Take one event; return what is to be done, in this order."""
        match event:
            case LeadingHeard():
                return self._on_leading(event, now)
            case BeatHeard(token):
                return self._on_beat(token, now)
            case LinkLost(id_):
                return self._on_link_lost(id_, now)
            case BidWon(token, life):
                return self._on_won(token, life, now)
            case BidTopped(token):
                return self._on_topped(token, now)
            case BidFailed():
                return self._on_failed(now)
            case Deposed():
                return self._on_deposed(now)
            case Looked():
                return self._look(now)
            case _:
                assert_never(event)

    # ------------------------------------------------------------- what is heard

    def _on_leading(self, event: LeadingHeard, now: float) -> list[LeadershipEffect]:
        if event.token < self.token or (self.role is Role.LEADER and event.token == self.token):
            return []
        effects: list[LeadershipEffect] = []
        if self.role is Role.LEADER:
            effects.append(StandDown(f"{event.id} leads by token {event.token}"))
        elif self.role is Role.BIDDING:
            effects.append(GiveUpBid())
        self.role = Role.STANDBY
        self.token, self.life = event.token, event.life
        self.leader = self._heard = event.id
        self._patience = 1
        self._is_unknown = False
        self._wait(now)
        return effects

    def _on_beat(self, token: int, now: float) -> list[LeadershipEffect]:
        if token < self.token or self.role is Role.LEADER:
            return []
        is_bidding = self.role is Role.BIDDING
        self.role = Role.STANDBY
        self.token = token
        self.leader = self._heard
        self._wait(now)
        return [GiveUpBid()] if is_bidding else []

    def _on_link_lost(self, id_: str, now: float) -> list[LeadershipEffect]:
        if self.role is Role.STANDBY and id_ == self.leader and self._due is not None:
            self._reason = "its connection broke"
            self._due = min(self._due, now + self.config.grace_s + self._stagger_s)
        return []

    def _look(self, now: float) -> list[LeadershipEffect]:
        if self.role is not Role.STANDBY or self._due is None or now < self._due:
            return []
        if now > self._due + self.config.silence_s / 2:
            # It is this process that was away. What the leader said meanwhile is read first.
            self._due = now + self.config.grace_s + self._stagger_s
            return []
        effects: list[LeadershipEffect] = []
        if self.leader is not None:
            effects.append(Missed(self.leader, self._reason))
        self.leader = None
        self.role = Role.BIDDING
        return [*effects, MakeBid(None if self._is_unknown else self.token)]

    # --------------------------------------------------------------- what bids come to

    def _on_won(self, token: int, life: int, now: float) -> list[LeadershipEffect]:
        if token <= self.token:
            return []  # topped before this was heard
        self.role = Role.LEADER
        self.token, self.life = token, life
        self.leader = self._heard = None
        self._is_unknown = False
        self._led_since = now
        return [BeginToLead(token, life)]

    def _on_topped(self, token: int, now: float) -> list[LeadershipEffect]:
        if self.role is not Role.BIDDING:
            return []  # the winner has been heard
        self.token = max(self.token, token)
        self._is_unknown = False
        self._stand_by(now)
        return []

    def _on_failed(self, now: float) -> list[LeadershipEffect]:
        if self.role is Role.BIDDING:
            self.role = Role.STANDBY
            self._due = now + self.config.again_s + self._stagger_s
        return []

    def _on_deposed(self, now: float) -> list[LeadershipEffect]:
        if self.role is not Role.LEADER:
            return []
        if now - self._led_since > self.config.settled_s:
            self._patience = 1
        # By whom is not known yet, and neither is the token: the next bid may be over any.
        self._is_unknown = True
        self._stand_by(now)
        return [StandDown("another leads, says the store")]

    # ---------------------------------------------------------------------- small

    def _stand_by(self, now: float) -> None:
        """Somebody else leads who has not said so yet. Should he never, two may not hear each other."""
        self.role = Role.STANDBY
        self.leader = self._heard = None
        self._patience = min(self.config.patience_most, 2 * self._patience)
        self._wait(now)

    def _wait(self, now: float) -> None:
        self._reason = "it is silent"
        self._due = now + self.config.silence_s * self._patience + self._stagger_s

    @property
    def _stagger_s(self) -> float:
        return self.config.rank * self.config.stagger_s
