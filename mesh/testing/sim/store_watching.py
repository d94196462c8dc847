"""Tells the checks what the nodes of a simulated store carry out.

A node's function calls are read as the real library reads them, and told once the real library has answered.
What the mesh itself would be told is not enough; a commit whose reply was lost has been accepted all the
same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hiredis
import msgpack

from mesh.core.life_numbers import count_of
from mesh.core.syncset import InSyncSet
from mesh.store.library import function
from mesh.testing.sim.checks import Checks
from mesh.testing.sim.store.node_commands import BOOTED_S
from mesh.testing.sim.store.server import Server

_COMMIT, _RENEW, _TAKEOVER = map(function, ("commit", "renew", "takeover"))
_OPEN_LIFE, _BID, _CHANGE_SET = map(function, ("open_life", "bid", "change_set"))
_BATCHES = frozenset((_COMMIT, _RENEW))
_WATCHED = frozenset((_COMMIT, _RENEW, _TAKEOVER, _OPEN_LIFE, _BID, _CHANGE_SET))
_WRITTEN = 0


class StoreWatch:
    """Of one start of one node.

    Args:
        name: of the node.
        now: virtual seconds.
        note: adds a line to the trace.
        sure_s: for how long Sentinels cannot come to another mind than the one that they have told.
    """

    def __init__(
        self,
        name: str,
        server: Server,
        checks: Checks,
        now: Callable[[], float],
        note: Callable[[str, str], None],
        sure_s: float,
    ) -> None:
        self._name = name
        self._server = server
        self._checks = checks
        self._now = now
        self._note = note
        self._operation = self._set_operation = b""
        self._sure_s = sure_s
        self._call: Callable[..., Any] = server.call_function
        server.call_function = self._watched  # type: ignore[method-assign,assignment]

    def _watched(
        self, client: Any, called: Any, keys: list[bytes], args: list[bytes], **options: Any
    ) -> Any:
        answer = self._call(client, called, keys, args, **options)
        name = called.name
        if name in _WATCHED:
            reply = _read(answer)
            if isinstance(reply, list) and reply:
                if reply[0] != b"ok":
                    if name == _TAKEOVER:
                        self._refused(args, reply[0])
                elif name in _BATCHES:
                    self._written(keys, args, reply)
                elif name == _TAKEOVER:
                    self._taken_over(args)
                elif name == _OPEN_LIFE:
                    self._opened(args)
                elif name == _BID:
                    self._bid(args)
                else:
                    self._set_changed(args)
        return answer

    def _written(self, keys: list[bytes], args: list[bytes], reply: list[Any]) -> None:
        """A batch, perhaps a repeated one, or one without entries: each renews a lease."""
        life, _, lane, seq, renewal, flat = _arguments(args)
        checks, offset = self._checks, self._server.stream.offset
        nonce = bytes.fromhex(keys[1].rpartition(b":")[2].decode())
        checks.took(self._now(), self._name, self._server.run_id, life)
        checks.wrote(("renewal", nonce, int.from_bytes(renewal, "big")), offset)
        if reply[2] or not flat:
            return
        tenures = [
            (partition, int.from_bytes(epoch, "big"))
            for partition, epoch, verdict in zip(flat[::4], flat[1::4], reply[3], strict=True)
            if verdict == _WRITTEN
        ]
        checks.wrote(("batch", nonce, lane, seq), offset)
        checks.committed(self._now(), self._name, life, nonce, lane, seq, tenures)

    def _taken_over(self, args: list[bytes]) -> None:
        operation, life, _, nonces, _, revoke, moves, *_ = _arguments(args)
        if operation == self._operation:
            return
        self._operation = operation
        at = self._now()
        self._checks.took(at, self._name, self._server.run_id, life)
        partitions, _, _, receivers, epochs = moves
        for index, partition in enumerate(partitions):
            receiver = receivers if isinstance(receivers, int) else receivers[index]
            epoch = epochs if isinstance(epochs, bytes) else epochs[index]
            nonce, number = nonces[receiver - 1], int.from_bytes(epoch, "big")
            self._checks.wrote(("partition", partition, number), self._server.stream.offset)
            self._checks.granted(at, self._name, partition, number, nonce)
        for index in revoke:
            self._checks.revoked(at, self._name, nonces[index - 1])
        self._note(self._name, f"takeover: {len(partitions)} moves, {len(revoke)} revoked")

    def _refused(self, args: list[bytes], status: bytes) -> None:
        operation, *_ = _arguments(args)
        if operation == self._operation:
            self._checks.forgotten(self._now(), self._name, operation, status.decode())

    def _opened(self, args: list[bytes]) -> None:
        operation, _, number, token, _, _, version, _, asked_at_us, *_ = _arguments(args)
        if operation == self._operation:
            return
        self._operation = operation
        at, checks = self._now(), self._checks
        checks.life_opened(at, self._name, self._server.run_id, number, token)
        checks.set_recorded(at, self._name, number, version)
        self._rests_on(version, asked_at_us)
        self._note(self._name, f"life {count_of(number)} opened for token {token}")

    def _bid(self, args: list[bytes]) -> None:
        operation, life, _, token, _, blob, *more = _arguments(args)
        if operation == self._operation:
            return
        self._operation = operation
        self._checks.led(self._now(), self._name, self._server.run_id, life, token)
        self._note(self._name, f"token {token} bids in life {count_of(life)}")
        if blob:
            self._set_is(life, blob, *more)

    def _set_changed(self, args: list[bytes]) -> None:
        operation, life, _, blob, *more = _arguments(args)
        if operation == self._set_operation:
            return
        self._set_operation = operation
        self._set_is(life, blob, *more)

    def _set_is(self, life: int, blob: bytes, asked_at_us: int, *_: int) -> None:
        recorded = InSyncSet.decode(blob)
        self._checks.set_recorded(self._now(), self._name, life, recorded.version)
        self._rests_on(recorded.version, asked_at_us)
        members = ", ".join(sorted(recorded.members))
        which = f"set {recorded.version} of life {count_of(life)}"
        self._note(self._name, f"{which}: {members or 'nobody'}")

    def _rests_on(self, version: int, asked_at_us: int) -> None:
        """What Sentinels said at that time by this node's clock; 0: nothing that they have said."""
        if asked_at_us:
            age_s = BOOTED_S + self._server.loop.time() - asked_at_us / 1_000_000
            self._checks.set_rests_on(self._now(), self._name, version, age_s, self._sure_s)


def _read(answer: Any) -> Any:
    """A function's reply, which may be in RESP already."""
    if not isinstance(answer, bytes):
        return answer
    reader = hiredis.Reader()
    reader.feed(bytes(answer))
    return reader.gets()


def _arguments(args: list[bytes]) -> list[Any]:
    blob = args[0] if len(args) == 1 else b"".join(args)
    values: list[Any] = msgpack.unpackb(blob, raw=True)
    return values
