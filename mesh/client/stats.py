"""What became of a client's calls, as numbers that reconcile.

Each call that began is in exactly one of the counts, by what its caller was told: a cancelled one is neither
a success nor a failure, whatever becomes of it in the mesh. What the client itself refuses (wrong arguments,
a closed client) never began and is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from mesh.errors import EntityError, MeshError


@dataclass(frozen=True, slots=True)
class ClientStats:
    """started = ok + entity_errors + not_executed + unknown + cancelled + running.

    Attributes:
        started: calls that began.
        ok: returned their reply.
        entity_errors: were executed and ended in an error: the entity's own, or a reply that cannot be read.
        not_executed: ended in an error that says that nothing ran.
        unknown: ended in an error that leaves open whether they ran.
        cancelled: their caller stopped waiting; they may still have run.
        running: have not ended.
    """

    started: int
    ok: int
    entity_errors: int
    not_executed: int
    unknown: int
    cancelled: int
    running: int


class Tally:
    """The counts while they change; owned by one loop, whose thread alone touches them."""

    __slots__ = ("cancelled", "entity_errors", "not_executed", "ok", "started", "unknown")

    def __init__(self) -> None:
        self.started = 0
        self.ok = 0
        self.entity_errors = 0
        self.not_executed = 0
        self.unknown = 0
        self.cancelled = 0

    def failed(self, error: MeshError) -> None:
        """Count a call that ended in this error."""
        if error.executed is None:
            self.unknown += 1
        elif error.executed or isinstance(error, EntityError):
            self.entity_errors += 1
        else:
            self.not_executed += 1

    def stats(self) -> ClientStats:
        """As they are now."""
        ended = self.ok + self.entity_errors + self.not_executed + self.unknown + self.cancelled
        return ClientStats(
            self.started,
            self.ok,
            self.entity_errors,
            self.not_executed,
            self.unknown,
            self.cancelled,
            self.started - ended,
        )
