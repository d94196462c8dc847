"""The commands that concern the node as a whole: what it is, how it is set up, its end."""

from __future__ import annotations

from mesh.testing.sim.store.info import info, role
from mesh.testing.sim.store.replies import (
    OK,
    Reply,
    no_subcommand,
)
from mesh.testing.sim.store.server import Args, Handler, Server
from mesh.testing.sim.store.session import NO_REPLY, Session

BOOTED_S = 1_700_000_000
"""The clock's seconds when the loop's own are 0."""


class NodeCommands:
    """Configuration and state."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.table: dict[str, Handler] = {
            "config": self._config,
            "info": self._info,
            "role": self._role,
            "time": self._time,
            "publish": self._publish,
            "debug": self._debug,
            "shutdown": self._shutdown,
        }

    def _config(self, client: Session, args: Args) -> Reply:
        match [args[0].upper(), *args[1:]]:
            case [b"GET", pattern, *more]:
                found: dict[str, str] = {}
                for wanted in (pattern, *more):
                    found |= self._server.settings.matching(wanted)
                return [text.encode() for pair in found.items() for text in pair]
            case [b"SET", *pairs] if pairs and len(pairs) % 2 == 0:
                for name, value in zip(pairs[::2], pairs[1::2], strict=True):
                    self._server.settings.set(name.decode(), value.decode())
                self._server.count_replicas()
                return OK
            case [b"REWRITE" | b"RESETSTAT"]:
                if args[0].upper() == b"RESETSTAT":
                    self._server.calls.clear()
                return OK
        raise no_subcommand("CONFIG", args[0])

    def _info(self, client: Session, args: Args) -> Reply:
        return info(self._server, args)

    def _role(self, client: Session, args: Args) -> Reply:
        return role(self._server)

    def _time(self, client: Session, args: Args) -> Reply:
        seconds, microseconds = divmod(round(self._server.loop.time() * 1_000_000), 1_000_000)
        return [b"%d" % (BOOTED_S + seconds), b"%d" % microseconds]

    def _publish(self, client: Session, args: Args) -> Reply:
        return self._server.publish(args[0], args[1])

    def _debug(self, client: Session, args: Args) -> Reply:
        match [args[0].upper(), *args[1:]]:
            case [b"SLEEP", seconds]:
                self._server.paused = True
                self._server.loop.call_later(float(seconds), self._server.resume)
                return OK
        raise no_subcommand("DEBUG", args[0])

    def _shutdown(self, client: Session, args: Args) -> Reply:
        self._server.shut_down()
        return NO_REPLY
