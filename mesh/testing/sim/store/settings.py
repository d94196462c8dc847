"""A node's configuration: what CONFIG GET shows and CONFIG SET changes, by the server's names."""

from __future__ import annotations

from collections.abc import Mapping

from mesh.testing.sim.store.globs import is_match
from mesh.testing.sim.store.replies import Fault

_DEFAULTS = {
    "appendfsync": "everysec",
    "appendonly": "yes",
    "masterauth": "",
    "masteruser": "",
    "maxmemory": "0",
    "maxmemory-policy": "noeviction",
    "min-replicas-max-lag": "10",
    "min-replicas-to-write": "0",
    "repl-backlog-size": "1048576",
    "repl-diskless-sync-delay": "0",
    "repl-ping-replica-period": "10",
    "repl-timeout": "60",
    "replica-priority": "100",
    "replica-read-only": "yes",
    "replica-serve-stale-data": "yes",
    "requirepass": "",
    "save": "",
}
_UNITS = {"kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "k": 1000, "m": 1000**2, "g": 1000**3}
_BYTES = ("maxmemory", "repl-backlog-size")
_CHOICES = {
    "appendfsync": ("always", "everysec", "no"),
    "appendonly": ("yes", "no"),
    "replica-read-only": ("yes", "no"),
    "replica-serve-stale-data": ("yes", "no"),
}

EMBEDDED = {
    "min-replicas-to-write": "1",
    "min-replicas-max-lag": "2",
    "repl-timeout": "5",
    "repl-ping-replica-period": "1",
    "repl-backlog-size": "64mb",
}
"""What mesh.store.server_config writes for a node of the embedded store."""


class Settings:
    """The settings of one node.

    Args:
        changed: what differs from the server's defaults, by the server's names.
    """

    def __init__(self, changed: Mapping[str, str]) -> None:
        self._values = dict(_DEFAULTS)
        self._numbers = {name: int(value) for name, value in _DEFAULTS.items() if value.isdigit()}
        for name, value in changed.items():
            self.set(name, value)

    def set(self, name: str, value: str) -> None:
        """Change one.

        Raises:
            Fault: there is no such setting, or the value does not fit.
        """
        name = name.lower()
        if name not in self._values:
            raise Fault(f"ERR Unknown option or number of arguments for CONFIG SET - '{name}'")
        if name in _BYTES:
            value = str(_bytes_of(name, value))
        elif name in _CHOICES:
            if value not in _CHOICES[name]:
                allowed = ", ".join(_CHOICES[name])
                raise Fault(
                    f"ERR CONFIG SET failed (possibly related to argument '{name}') - "
                    f"argument(s) must be one of the following: {allowed}"
                )
        elif _DEFAULTS[name].isdigit() and not value.isdigit():
            raise Fault(
                f"ERR CONFIG SET failed (possibly related to argument '{name}') - "
                "argument couldn't be parsed into an integer"
            )
        self._values[name] = value
        if name in self._numbers:
            self._numbers[name] = int(value)

    def matching(self, pattern: bytes) -> dict[str, str]:
        """Those whose names fit a pattern."""
        return {
            name: value
            for name, value in self._values.items()
            if is_match(pattern.lower(), name.encode())
        }

    def text(self, name: str) -> str:
        """One value as it is shown."""
        return self._values[name]

    def number(self, name: str) -> int:
        """One that is a number."""
        return self._numbers[name]

    def holds(self, name: str) -> bool:
        """One that is yes or no."""
        return self._values[name] == "yes"


def _bytes_of(name: str, value: str) -> int:
    text = value.lower()
    for unit, factor in _UNITS.items():
        if text.endswith(unit) and text[: -len(unit)].isdigit():
            return int(text[: -len(unit)]) * factor
    text = text.removesuffix("b")
    if not text.isdigit():
        raise Fault(
            f"ERR CONFIG SET failed (possibly related to argument '{name}') - "
            "argument must be a memory value"
        )
    return int(text)
