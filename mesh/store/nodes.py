"""Each of a store's nodes by itself, and its Sentinels, as the leader asks them.

Every server is asked over a connection that is kept: what it says next is then known to come from the same
process, and an order that follows on it can reach no other. One that is stopped costs one round a little
time and the following none: it is not waited for again before it has answered.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from mesh.core.storeview import NodeSeen, ReplicaSeen, SentinelSeen, StoreSeen
from mesh.core.syncset import Role
from mesh.store.address import StoreAddress
from mesh.store.api import StoreRefused, StoreUnreachable
from mesh.store.calls import LIFE_FIELDS, read_life
from mesh.store.refusal import ServerError
from mesh.store.resp import Connection, connect, pack

log = logging.getLogger("mesh.store")

LOOK_S = 0.1
"""How long a round waits for those that have not answered."""
ANSWER_S = 1.0
"""An answer later than this ends the connection."""
LETTER_S = 600.0
"""How long a stopped node may take to read what was sent to it."""
_MOST_SERVERS = 64


class RedisNodes:
    """See mesh.store.api.StoreNodes.

    Args:
        address: nodes, or Sentinels that name them.
        life_key, leader_key: where the mesh's records are.
    """

    def __init__(
        self,
        address: StoreAddress,
        *,
        tls: ssl.SSLContext | None,
        life_key: bytes,
        leader_key: bytes,
    ) -> None:
        self._address = address
        self._tls = tls
        self._master = address.sentinels.master if address.sentinels else ""
        self._node_commands = (
            pack("TIME"),
            pack("ROLE"),
            pack("INFO", "replication"),
            pack("HMGET", life_key, *LIFE_FIELDS),
            pack("HGET", leader_key, "token"),
            pack("CONFIG", "GET", "*append*"),
        )
        self._sentinel_commands = (
            pack("SENTINEL", "MASTER", self._master),
            pack("SENTINEL", "REPLICAS", self._master),
            pack("SENTINEL", "SENTINELS", self._master),
            pack("INFO", "sentinel"),
        )
        self._nodes = {f"{host}:{port}": _Server(host, port) for host, port in address.nodes}
        watched_by = address.sentinels.nodes if address.sentinels else ()
        self._sentinels = {f"{host}:{port}": _Server(host, port) for host, port in watched_by}
        self._watchers = len(self._sentinels)
        self._turn = 0
        """Which Sentinel is asked to fail over."""
        self._letters: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<RedisNodes {sorted(self._nodes)}, Sentinels {sorted(self._sentinels)}>"

    async def look(self, *, sentinels: bool) -> StoreSeen:
        if self._sentinels and not self._nodes:
            self._learn(await self._ask_sentinels())
        nodes = await self._ask_nodes()
        for node in nodes:
            self._add(self._nodes, (name for name, _ in node.links))
        said = await self._ask_sentinels() if sentinels and self._sentinels else []
        self._learn(said)
        return StoreSeen(tuple(nodes), tuple(said), self._watchers, self._address.managed)

    def follow(self, node: str, primary: str) -> None:
        host, _, port = primary.rpartition(":")
        server = self._server(node)
        if server is not None:
            server.tell(pack("REPLICAOF", host, port))

    def set_priority(self, node: str, priority: int) -> None:
        host, _, port = node.rpartition(":")
        command = pack("CONFIG", "SET", "replica-priority", priority)
        self._post(self._send(host, int(port), command))

    def fail_over(self, node: str) -> None:
        self.set_priority(node, 1)
        # One Sentinel, which has just answered: it asks no other, and two of them would promote two nodes and
        # each have the other's follow its own. The next time it is another one's turn.
        alert = [s for s in self._sentinels.values() if s.asking is None and s.is_connected]
        if alert:
            alert[self._turn % len(alert)].tell(pack("SENTINEL", "FAILOVER", self._master))
            self._turn += 1

    def end_tilt(self, sentinels: tuple[str, ...], tilt_ms: int) -> None:
        for sentinel in self._sentinels.values():
            if sentinel.name in sentinels:
                sentinel.tell(pack("SENTINEL", "DEBUG", "tilt-period", tilt_ms))

    async def close(self) -> None:
        servers = [*self._nodes.values(), *self._sentinels.values()]
        tasks = [*self._letters, *(server.asking for server in servers if server.asking)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in servers:
            if server.connection is not None:
                await server.connection.close()

    def _server(self, name: str) -> _Server | None:
        return next((server for server in self._nodes.values() if server.name == name), None)

    def _learn(self, said: Sequence[SentinelSeen]) -> None:
        """Of further nodes, and of how many Sentinels there are."""
        for sentinel in said:
            self._watchers = max(self._watchers, 1 + sentinel.others)
            self._add(self._nodes, (sentinel.primary, *sentinel.replicas))

    @staticmethod
    def _add(servers: dict[str, _Server], names: Iterable[str]) -> None:
        known = {server.name for server in servers.values()}
        for name in names:
            host, _, port = name.rpartition(":")
            is_new = name not in known and name not in servers
            if is_new and host and port != "0" and len(servers) < _MOST_SERVERS:
                servers[name] = _Server(host, int(port))

    async def _ask_nodes(self) -> list[NodeSeen]:
        servers = list(self._nodes.values())
        await self._round(servers, self._node_commands, is_sentinel=False)
        seen = [_node(server, server.take()) for server in servers]
        by_name = {node.name: node for node in seen if node}
        return list(by_name.values())

    async def _ask_sentinels(self) -> list[SentinelSeen]:
        servers = list(self._sentinels.values())
        await self._round(servers, self._sentinel_commands, is_sentinel=True)
        seen = []
        for server in servers:
            replies = server.take()
            found = _sentinel(server, replies)
            if found is not None:
                seen.append(found)
                others = _rows(replies[2])
                self._add(self._sentinels, map(_address_of, others))
        by_name = {sentinel.name: sentinel for sentinel in seen}
        return list(by_name.values())

    async def _round(
        self, servers: Sequence[_Server], commands: Sequence[bytes], *, is_sentinel: bool
    ) -> None:
        fresh = [server for server in servers if server.asking is None]
        for server in fresh:
            server.asking = asyncio.get_running_loop().create_task(
                self._ask(server, commands, is_sentinel=is_sentinel)
            )
        tasks = [server.asking for server in fresh if server.asking is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=LOOK_S)

    async def _ask(
        self, server: _Server, commands: Sequence[bytes], *, is_sentinel: bool
    ) -> list[Any]:
        try:
            # One limit for all of it: logging in may take two attempts.
            async with asyncio.timeout(2 * ANSWER_S):
                if server.connection is None or server.connection.closed:
                    server.connection = await self._connected(server, is_sentinel=is_sentinel)
                return await server.connection.execute(*commands, within_s=ANSWER_S)
        except (StoreUnreachable, StoreRefused, TimeoutError) as error:
            log.debug("%s does not say what it is: %s", server.name, error)
            if server.connection is not None:
                server.connection.abort(str(error))
            return []

    async def _connected(self, server: _Server, *, is_sentinel: bool) -> Connection:
        connection = await self._logged_in(server, is_sentinel=is_sentinel)
        server.peer = connection.peer
        (info,) = await connection.execute(pack("INFO", "server"), within_s=ANSWER_S)
        told = _fields(info)
        server.run_id = told.get("run_id", "")
        server.pid = int(told.get("process_id", 0))
        return connection

    async def _logged_in(self, server: _Server, *, is_sentinel: bool) -> Connection:
        """With a Sentinel as mesh.store.sentinel does."""
        address, sentinels = self._address, self._address.sentinels

        async def attempt(username: str | None, password: str | None) -> Connection:
            return await connect(
                server.host,
                server.port,
                tls=self._tls,
                username=username,
                password=password,
                database=0 if is_sentinel else address.database,
                client_name=f"raymesh-{address.mesh}",
                within_s=ANSWER_S,
            )

        if is_sentinel and sentinels is not None and sentinels.password is not None:
            return await attempt(sentinels.username, sentinels.password)
        try:
            return await attempt(address.username, address.password)
        except StoreRefused as error:
            if not is_sentinel or error.code != "WRONGPASS":
                raise
        return await attempt(None, None)

    async def _send(self, host: str, port: int, command: bytes) -> None:
        """To a server that may be stopped: its kernel takes it, and it is read before anything later.

        Logging in is not waited for, so that the command is there as well.
        """
        connection = Connection(f"{host}:{port}")
        login = []
        if self._address.password is not None:
            login = [pack("AUTH", self._address.username or "default", self._address.password)]
        try:
            async with asyncio.timeout(ANSWER_S):
                await asyncio.get_running_loop().create_connection(
                    lambda: connection, host, port, ssl=self._tls
                )
            *_, said = await connection.execute(*login, command, within_s=LETTER_S)
            if isinstance(said, ServerError):
                log.warning("store %s:%d did not take its priority: %s", host, port, said)
        except (OSError, TimeoutError, StoreUnreachable) as error:
            log.debug("store %s:%d was not told its priority: %s", host, port, error)
        finally:
            connection.abort()

    def _post(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._letters.add(task)
        task.add_done_callback(self._letters.discard)


class _Server:
    """One server's connection, and what was asked on it."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.peer = ""
        self.run_id = ""
        self.pid = 0
        self.connection: Connection | None = None
        self.asking: asyncio.Task[list[Any]] | None = None

    @property
    def name(self) -> str:
        return self.peer or f"{self.host}:{self.port}"

    @property
    def is_connected(self) -> bool:
        return self.connection is not None and not self.connection.closed

    def take(self) -> list[Any]:
        """The answer, if it is there; [] else."""
        asked = self.asking
        if asked is None or not asked.done():
            return []
        self.asking = None
        return [] if asked.cancelled() else asked.result()

    def tell(self, command: bytes) -> None:
        """Send an order; what becomes of it the next looks show."""
        connection = self.connection
        if connection is None or connection.closed:
            return

        def then(replies: list[Any] | StoreUnreachable) -> None:
            said = replies if isinstance(replies, StoreUnreachable) else replies[0]
            if isinstance(said, (StoreUnreachable, ServerError)):
                log.info("%s did not take an order: %s", self.name, said)

        try:
            connection.send(command, 1, ANSWER_S, then)
        except StoreUnreachable as error:
            log.info("%s did not take an order: %s", self.name, error)


def _node(server: _Server, replies: Sequence[Any]) -> NodeSeen | None:
    match replies:
        case [
            [bytes() as s, bytes() as us],
            list() as said,
            bytes() as info,
            list() as life,
            token,
            config,
        ]:
            clock_us = int(s) * 1_000_000 + int(us)
        case _:
            return None
    if isinstance(token, ServerError):
        return None
    told = _fields(info)
    histories = {told.get("master_replid", ""), told.get("master_replid2", "")} - {"", "0" * 40}
    role = Role.from_reply(said)
    common: dict[str, Any] = {
        "name": server.name,
        "run_id": server.run_id,
        "histories": frozenset(histories),
        "life": read_life(life, token),
        "clock_us": clock_us,
        "keeps_all": _syncs_each_write(config),
        "pid": server.pid,
    }
    if role is not None:
        return NodeSeen(offset=role.offset, links=role.links, **common)
    host, port = told.get("master_host", "?"), told.get("master_port", "0")
    return NodeSeen(
        offset=int(told.get("slave_repl_offset", 0)),
        follows=f"{host}:{port}",
        is_linked=told.get("master_link_status") == "up",
        priority=int(told.get("slave_priority", 100)),
        **common,
    )


def _syncs_each_write(config: object) -> bool:
    """Before anybody hears of it, not even a replica. Who may not ask that takes it for one that does not."""
    if not isinstance(config, list):
        return False
    told = dict(zip(config[::2], config[1::2], strict=False))
    paused = told.get(b"no-appendfsync-on-rewrite", b"no") == b"yes"
    return (told.get(b"appendonly"), told.get(b"appendfsync"), paused) == (b"yes", b"always", False)


def _sentinel(server: _Server, replies: Sequence[Any]) -> SentinelSeen | None:
    match replies:
        case [list() as primary, list() as replicas, list() as others, info]:
            row = dict(zip(primary[::2], primary[1::2], strict=False))
        case _:
            return None
    flags = row.get(b"flags", b"").split(b",")
    tilt = _fields(info).get("sentinel_tilt", "0")
    return SentinelSeen(
        name=server.name,
        primary=_address_of(row),
        primary_age_ms=int(row.get(b"last-ok-ping-reply", 0)),
        is_primary_down=any(flag in flags for flag in (b"s_down", b"o_down")),
        is_tilted=tilt != "0",
        down_after_ms=int(row.get(b"down-after-milliseconds", 0)),
        others=len(_rows(others)),
        replicas={
            _address_of(replica): ReplicaSeen(
                b"s_down" in replica.get(b"flags", b"").split(b","),
                int(replica.get(b"slave-priority", b"100")),
            )
            for replica in _rows(replicas)
        },
        pid=server.pid,
    )


def _address_of(row: dict[bytes, bytes]) -> str:
    return f"{row.get(b'ip', b'').decode()}:{row.get(b'port', b'0').decode()}"


def _rows(reply: Sequence[Any]) -> list[dict[bytes, bytes]]:
    return [dict(zip(row[::2], row[1::2], strict=False)) for row in reply]


def _fields(info: object) -> dict[str, str]:
    """The lines of an INFO reply; {} of an error."""
    text = info.decode(errors="replace") if isinstance(info, bytes) else ""
    lines = (line.split(":", 1) for line in text.splitlines())
    return {line[0]: line[1] for line in lines if len(line) == 2}
