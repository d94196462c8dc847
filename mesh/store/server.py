"""What a store server is, read from its INFO, and whether it will do."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.errors import SetupError

NEEDED = {"redis": (7, 0), "valkey": (7, 2)}
"""First versions with functions."""

WAITAOF_SINCE = (7, 2)


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A server fit for a mesh.

    Attributes:
        product: "redis" or "valkey".
        version: (major, minor, patch).
        aof: whether it keeps an append-only file; the durability "fsynced" needs it.
        eviction: its maxmemory-policy; anything but noeviction loses entities once memory is short.
    """

    product: str
    version: tuple[int, ...]
    run_id: str
    aof: bool
    eviction: str

    @property
    def can_confirm_fsync(self) -> bool:
        """Whether WAITAOF works there."""
        return self.version >= WAITAOF_SINCE and self.aof

    @classmethod
    def from_info(cls, server: str, info: bytes) -> ServerInfo:
        """Read an INFO reply of the server at `server`.

        Raises:
            SetupError: too old, a Redis Cluster, or a Sentinel.
        """
        lines = (line.split(":", 1) for line in info.decode(errors="replace").splitlines())
        found = {line[0]: line[1] for line in lines if len(line) == 2}
        product = "valkey" if "valkey_version" in found else "redis"
        version = parse_version(found.get(f"{product}_version", "0"))
        if version < NEEDED[product]:
            is_at = ".".join(map(str, version))
            raise SetupError(
                f"store {server} is {product} {is_at}, which has no functions: "
                "raymesh needs Redis 7.0 or Valkey 7.2, or newer"
            )
        if found.get("redis_mode", "standalone") != "standalone":
            raise SetupError(
                f"store {server} runs in the mode {found['redis_mode']!r}: "
                "name a standalone primary (with replicas)"
            )
        return cls(
            product,
            version,
            found["run_id"],
            found.get("aof_enabled") == "1",
            found.get("maxmemory_policy", ""),
        )


def parse_version(text: str) -> tuple[int, ...]:
    """(8, 1, 8) of "8.1.8"; parts that are no numbers end it."""
    parts = []
    for part in text.split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts) or (0,)
