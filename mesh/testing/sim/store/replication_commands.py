"""The commands of replication: who follows whom, how far, and who waits for that."""

from __future__ import annotations

from mesh.testing.sim.store.follower import follow
from mesh.testing.sim.store.links import Link
from mesh.testing.sim.store.replies import (
    OK,
    Encoded,
    Fault,
    Reply,
    Status,
    encode,
    integer,
    shown,
)
from mesh.testing.sim.store.server import Args, Handler, Server
from mesh.testing.sim.store.session import NO_REPLY, Session

_ON_A_REPLICA = (
    "ERR {} cannot be used with replica instances. Please also note that if a replica is configured "
    "to be writable (which is not the default) writes to replicas are just local and are not "
    "propagated."
)


class ReplicationCommands:
    """Waiting for replicas, being one, having one."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.table: dict[str, Handler] = {
            "wait": self._wait,
            "waitaof": self._waitaof,
            "replicaof": self._replicaof,
            "slaveof": self._replicaof,
            "replconf": self._replconf,
            "psync": self._psync,
        }

    def _wait(self, client: Session, args: Args) -> Reply:
        if self._server.follower is not None:
            raise Fault(_ON_A_REPLICA.format("WAIT"))
        count, timeout_ms = integer(args[0]), _timeout_ms(args[1])
        links = self._server.links

        def enough(offset: int, count: int) -> bool:
            return links.reached(offset) >= count

        reached = links.reached(client.written)
        if reached >= count or self._server.never_blocks:
            return reached
        self._server.wake()
        return links.wait(client, timeout_ms / 1000, count, links.reached, enough)

    def _waitaof(self, client: Session, args: Args) -> Reply:
        local, count, timeout_ms = integer(args[0]), integer(args[1]), _timeout_ms(args[2])
        if not 0 <= local <= 1:
            raise Fault("ERR value is out of range, must be between 0 and 1")
        if self._server.follower is not None:
            raise Fault(_ON_A_REPLICA.format("WAITAOF"))
        if local and not self._server.settings.holds("appendonly"):
            raise Fault(
                "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled."
            )
        links = self._server.links

        def reached(offset: int) -> Reply:
            return [int(self._server.synced_offset >= offset), links.synced(offset)]

        def enough(offset: int, count: int) -> bool:
            return self._server.synced_offset >= offset * local and links.synced(offset) >= count

        if self._server.never_blocks or enough(client.written, count):
            return reached(client.written)
        self._server.wake()
        return links.wait(client, timeout_ms / 1000, count, reached, enough)

    def _replicaof(self, client: Session, args: Args) -> Reply:
        host, port = args
        if (host.lower(), port.lower()) == (b"no", b"one"):
            self._server.promote()
            return OK
        number = integer(port)
        if not 0 < number < 65_536:
            raise Fault("ERR Invalid master port")
        follower = self._server.follower
        if follower is not None and (follower.host, follower.port) == (host.decode(), number):
            return Status(b"OK Already connected to specified master")
        follow(self._server, host.decode(), number)
        return OK

    def _replconf(self, client: Session, args: Args) -> Reply:
        if args[0] == b"ACK" and len(args) > 1:
            link = self._server.links.of(client)
            if link is not None:
                synced = integer(args[3]) if len(args) > 3 else 0
                first = not link.online
                self._server.links.confirm(link, integer(args[1]), synced, self._server.now)
                if first:
                    self._server.count_replicas()
            return NO_REPLY
        if args[0].lower() == b"listening-port" and len(args) == 2:
            client.listening_port = integer(args[1])
            return OK
        raise Fault(f"ERR Unrecognized REPLCONF option: {shown(args[0])}")

    def _psync(self, client: Session, args: Args) -> Reply:
        if self._server.follower is not None and self._server.follower.state != "connected":
            raise Fault("NOMASTERLINK Can't SYNC while not connected with my master")
        stream = self._server.stream
        self._server.wake()
        self._server.links.flush()
        rest = stream.since(args[0].decode(), integer(args[1]))
        self._server.links.attach(Link(client, self._server.now))
        if rest is not None:
            self._server.partial_resyncs += 1
            return Encoded(b"+CONTINUE %b\r\n%b" % (stream.id.encode(), rest))
        self._server.full_resyncs += 1
        self._server.name_database_anew()
        follower = self._server.follower
        database = 0 if follower is None else follower.database
        said = b"+FULLRESYNC %b %d %d\r\n" % (stream.id.encode(), stream.offset, database)
        return Encoded(said + encode(self._server.data.dump()))


def _timeout_ms(argument: bytes) -> int:
    try:
        number = integer(argument)
    except Fault:
        raise Fault("ERR timeout is not an integer or out of range") from None
    if number < 0:
        raise Fault("ERR timeout is negative")
    return number
