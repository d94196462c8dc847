"""What a detector hears and orders: events in, orders out. Plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mesh.core.impressions import Complaint
from mesh.core.pulse import Probed, Pulse, Seen

Cause = Literal["hang", "unreachable"]

# ------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Joined:
    """A handler process has a grant: it is watched from now on.

    Attributes:
        domain: what fails as one: its zone, or its machine.
        weight: share of the partitions that it asks for.
    """

    nonce: bytes
    id: str
    domain: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Left:
    """It is proved dead, or its grant is revoked: nobody watches it any more."""

    nonce: bytes


@dataclass(frozen=True, slots=True)
class Pulsed:
    """A beat came."""

    pulse: Pulse


@dataclass(frozen=True, slots=True)
class Echoed:
    """A process answered a probe, or did something else that only its loop does."""

    nonce: bytes


@dataclass(frozen=True, slots=True)
class Saw:
    """A warden has looked."""

    seen: Seen


@dataclass(frozen=True, slots=True)
class Inquired:
    """A handler has probed another."""

    probed: Probed


@dataclass(frozen=True, slots=True)
class ClientComplained:
    """A client sees handlers that are far from the others.

    Attributes:
        by: its machine.
        among: how many machines have clients.
    """

    by: str
    among: int
    about: Sequence[Complaint]


@dataclass(frozen=True, slots=True)
class RenewalsSeen:
    """The renewal numbers of all grants, as the store has them; None: the store could not say."""

    numbers: Mapping[bytes, int] | None


@dataclass(frozen=True, slots=True)
class WardenWatches:
    """A warden that is connected watches that process."""

    warden: str
    nonce: bytes


@dataclass(frozen=True, slots=True)
class WardenGone:
    """The connection to a warden broke."""

    warden: str


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time passes; sent every `Detector.tick_s`."""


Event = (
    Joined
    | Left
    | Pulsed
    | Echoed
    | Saw
    | Inquired
    | ClientComplained
    | RenewalsSeen
    | WardenWatches
    | WardenGone
    | Ticked
)

# ------------------------------------------------------------------- orders


@dataclass(frozen=True, slots=True)
class AskLoop:
    """Probe that process through the way that calls take."""

    nonce: bytes
    number: int


@dataclass(frozen=True, slots=True)
class AskWarden:
    """Have that warden look at it."""

    warden: str
    nonce: bytes


@dataclass(frozen=True, slots=True)
class AskPeer:
    """Have the process `by` probe that one."""

    by: bytes
    nonce: bytes
    number: int
    within_s: float


@dataclass(frozen=True, slots=True)
class OrderKill:
    """Have that warden end it, if it still is as it was at `seen_ms` of the warden's time."""

    warden: str
    nonce: bytes
    expires_s: float
    seen_ms: float
    condition: str
    slices: int


@dataclass(frozen=True, slots=True)
class Condemn:
    """It is to be taken over, without a proof of its death: revoke, wait, take over."""

    nonce: bytes
    cause: Cause


@dataclass(frozen=True, slots=True)
class Reweigh:
    """It is to hold so large a share from now on; why is "starved", "gray" or "well"."""

    nonce: bytes
    weight: float
    why: str


@dataclass(frozen=True, slots=True)
class Say:
    """An event for operators."""

    kind: str
    fields: dict[str, Any]


Order = AskLoop | AskWarden | AskPeer | OrderKill | Condemn | Reweigh | Say
