"""When the renewal numbers are read, and whether the store is there to say them."""

from __future__ import annotations

import math

from mesh.core.lease import LeaseTiming


class Readings:
    """One leader's; a reading is asked for when the last one has come back.

    Args:
        timing: of the mesh.

    Attributes:
        store_away: the last thing that was asked of the store was not answered. A lease that ran out while
            nobody could renew is no evidence, so nobody is given up then.
    """

    def __init__(self, timing: LeaseTiming) -> None:
        self.store_away = False
        self._read_s = timing.read_s
        self._due_at = -math.inf
        self._is_asked = False

    def __repr__(self) -> str:
        return f"Readings(store {'away' if self.store_away else 'there'})"

    def is_due(self, now: float) -> bool:
        """Ask now; and then not again before it was answered."""
        if self._is_asked or now < self._due_at:
            return False
        self._is_asked, self._due_at = True, now + self._read_s
        return True

    def answered(self) -> None:
        """The store has said them."""
        self._is_asked = self.store_away = False

    def failed(self) -> None:
        """The store did not answer."""
        self._is_asked, self.store_away = False, True
