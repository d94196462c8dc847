"""The commands that concern a connection: who speaks, under what name, to which database."""

from __future__ import annotations

from collections.abc import Sequence

from mesh.testing.sim.store.replies import (
    OK,
    SYNTAX,
    Encoded,
    Fault,
    Reply,
    Status,
    encode,
    integer,
    no_subcommand,
    shown,
)
from mesh.testing.sim.store.server import Args, Handler, Server
from mesh.testing.sim.store.session import Session

_IN_NAMES = bytes(range(33, 127))


class ConnectionCommands:
    """Logins, names, databases, and other people's connections."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.table: dict[str, Handler] = {
            "ping": self._ping,
            "echo": self._echo,
            "auth": self._auth,
            "hello": self._hello,
            "quit": self._quit,
            "select": self._select,
            "client": self._client,
            "acl": self._acl,
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "multi": self._multi,
            "exec": self._exec,
            "discard": self._discard,
        }

    def _ping(self, client: Session, args: Args) -> Reply:
        if len(args) > 1:
            raise Fault("ERR wrong number of arguments for 'ping' command")
        return args[0] if args else Status(b"PONG")

    def _echo(self, client: Session, args: Args) -> Reply:
        return args[0]

    def _auth(self, client: Session, args: Args) -> Reply:
        if len(args) > 2:
            raise Fault(SYNTAX)
        client.user = self._server.users.log_in(args)
        return OK

    def _hello(self, client: Session, args: Args) -> Reply:
        raise Fault("NOPROTO unsupported protocol version")

    def _quit(self, client: Session, args: Args) -> Reply:
        client.end()
        return OK

    def _select(self, client: Session, args: Args) -> Reply:
        number = integer(args[0])
        if not 0 <= number < len(self._server.data.databases):
            raise Fault("ERR DB index is out of range")
        client.database = number
        return OK

    def _client(self, client: Session, args: Args) -> Reply:
        match [args[0].upper(), *args[1:]]:
            case [b"SETNAME", name]:
                if name.translate(None, _IN_NAMES):
                    raise Fault(
                        "ERR Client names cannot contain spaces, newlines or special characters."
                    )
                client.name = name
                return OK
            case [b"GETNAME"]:
                return client.name or None
            case [b"SETINFO", _, _] | [b"NO-EVICT" | b"NO-TOUCH", _]:
                return OK
            case [b"ID"]:
                return client.id
            case [b"KILL", *which]:
                return self._kill(client, which)
            case [b"LIST"]:
                lines = [
                    f"id={other.id} addr={other.host}:{other.port} name={shown(other.name)} "
                    f"db={other.database} user={other.user.name if other.user else '(superuser)'}\n"
                    for other in self._server.clients.values()
                ]
                return "".join(lines).encode()
        raise no_subcommand("CLIENT", args[0])

    def _kill(self, client: Session, which: Sequence[bytes]) -> Reply:
        options = {which[i].upper(): which[i + 1] for i in range(0, len(which) - 1, 2)}
        skip_me = options.pop(b"SKIPME", b"yes").lower() == b"yes"
        if len(which) % 2 or options.keys() - {b"TYPE", b"ID", b"ADDR"}:
            raise Fault(SYNTAX)
        count = 0
        for other in list(self._server.clients.values()):
            told = {
                b"TYPE": _kind(other),
                b"ID": b"%d" % other.id,
                b"ADDR": f"{other.host}:{other.port}".encode(),
            }
            wanted = all(told[name] == value.lower() for name, value in options.items())
            if not wanted or (other is client and skip_me):
                continue
            count += 1
            if other is client:
                client.end()
            else:
                other.kill()
        return count

    def _acl(self, client: Session, args: Args) -> Reply:
        match [args[0].upper(), *args[1:]]:
            case [b"WHOAMI"]:
                return client.user.name.encode() if client.user else None
            case [b"SETUSER", name, *rules]:
                self._server.users.set(name, rules)
                return OK
            case [b"DELUSER", name, *more]:
                gone = self._server.users.delete([name, *more])
                for other in list(self._server.clients.values()):
                    if other.user in gone:
                        other.end() if other is client else other.kill()
                return len(gone)
        raise no_subcommand("ACL", args[0])

    def _subscribe(self, client: Session, args: Args) -> Reply:
        replies = []
        for channel in args:
            client.channels.add(channel)
            replies.append(encode([b"subscribe", channel, len(client.channels)]))
        return Encoded(b"".join(replies))

    def _unsubscribe(self, client: Session, args: Args) -> Reply:
        replies = []
        for channel in args or sorted(client.channels):
            client.channels.discard(channel)
            replies.append(encode([b"unsubscribe", channel, len(client.channels)]))
        return Encoded(b"".join(replies))

    def _multi(self, client: Session, args: Args) -> Reply:
        if client.queued is not None:
            raise Fault("ERR MULTI calls can not be nested")
        client.queued, client.spoilt = [], False
        return OK

    def _exec(self, client: Session, args: Args) -> Reply:
        return self._server.run_queued(client)

    def _discard(self, client: Session, args: Args) -> Reply:
        if client.queued is None:
            raise Fault("ERR DISCARD without MULTI")
        client.queued = None
        return OK


def _kind(client: Session) -> bytes:
    if client.is_replica:
        return b"replica"
    return b"pubsub" if client.channels else b"normal"
