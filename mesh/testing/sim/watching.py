"""Tells the checks what happens in a simulated mesh: in the store's nodes, at the supervisor, at the clients.

Real objects are looked into, not replaced: a node's function calls are read as the real library reads them,
and told once the real library has answered. What the mesh itself would be told is not enough; a commit
whose reply was lost has been accepted all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import hiredis
import msgpack

from mesh.client.aio import AsyncClient
from mesh.core.calling import Call
from mesh.core.epochs import NOT_HELD, unpack_epochs
from mesh.core.lanes import LANES
from mesh.core.life_numbers import count_of
from mesh.core.messages import Beat, Grant, Message
from mesh.core.outbox import Batch
from mesh.core.records import CommitReply, Verdict
from mesh.core.signals import TellGrant
from mesh.core.syncset import InSyncSet
from mesh.core.table import Table
from mesh.core.wire import Redirect
from mesh.node import Node
from mesh.store.library import function
from mesh.supervisor import Supervisor
from mesh.testing.sim.checks import Checks
from mesh.testing.sim.store.server import Server

_COMMIT, _TAKEOVER, _OPEN_LIFE = map(function, ("commit", "takeover", "open_life"))
_BID, _CHANGE_SET = map(function, ("bid", "change_set"))
_WATCHED = frozenset((_COMMIT, _TAKEOVER, _OPEN_LIFE, _BID, _CHANGE_SET))
_WRITTEN = 0


class StoreWatch:
    """Of one start of one node.

    Args:
        name: of the node.
        now: virtual seconds.
        note: adds a line to the trace.
    """

    def __init__(
        self,
        name: str,
        server: Server,
        checks: Checks,
        now: Callable[[], float],
        note: Callable[[str, str], None],
    ) -> None:
        self._name = name
        self._server = server
        self._checks = checks
        self._now = now
        self._note = note
        self._operation = self._set_operation = b""
        self._call: Callable[..., Any] = server.call_function
        server.call_function = self._watched  # type: ignore[method-assign,assignment]

    def _watched(
        self, client: Any, called: Any, keys: list[bytes], args: list[bytes], **options: Any
    ) -> Any:
        answer = self._call(client, called, keys, args, **options)
        name = called.name
        if name in _WATCHED:
            reply = _read(answer)
            if isinstance(reply, list) and reply and reply[0] == b"ok":
                if name == _TAKEOVER:
                    self._taken_over(args)
                elif name == _OPEN_LIFE:
                    self._opened(args)
                elif name == _BID:
                    self._bid(args)
                elif name == _CHANGE_SET:
                    self._set_changed(args)
                elif name in (_BID, _CHANGE_SET):
                    self._led(name, args, reply[1])
                elif not reply[2]:
                    self._committed(keys, args, reply[3])
        return answer

    def _committed(self, keys: list[bytes], args: list[bytes], verdicts: Sequence[int]) -> None:
        life, _, lane, seq, _, flat = _arguments(args)
        nonce = bytes.fromhex(keys[1].rpartition(b":")[2].decode())
        tenures = [
            (partition, int.from_bytes(epoch, "big"))
            for partition, epoch, verdict in zip(flat[::4], flat[1::4], verdicts, strict=True)
            if verdict == _WRITTEN
        ]
        self._checks.wrote(("batch", nonce, lane, seq), self._server.stream.offset)
        self._checks.committed(self._now(), self._name, life, nonce, lane, seq, tenures)

    def _taken_over(self, args: list[bytes]) -> None:
        operation, _, _, nonces, _, revoke, moves, *_ = _arguments(args)
        if operation == self._operation:
            return
        self._operation = operation
        at = self._now()
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

    def _opened(self, args: list[bytes]) -> None:
        operation, _, number, token, _, _, version, *_ = _arguments(args)
        if operation == self._operation:
            return
        self._operation = operation
        at, checks = self._now(), self._checks
        checks.life_opened(at, self._name, self._server.run_id, number, token)
        checks.set_recorded(at, self._name, number, version)
        self._note(self._name, f"life {count_of(number)} opened for token {token}")

    def _bid(self, args: list[bytes]) -> None:
        operation, life, _, token, _, blob, *_ = _arguments(args)
        if operation == self._operation:
            return
        self._operation = operation
        self._checks.led(self._now(), self._name, self._server.run_id, life, token)
        self._note(self._name, f"token {token} bids in life {count_of(life)}")
        if blob:
            self._set_is(life, blob)

    def _set_changed(self, args: list[bytes]) -> None:
        operation, life, _, blob, *_ = _arguments(args)
        if operation == self._set_operation:
            return
        self._set_operation = operation
        self._set_is(life, blob)

    def _set_is(self, life: int, blob: bytes) -> None:
        recorded = InSyncSet.decode(blob)
        self._checks.set_recorded(self._now(), self._name, life, recorded.version)
        members = ", ".join(sorted(recorded.members))
        self._note(
            self._name, f"set {recorded.version} of life {count_of(life)}: {members or 'nobody'}"
        )

    def _led(self, name: bytes, args: list[bytes], sync_set: bytes) -> None:
        operation, life, _, token, *_ = _arguments(args)
        if operation == self._set_operation:
            return
        self._set_operation = operation
        version = InSyncSet.decode(sync_set).version
        self._checks.set_recorded(self._now(), self._name, life, version)
        told = f"token {token} leads" if name == _BID else "the set is another"
        self._note(self._name, f"life {count_of(life)}: {told}, set {version}")


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


def watch_tables(
    who: str, holder: AsyncClient | Node, checks: Checks, now: Callable[[], float]
) -> None:
    """Tell of each table that a client or a handler takes up."""
    core: Any = holder._core
    take = core.on_table

    def on_table(table: Table, at: float) -> Any:
        before = core.table
        result = take(table, at)
        if core.table is not before:
            _tell(who, table, checks, now())
        return result

    core.on_table = on_table


def watch_redirects(
    who: str, client: AsyncClient, checks: Checks, now: Callable[[], float]
) -> None:
    """Tell of each redirect that a client gets."""
    core: Any = client._core
    learn = core._learn

    def on_redirect(redirect: Redirect, call: Call, at: float) -> None:
        checks.redirected(now(), who, redirect.partition, call.epoch or 0, redirect.epoch)
        learn(redirect, call, at)
        checks.grows(
            now(), who, f"route of {redirect.partition}", core.owner(redirect.partition).epoch
        )

    core._learn = on_redirect


def watch_tenures(who: str, node: Node, checks: Checks, now: Callable[[], float]) -> None:
    """Tell of each partition that a handler takes up."""
    core: Any = node._core
    tell = core.on_tenure

    def on_tenure(what: str, partition: int, epoch: int) -> None:
        if what == "adopted":
            checks.adopted(now(), who, partition, epoch, node.nonce)
        tell(what, partition, epoch)

    core.on_tenure = on_tenure


def watch_grants(who: str, node: Node, checks: Checks, now: Callable[[], float]) -> None:
    """Tell of each grant that a handler takes for a leader's word."""
    core: Any = node._core
    take = core.on_grant

    def on_grant(message: Grant, at: float) -> None:
        before = core.grant
        take(message, at)
        if core.grant != before:
            checks.obeyed(now(), who, message.token, message.life, message.version)

    core.on_grant = on_grant


def watch_commits(
    who: str,
    node: Node,
    checks: Checks,
    now: Callable[[], float],
    members: Callable[[], dict[str, int]],
) -> None:
    """Tell of each batch whose callers a handler answers.

    Args:
        members: see Checks.relied_on.
    """
    core: Any = node._core
    judge = core.on_commit

    def on_commit(batch: Batch, reply: CommitReply, at: float) -> Any:
        is_over = judge(batch, reply, at)
        # What only the primary has to have says nothing of members.
        if is_over and Verdict.APPLIED in reply.verdicts and LANES[batch.lane] != "async":
            checks.relied_on(now(), who, ("batch", node.nonce, batch.lane, batch.seq), members())
        return is_over

    core.on_commit = on_commit


def watch_supervisor(
    who: str,
    supervisor: Supervisor,
    checks: Checks,
    now: Callable[[], float],
    note: Callable[[str, str], None],
    words: Callable[[dict[str, Any]], str],
    members: Callable[[], dict[str, int]],
) -> None:
    """Tell of what it records, of the beats that reach it, and of the grants and tables that it tells.

    Args:
        members: see Checks.relied_on.
    """
    hear, record = supervisor.on_message, supervisor.journal.record
    perform = supervisor.leader.perform
    told: list[Table] = []

    def on_message(conn: Any, message: Message) -> None:
        if isinstance(message, Beat):
            b = message
            handler = b.nonce.hex()[:8]
            judge = supervisor.links.nonce.hex()[:8]
            checks.handler_counts(
                now(), judge, handler, b.done, b.entity_errors, b.not_executed, b.unknown
            )
        hear(conn, message)

    def on_record(kind: str, fields: dict[str, Any], ago_s: float = 0.0) -> None:
        note(who, words({"kind": kind, "at": 0.0, **fields}))
        if kind == "leading":
            checks.token_seen(now(), who, fields["token"])
            checks.life_seen(now(), who, fields["life"])
        elif kind == "loss_possible":
            checks.loss_reported(now(), who, words({"kind": kind, "at": 0.0, **fields}))
        record(kind, fields, ago_s)

    def rely(epochs: Sequence[int]) -> None:
        at, has = now(), members()
        for partition, epoch in enumerate(epochs):
            if epoch != NOT_HELD:
                checks.relied_on(at, who, ("partition", partition, epoch), has)

    def on_effect(effect: Any) -> None:
        table = getattr(effect, "table", None)
        if isinstance(table, Table) and table not in told:
            told[:] = [table]
            _tell(who, table, checks, now())
            rely(table.epochs)
        elif isinstance(effect, TellGrant) and effect.grant.active:
            epochs = unpack_epochs(effect.grant.epochs)
            checks.told(effect.nonce, epochs)
            rely(epochs)
        perform(effect)

    supervisor.on_message = on_message  # type: ignore[method-assign]
    supervisor.journal.record = on_record  # type: ignore[method-assign]
    supervisor._lives._record = on_record  # it has the journal's own
    supervisor.leader.perform = on_effect  # type: ignore[method-assign]


def _tell(who: str, table: Table, checks: Checks, at: float) -> None:
    version = table.version
    owners = [table.owner(p).handler.nonce for p in range(len(table))]
    checks.table_seen(
        at, who, (version.life, version.token, version.number), owners, list(table.epochs)
    )
