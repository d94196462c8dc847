"""Which connections a handler commits on: a lane each, and a class of durability for each lane.

What an acknowledgement waits for belongs to the entity's class, so a batch holds changes of one class, and a
class has lanes of its own: behind a WAITAOF everything else on its connection would wait for the disk, and
what only the primary has to have would wait for the replicas (schedule F17). Each lane has a sequence
of its own. A partition may have a batch in flight in each class, since no two classes write the same
fields: a key belongs to one entity, and each class keeps its own records of outcomes.

"async" is the class whose acknowledged writes a failover may lose. So its sequence may have holes in it: a
primary that was a replica has not seen the last batches. Nobody is helped by refusing those that come next.
"""

from __future__ import annotations

from mesh.specs import Durability

LANES: tuple[Durability, ...] = ("replicated", "replicated", "fsynced", "async")
"""By lane. Replicated writes take turns on two: one is on its way while the other is waited for."""

LANES_OF: dict[Durability, tuple[int, ...]] = {
    durability: tuple(lane for lane, other in enumerate(LANES) if other == durability)
    for durability in LANES
}

RECORD_TAGS: dict[Durability, bytes] = {"replicated": b"", "fsynced": b"f", "async": b"a"}
"""What the names of a class's outcome records begin with, in a partition's hash."""
