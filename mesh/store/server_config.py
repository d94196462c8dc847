"""Configuration of the embedded store's servers, as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mesh.store.folder import HOST


def _text(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"


def _common(folder: Path, port: int, password: str) -> list[str]:
    return [
        f"bind {HOST}",
        f"port {port}",
        f"dir {_quoted(folder)}",
        f"logfile {_quoted(folder / 'server.log')}",
        "daemonize no",
        f"requirepass {password}",
    ]


def node_config(
    folder: Path, port: int, password: str, *, primary_port: int | None, priority: int = 100
) -> str:
    """A data node; `primary_port` None makes it the primary."""
    lines = [
        *_common(folder, port, password),
        f"masterauth {password}",
        "appendonly yes",
        "appendfsync everysec",
        # The AOF is enough; a snapshot now and then only costs a fork.
        'save ""',
        "maxmemory-policy noeviction",
        # A primary that was cut off with nobody stops taking writes.
        "min-replicas-to-write 1",
        "min-replicas-max-lag 2",
        "repl-timeout 5",
        "repl-ping-replica-period 1",
        "repl-backlog-size 64mb",
        "repl-diskless-sync-delay 0",
        f"replica-priority {priority}",
    ]
    if primary_port is not None:
        lines.append(f"replicaof {HOST} {primary_port}")
    return _text(lines)


def sentinel_config(
    folder: Path,
    port: int,
    password: str,
    *,
    name: str,
    primary_port: int,
    replica_ports: Sequence[int],
    own_id: str,
    others: Sequence[tuple[int, str]],
    down_after_ms: int,
    failover_timeout_ms: int,
) -> str:
    """A Sentinel that knows everyone from the start; it would take seconds to hear of the others.

    Ids are 40 hex digits; `others` are (port, id) of the other Sentinels.
    """
    return _text(
        [
            *_common(folder, port, password),
            f"sentinel myid {own_id}",
            f"sentinel monitor {name} {HOST} {primary_port} 2",
            f"sentinel auth-pass {name} {password}",
            f"sentinel sentinel-pass {password}",
            f"sentinel down-after-milliseconds {name} {down_after_ms}",
            f"sentinel failover-timeout {name} {failover_timeout_ms}",
            f"sentinel parallel-syncs {name} {len(replica_ports)}",
            *(f"sentinel known-replica {name} {HOST} {replica}" for replica in replica_ports),
            *(f"sentinel known-sentinel {name} {HOST} {other} {its}" for other, its in others),
        ]
    )


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
