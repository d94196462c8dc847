"""The built-in entity: one value for a key, without a class of one's own."""

from __future__ import annotations

from typing import Any

from mesh.methods import command, deletion, query
from mesh.specs import entity


@entity
class KV:
    """The built-in entity: one value for a key."""

    value: Any = None

    @command
    def put(self, value: Any) -> None:
        """Set the value."""
        self.value = value

    @query
    def get(self) -> Any:
        """The value, None where there is none."""
        return self.value

    @deletion
    def delete(self) -> None:
        """Forget the value, and the key with it."""
        self.value = None

    @command
    def cas(self, expected: Any, new: Any) -> bool:
        """Set `new` if the value is `expected`; True if it was."""
        if self.value != expected:
            return False
        self.value = new
        return True

    @command
    def incr(self, by: int = 1) -> int:
        """Add to the number, which starts at 0; the new number."""
        current = 0 if self.value is None else self.value
        if not isinstance(current, int) or not isinstance(by, int):
            raise TypeError(f"incr needs whole numbers, this is {current!r:.40} + {by!r:.40}")
        self.value = current + by
        return int(self.value)

    @command
    def append(self, item: Any) -> int:
        """Add to the end of the list, which starts empty; its length after."""
        if self.value is None:
            self.value = []
        if not isinstance(self.value, list):
            raise TypeError(f"append needs a list, this key holds {self.value!r:.40}")
        self.value.append(item)
        return len(self.value)

    @query
    def items(self) -> list[Any]:
        """The list, empty where there is none."""
        if self.value is None:
            return []
        if not isinstance(self.value, list):
            raise TypeError(f"items needs a list, this key holds {self.value!r:.40}")
        return list(self.value)
