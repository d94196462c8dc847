"""What a store server is, read from its INFO, and whether it will do."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.errors import SetupError

NEEDED = {"redis": (7, 0), "valkey": (7, 2)}
"""First versions with functions."""

WAITAOF_SINCE = (7, 2)

_NEEDS = "raymesh needs Redis 7.0 or Valkey 7.2, or newer"


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A server fit for a mesh.

    Attributes:
        product: "redis" or "valkey".
        version: (major, minor, patch).
        aof: whether it keeps an append-only file; the durability "fsynced" needs it.
        eviction: its maxmemory-policy. The mesh's keys never expire, so only the allkeys- ones lose any.
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
            SetupError: too old, a Redis Cluster, a Sentinel, or one that would drop keys to save memory.
        """
        lines = (line.split(":", 1) for line in info.decode(errors="replace").splitlines())
        found = {line[0]: line[1] for line in lines if len(line) == 2}
        product = "valkey" if "valkey_version" in found else "redis"
        told, run_id = found.get(f"{product}_version"), found.get("run_id")
        if told is None or run_id is None:
            raise SetupError(
                f"store {server} does not tell its version as Redis does (INFO says "
                f"{info[:60].decode(errors='replace')!r}): {_NEEDS}, and no proxy in between"
            )
        version = parse_version(told)
        if version < NEEDED[product]:
            is_at = ".".join(map(str, version))
            raise SetupError(
                f"store {server} is {product} {is_at}, which has no functions: {_NEEDS}"
            )
        if found.get("redis_mode", "standalone") != "standalone":
            raise SetupError(
                f"store {server} runs in the mode {found['redis_mode']!r}: "
                "name a standalone primary (with replicas)"
            )
        eviction = found.get("maxmemory_policy", "")
        if eviction.startswith("allkeys") and found.get("maxmemory", "0") != "0":
            raise SetupError(
                f"store {server} has the maxmemory-policy {eviction}: once its memory is full it drops "
                f"entities that were acknowledged; set it to noeviction"
            )
        return cls(product, version, run_id, found.get("aof_enabled") == "1", eviction)


def parse_version(text: str) -> tuple[int, ...]:
    """(8, 1, 8) of "8.1.8"; parts that are no numbers end it."""
    parts = []
    for part in text.split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts) or (0,)
