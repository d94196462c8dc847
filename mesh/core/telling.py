"""What a leader says to handler processes of their grants.

A grant is told from the table, less what waits for a lease to run out: that the table names an owner does not
permit it to answer (mesh.core.waits). Told again once nothing of it waits.
"""

from __future__ import annotations

from mesh.core.members import Member
from mesh.core.messages import Grant, Release, in_parts
from mesh.core.signals import AskRelease, Effect, TellGrant
from mesh.core.table import Table
from mesh.core.waits import Waits


class Telling:
    """One leader's, in one life.

    Args:
        token: the leader's.
        life: in which the grants hold.
        waits: what nobody is told of yet.
    """

    def __init__(self, token: int, life: int, waits: Waits) -> None:
        self._token = token
        self._life = life
        self._waits = waits

    def __repr__(self) -> str:
        return f"Telling(token {self._token}, life {self._life})"

    def grant(self, member: Member, table: Table) -> Effect:
        """What it may serve."""
        nonce = member.row.nonce
        epochs = table.epochs_of(nonce)
        waiting = self._waits.among(table.partitions_of(nonce))
        if waiting:
            masked = bytearray(epochs)
            for partition in waiting:
                masked[4 * partition : 4 * partition + 4] = bytes(4)
            epochs = bytes(masked)
        return TellGrant(nonce, Grant(self._token, nonce, self._life, member.version, True, epochs))

    def over(self, nonce: bytes) -> Effect:
        """That it has no grant any more."""
        return TellGrant(nonce, Grant(self._token, nonce, self._life, 0, False, b""))

    def asks(self, nonce: bytes, pairs: list[tuple[int, int]]) -> list[Effect]:
        """To give up these (partition, epoch), in parts that fit into a message."""
        return [AskRelease(nonce, Release(self._token, part)) for part in in_parts(pairs)]
