"""What the parts of one handler's brain share.

Each part (calls, runs apart, ownership, commits, reads) has one idea and a file of its own. They depend on
one another in that order and never the other way round; what all of them work on is here.
"""

from __future__ import annotations

from dataclasses import dataclass

from mesh.core.answers import Answers
from mesh.core.cache import Cache
from mesh.core.expiry import Expiry
from mesh.core.handling_config import HandlingConfig
from mesh.core.history import History
from mesh.core.listing import Listings
from mesh.core.outbox import Outbox
from mesh.core.reading import Reading
from mesh.core.retention import Retention
from mesh.core.runs import Runs
from mesh.core.tenure import Home
from mesh.core.tenures import Tenures
from mesh.core.unleased import Unleased
from mesh.core.writing import WriteGate
from mesh.entities import Registry


@dataclass(frozen=True, slots=True)
class Workings:
    """Of one handler.

    Attributes:
        tenures: what it holds.
        answers: its counts, and what callers are told.
        gate: whether the store takes what is written.
        unleased: queries that wait for the lease.
        history: what a short set has acknowledged.
    """

    nonce: bytes
    config: HandlingConfig
    registry: Registry
    home: Home
    retention: Retention
    tenures: Tenures
    answers: Answers
    outbox: Outbox
    runs: Runs
    cache: Cache
    expiry: Expiry
    reading: Reading
    listings: Listings
    gate: WriteGate
    unleased: Unleased
    history: History
