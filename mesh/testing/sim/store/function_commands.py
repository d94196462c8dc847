"""FUNCTION and FCALL."""

from __future__ import annotations

from mesh.testing.sim.store.replies import (
    Fault,
    Reply,
    integer,
    no_subcommand,
    shown,
)
from mesh.testing.sim.store.server import Args, Handler, Server
from mesh.testing.sim.store.session import Session


class FunctionCommands:
    """Libraries, and calls of their functions."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.table: dict[str, Handler] = {
            "function": self._function,
            "fcall": self._fcall,
            "fcall_ro": self._fcall_ro,
        }

    def _function(self, client: Session, args: Args) -> Reply:
        server, word = self._server, args[0].upper()
        if word in (b"LOAD", b"DELETE", b"FLUSH"):
            server.admit_write(more_memory=word == b"LOAD")
            reply = server.libraries.change(args)
            server.propagate(client.database, ([b"FUNCTION", *args],))
            return reply
        if word == b"LIST":
            return self._list(list(args[1:]))
        raise no_subcommand("FUNCTION", args[0])

    def _list(self, words: list[bytes]) -> Reply:
        pattern, with_code = b"*", False
        while words:
            match words.pop(0).upper():
                case b"LIBRARYNAME" if words:
                    pattern = words.pop(0)
                case b"WITHCODE":
                    with_code = True
                case other:
                    raise Fault(f"ERR Unknown argument {shown(other)}")
        return self._server.libraries.listed(pattern, with_code=with_code)

    def _fcall(self, client: Session, args: Args) -> Reply:
        return self._call(client, args, read_only=False)

    def _fcall_ro(self, client: Session, args: Args) -> Reply:
        return self._call(client, args, read_only=True)

    def _call(self, client: Session, args: Args, *, read_only: bool) -> Reply:
        function = self._server.libraries.function(args[0])
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
        return self._server.call_function(client, function, keys, rest, read_only=read_only)
