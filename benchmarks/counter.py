"""The entity that benchmarks call: one field, through the whole runtime."""

from __future__ import annotations

import mesh


@mesh.entity
class Counter:
    """A number for each key."""

    value: int = 0

    @mesh.command
    def incr(self) -> int:
        """Add one; the new number."""
        self.value += 1
        return self.value

    @mesh.query
    def read(self) -> int:
        """The number."""
        return self.value
