"""The commands that concern the node itself: logins, clients, configuration, functions, replication."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from mesh.testing.sim.store.client import NO_REPLY, Client
from mesh.testing.sim.store.globs import is_match
from mesh.testing.sim.store.info import info, role
from mesh.testing.sim.store.links import Link
from mesh.testing.sim.store.lua import runtime
from mesh.testing.sim.store.replies import (
    OK,
    SYNTAX,
    Encoded,
    Fault,
    Reply,
    Status,
    encode,
    integer,
    shown,
)

if TYPE_CHECKING:
    from mesh.testing.sim.store.server import Server

Handler: TypeAlias = "Callable[[Server, Client, Sequence[bytes]], Reply]"
Args: TypeAlias = Sequence[bytes]


def _ping(server: Server, client: Client, args: Args) -> Reply:
    if len(args) > 1:
        raise Fault("ERR wrong number of arguments for 'ping' command")
    return args[0] if args else Status(b"PONG")


def _echo(server: Server, client: Client, args: Args) -> Reply:
    return args[0]


def _auth(server: Server, client: Client, args: Args) -> Reply:
    if len(args) > 2:
        raise Fault(SYNTAX)
    client.user = server.users.log_in(args)
    return OK


def _hello(server: Server, client: Client, args: Args) -> Reply:
    raise Fault("NOPROTO unsupported protocol version")


def _quit(server: Server, client: Client, args: Args) -> Reply:
    client.end()
    return OK


def _select(server: Server, client: Client, args: Args) -> Reply:
    number = integer(args[0])
    if not 0 <= number < len(server.data.databases):
        raise Fault("ERR DB index is out of range")
    client.database = number
    return OK


def _client(server: Server, client: Client, args: Args) -> Reply:
    match [args[0].upper(), *args[1:]]:
        case [b"SETNAME", name]:
            if any(byte <= 32 or byte > 126 for byte in name):
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
            return _kill(server, client, which)
        case [b"LIST"]:
            lines = [
                f"id={other.id} addr={other.host}:{other.port} name={shown(other.name)} "
                f"db={other.database} user={other.user.name if other.user else '(superuser)'}\n"
                for other in server.clients.values()
            ]
            return "".join(lines).encode()
    raise _subcommand("CLIENT", args)


def _kill(server: Server, client: Client, which: Sequence[bytes]) -> Reply:
    options = {which[i].upper(): which[i + 1] for i in range(0, len(which) - 1, 2)}
    skip_me = options.pop(b"SKIPME", b"yes").lower() == b"yes"
    if len(which) % 2 or options.keys() - {b"TYPE", b"ID", b"ADDR"}:
        raise Fault(SYNTAX)
    count = 0
    for other in list(server.clients.values()):
        told = {
            b"TYPE": b"replica" if other.link else b"normal",
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


def _acl(server: Server, client: Client, args: Args) -> Reply:
    match [args[0].upper(), *args[1:]]:
        case [b"WHOAMI"]:
            return client.user.name.encode() if client.user else None
        case [b"SETUSER", name, *rules]:
            server.users.set(name, rules)
            return OK
        case [b"DELUSER", name, *more]:
            gone = server.users.delete([name, *more])
            for other in list(server.clients.values()):
                if other.user in gone:
                    other.end() if other is client else other.kill()
            return len(gone)
    raise _subcommand("ACL", args)


def _config(server: Server, client: Client, args: Args) -> Reply:
    match [args[0].upper(), *args[1:]]:
        case [b"GET", pattern, *more]:
            found: dict[str, str] = {}
            for wanted in (pattern, *more):
                found |= server.settings.matching(wanted)
            return [text.encode() for pair in found.items() for text in pair]
        case [b"SET", *pairs] if pairs and len(pairs) % 2 == 0:
            for name, value in zip(pairs[::2], pairs[1::2], strict=True):
                server.settings.set(name.decode(), value.decode())
            server.count_replicas()
            return OK
        case [b"REWRITE" | b"RESETSTAT"]:
            if args[0].upper() == b"RESETSTAT":
                server.calls.clear()
            return OK
    raise _subcommand("CONFIG", args)


def _info(server: Server, client: Client, args: Args) -> Reply:
    return info(server, args)


def _role(server: Server, client: Client, args: Args) -> Reply:
    return role(server)


def _publish(server: Server, client: Client, args: Args) -> Reply:
    server.publish(args[0], args[1])
    return 0


def _wait(server: Server, client: Client, args: Args) -> Reply:
    if server.follower is not None:
        raise Fault(
            "ERR WAIT cannot be used with replica instances. Please also note that writes to "
            "replicas are just local and are not propagated."
        )
    count, timeout_ms = integer(args[0]), _timeout_ms(args[1])
    links = server.links

    def enough(offset: int, count: int) -> bool:
        return links.reached(offset) >= count

    if enough(client.written, count):
        return links.reached(client.written)
    return _blocked(server, client, timeout_ms, count, links.reached, enough)


def _waitaof(server: Server, client: Client, args: Args) -> Reply:
    local, count, timeout_ms = integer(args[0]), integer(args[1]), _timeout_ms(args[2])
    if not 0 <= local <= 1:
        raise Fault("ERR value is out of range, must be between 0 and 1")
    if server.follower is not None:
        raise Fault(
            "ERR WAITAOF cannot be used with replica instances. Please also note that writes to "
            "replicas are just local and are not propagated."
        )
    if local and not server.settings.holds("appendonly"):
        raise Fault("ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.")
    links = server.links

    def reached(offset: int) -> Reply:
        return [int(server.synced_offset >= offset), links.synced(offset)]

    def enough(offset: int, count: int) -> bool:
        return server.synced_offset >= offset * local and links.synced(offset) >= count

    if enough(client.written, count):
        return reached(client.written)
    return _blocked(server, client, timeout_ms, count, reached, enough)


def _blocked(
    server: Server,
    client: Client,
    timeout_ms: int,
    count: int,
    reached: Callable[[int], Reply],
    enough: Callable[[int, int], bool],
) -> Reply:
    server.links.wait(client, timeout_ms / 1000, count, reached, enough)
    server.wake()
    return NO_REPLY


def _timeout_ms(argument: bytes) -> int:
    try:
        number = integer(argument)
    except Fault:
        raise Fault("ERR timeout is not an integer or out of range") from None
    if number < 0:
        raise Fault("ERR timeout is negative")
    return number


def _replicaof(server: Server, client: Client, args: Args) -> Reply:
    host, port = args
    if (host.lower(), port.lower()) == (b"no", b"one"):
        server.promote()
        return OK
    number = integer(port)
    if not 0 < number < 65_536:
        raise Fault("ERR Invalid master port")
    follower = server.follower
    if follower is not None and (follower.host, follower.port) == (host.decode(), number):
        return Status(b"OK Already connected to specified master")
    server.follow(host.decode(), number)
    return OK


def _replconf(server: Server, client: Client, args: Args) -> Reply:
    match [args[0].lower(), *args[1:]]:
        case [b"listening-port", port]:
            client.listening_port = integer(port)
            return OK
        case [b"ack", offset, *more]:
            link = client.link
            if link is not None:
                synced = integer(more[1]) if len(more) > 1 else 0
                first = not link.online
                server.links.confirm(link, integer(offset), synced, server.now)
                if first:
                    server.count_replicas()
            return NO_REPLY
    raise Fault(f"ERR Unrecognized REPLCONF option: {shown(args[0])}")


def _psync(server: Server, client: Client, args: Args) -> Reply:
    if server.follower is not None and server.follower.state != "connected":
        raise Fault("NOMASTERLINK Can't SYNC while not connected with my master")
    stream = server.stream
    server.wake()
    server.links.flush()  # before this one is attached: what it lacks is sent with the answer
    rest = stream.since(args[0].decode(), integer(args[1]))
    server.links.attach(Link(client, server.now))
    if rest is not None:
        return Encoded(b"+CONTINUE %b\r\n%b" % (stream.id.encode(), rest))
    server.name_database_anew()
    whole = encode(server.data.dump())
    return Encoded(b"+FULLRESYNC %b %d\r\n%b" % (stream.id.encode(), stream.offset, whole))


def _debug(server: Server, client: Client, args: Args) -> Reply:
    match [args[0].upper(), *args[1:]]:
        case [b"SLEEP", seconds]:
            server.paused = True
            server.loop.call_later(float(seconds), server.resume)
            return OK
    raise _subcommand("DEBUG", args)


def _shutdown(server: Server, client: Client, args: Args) -> Reply:
    server.shut_down()
    return NO_REPLY


def _function(server: Server, client: Client, args: Args) -> Reply:
    match [args[0].upper(), *args[1:]]:
        case [b"LOAD" | b"DELETE" | b"FLUSH", *_]:
            server.admit_write()
            before = dict(server.data.libraries)
            reply = change_functions(server, args)
            if server.data.libraries != before or args[0].upper() == b"LOAD":
                server.propagate(client.database, ([b"FUNCTION", *args],))
            return reply
        case [b"LIST", *options]:
            return _list_functions(server, options)
    raise _subcommand("FUNCTION", args)


def change_functions(server: Server, args: Args) -> Reply:
    """FUNCTION LOAD, DELETE, FLUSH: of a client, of the primary, or from the disk."""
    match [args[0].upper(), *args[1:]]:
        case [b"LOAD", source]:
            return server.load_library(source, replace=False)
        case [b"LOAD", option, source] if option.upper() == b"REPLACE":
            return server.load_library(source, replace=True)
        case [b"DELETE", name]:
            if not server.delete_library(name):
                raise Fault("ERR Library not found")
            return OK
        case [b"FLUSH", *_]:
            for name in list(server.data.libraries):
                server.delete_library(name)
            return OK
    raise Fault(SYNTAX)


def _list_functions(server: Server, options: Sequence[bytes]) -> Reply:
    words = list(options)
    pattern, with_code = b"*", False
    while words:
        match words.pop(0).upper():
            case b"LIBRARYNAME" if words:
                pattern = words.pop(0)
            case b"WITHCODE":
                with_code = True
            case other:
                raise Fault(f"ERR Unknown argument {shown(other)}")
    listed: list[Reply] = []
    for name, source in server.data.libraries.items():
        if not is_match(pattern, name):
            continue
        functions: list[Reply] = [
            [
                b"name",
                function.name,
                b"description",
                None,
                b"flags",
                [Status(flag) for flag in sorted(function.flags)],
            ]
            for function in runtime().load(source).values()
        ]
        library: list[Reply] = [b"library_name", name, b"engine", b"LUA", b"functions", functions]
        listed.append([*library, b"library_code", source] if with_code else library)
    return listed


def _fcall(server: Server, client: Client, args: Args) -> Reply:
    return _call_function(server, client, args, read_only=False)


def _fcall_ro(server: Server, client: Client, args: Args) -> Reply:
    return _call_function(server, client, args, read_only=True)


def _call_function(server: Server, client: Client, args: Args, *, read_only: bool) -> Reply:
    function = server.functions.get(args[0])
    if function is None:
        raise Fault("ERR Function not found")
    try:
        count = integer(args[1])
    except Fault:
        raise Fault("ERR Bad number of keys provided") from None
    if count > len(args) - 2:
        raise Fault("ERR Number of keys can't be greater than number of args")
    if count < 0:
        raise Fault("ERR Number of keys can't be negative")
    keys, rest = list(args[2 : 2 + count]), list(args[2 + count :])
    if client.user is not None:
        client.user.check_keys(keys)
    if read_only and b"no-writes" not in function.flags:
        raise Fault("ERR Can not execute a script with write flag using *_ro command.")
    return server.call_function(client, function, keys, rest)


def _subcommand(name: str, args: Args) -> Fault:
    said = shown(args[0])
    return Fault(
        f"ERR unknown subcommand or wrong number of arguments for '{said}'. Try {name} HELP."
    )


BY_NAME: dict[str, Handler] = {
    "ping": _ping,
    "echo": _echo,
    "auth": _auth,
    "hello": _hello,
    "quit": _quit,
    "select": _select,
    "client": _client,
    "acl": _acl,
    "config": _config,
    "info": _info,
    "role": _role,
    "publish": _publish,
    "wait": _wait,
    "waitaof": _waitaof,
    "replicaof": _replicaof,
    "slaveof": _replicaof,
    "replconf": _replconf,
    "psync": _psync,
    "debug": _debug,
    "shutdown": _shutdown,
    "function": _function,
    "fcall": _fcall,
    "fcall_ro": _fcall_ro,
}
