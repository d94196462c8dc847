"""INFO and ROLE: what a node says of itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mesh.testing.sim.store.replies import Encoded, Reply
from mesh.testing.sim.store.server import Server

_VERSION = "8.1.8"

Fields = dict[str, object]


def role(server: Server) -> Reply:
    """ROLE."""
    follower = server.follower
    if follower is not None:
        offset = server.stream.offset if follower.state == "connected" else -1
        return [
            b"slave",
            follower.host.encode(),
            follower.port,
            follower.state.encode(),
            offset,
        ]
    links = [link.role for link in server.links.all if link.confirmed >= 0]
    head = b"*3\r\n$6\r\nmaster\r\n:%d\r\n*%d\r\n" % (server.stream.offset, len(links))
    return Encoded(head + b"".join(links))


def _server(server: Server) -> Fields:
    return {
        "redis_version": "7.2.4",
        "server_name": "valkey",
        "valkey_version": _VERSION,
        "redis_mode": "standalone",
        "run_id": server.run_id,
        "tcp_port": server.port,
        "uptime_in_seconds": int(server.now - server.started_at),
    }


def _memory(server: Server) -> Fields:
    return {
        "used_memory": server.data.used_memory(),
        "maxmemory": server.settings.text("maxmemory"),
        "maxmemory_policy": server.settings.text("maxmemory-policy"),
    }


def _persistence(server: Server) -> Fields:
    return {
        "loading": int(server.loading),
        "aof_enabled": int(server.settings.holds("appendonly")),
    }


def _replication(server: Server) -> Fields:
    stream, follower = server.stream, server.follower
    fields: Fields = {"role": "master" if follower is None else "slave"}
    if follower is not None:
        up = follower.state == "connected"
        fields |= {
            "master_host": follower.host,
            "master_port": follower.port,
            "master_link_status": "up" if up else "down",
            "master_last_io_seconds_ago": int(server.now - follower.heard_at) if up else -1,
            "master_sync_in_progress": int(follower.state == "sync"),
            "slave_repl_offset": stream.offset,
        }
        if follower.down_since is not None:
            fields["master_link_down_since_seconds"] = int(server.now - follower.down_since)
        fields |= {
            "slave_priority": server.settings.text("replica-priority"),
            "slave_read_only": int(server.settings.holds("replica-read-only")),
        }
    fields["connected_slaves"] = len(server.links.all)
    if server.settings.number("min-replicas-to-write"):
        fields["min_slaves_good_slaves"] = server.links.good
    for number, link in enumerate(server.links.all):
        state = "online" if link.online else "send_bulk"
        fields[f"slave{number}"] = (
            f"ip={link.host},port={link.port},state={state},offset={max(0, link.confirmed)},"
            f"lag={int(server.now - link.heard_at)}"
        )
    return fields | {
        "master_replid": stream.id,
        "master_replid2": stream.former_id or "0" * 40,
        "master_repl_offset": stream.offset,
        "second_repl_offset": stream.former_offset,
    }


def _stats(server: Server) -> Fields:
    return {"sync_full": server.full_resyncs, "sync_partial_ok": server.partial_resyncs}


def _commandstats(server: Server) -> Fields:
    return {f"cmdstat_{name}": f"calls={count}" for name, count in server.calls.items()}


_SECTIONS: dict[str, Callable[[Server], Fields]] = {
    "server": _server,
    "memory": _memory,
    "persistence": _persistence,
    "stats": _stats,
    "replication": _replication,
    "commandstats": _commandstats,
}
_BY_DEFAULT = ("server", "memory", "persistence", "stats", "replication")


def info(server: Server, sections: Sequence[bytes]) -> bytes:
    """INFO [section ...]."""
    wanted = [section.decode(errors="replace").lower() for section in sections]
    if not wanted or "default" in wanted:
        wanted += _BY_DEFAULT
    if "all" in wanted or "everything" in wanted:
        wanted += _SECTIONS
    texts = []
    for name in dict.fromkeys(wanted):
        if name in _SECTIONS:
            lines = "".join(f"{key}:{value}\r\n" for key, value in _SECTIONS[name](server).items())
            texts.append(f"# {name.capitalize()}\r\n{lines}")
    return "\r\n".join(texts).encode()
