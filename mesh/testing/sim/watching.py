"""Tells the checks what happens in a simulated mesh: at handlers, supervisors and clients.

Real objects are looked into, not replaced. What the store's nodes carry out is told by
mesh.testing.sim.store_watching.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from mesh.client.aio import AsyncClient
from mesh.core.call import Call
from mesh.core.epochs import NOT_HELD, unpack_epochs
from mesh.core.lanes import LANES
from mesh.core.messages import Beat, Grant, Message
from mesh.core.outbox import Batch
from mesh.core.records import CommitReply, Takeover, Verdict
from mesh.core.signals import CallStore, TellGrant
from mesh.core.table import Table
from mesh.core.tenure import Pending, Tenure
from mesh.core.wire import Redirect
from mesh.node import Node
from mesh.supervisor import Supervisor
from mesh.testing.sim.checks import Checks


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
    """Tell of each word that a handler takes for a leader's, and of the grants among them."""
    core: Any = node._core
    take, hear = core.on_grant, core.hears

    def hears(token: int) -> Any:
        heard = hear(token)
        if heard:
            checks.heeded(now(), who, token)
        return heard

    def on_grant(message: Grant, at: float) -> None:
        before = core.grant
        take(message, at)
        if core.grant != before:
            checks.obeyed(now(), who, message.life, message.version)

    core.hears = core._ownership.hears = hears
    core.on_grant = on_grant


def watch_queries(who: str, node: Node, checks: Checks, now: Callable[[], float]) -> None:
    """Tell of each query that a handler answers from memory."""
    calls: Any = node._core._calls
    answers, take = calls._answers, calls._step

    def on_step(tenure: Tenure, pending: Pending) -> Any:
        done = answers.done
        step = take(tenure, pending)
        if pending.method.query and answers.done > done:
            checks.answered(now(), who, tenure.partition, tenure.epoch)
        return step

    calls._step = on_step


def watch_commits(
    who: str,
    node: Node,
    checks: Checks,
    now: Callable[[], float],
    members: Callable[[], dict[str, int]],
) -> None:
    """Tell of each batch whose callers a handler answers, and of each renewal by which it takes its lease for
    renewed.

    Args:
        members: see Checks.relied_on.
    """
    core: Any = node._core
    judge, hear_renewed, send, renew = core.on_commit, core.on_renewed, core.send, core.renew
    lease = core.home.lease
    covered = lease.until

    def counted(renewal: int, *more: tuple[Hashable, ...]) -> None:
        nonlocal covered
        until, told = lease.until, more
        if until > covered:
            told = (("renewal", node.nonce, renewal), *more)
        covered = until
        if told:
            at, has = now(), members()
            for what in told:
                checks.relied_on(at, who, what, has)

    def on_send(batch: Batch, at: float) -> Any:
        renewal = send(batch, at)
        counted(renewal)
        return renewal

    def on_renew(at: float) -> Any:
        renewal = renew(at)
        counted(renewal)
        return renewal

    def on_renewed(renewal: int, *said: Any) -> None:
        hear_renewed(renewal, *said)
        counted(renewal)

    def on_commit(batch: Batch, reply: CommitReply, at: float) -> Any:
        is_over = judge(batch, reply, at)
        # What only the primary has to have says nothing of members.
        if is_over and Verdict.APPLIED in reply.verdicts and LANES[batch.lane] != "async":
            counted(batch.renewal, ("batch", node.nonce, batch.lane, batch.seq))
        else:
            counted(batch.renewal)
        return is_over

    core.on_commit, core.on_renewed = on_commit, on_renewed
    core.send, core.renew = on_send, on_renew


def watch_supervisor(
    who: str,
    supervisor: Supervisor,
    checks: Checks,
    now: Callable[[], float],
    note: Callable[[str, str], None],
    words: Callable[[dict[str, Any]], str],
) -> None:
    """Tell of what it records, and of the beats that reach it."""
    hear, record = supervisor.on_message, supervisor.journal.record

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

    supervisor.on_message = on_message  # type: ignore[method-assign]
    supervisor.journal.record = on_record  # type: ignore[method-assign]
    supervisor._lives._record = on_record  # it has the journal's own


def watch_leader(
    who: str,
    supervisor: Supervisor,
    checks: Checks,
    now: Callable[[], float],
    members: Callable[[], dict[str, int]],
) -> None:
    """Tell of the grants and tables that it tells while it leads, and of whom it means to give something.

    Args:
        members: see Checks.relied_on.
    """
    perform = supervisor.leader.perform
    told: list[Table] = []
    asked: list[bytes] = []

    def rely(epochs: Sequence[int]) -> None:
        at, has = now(), members()
        for partition, epoch in enumerate(epochs):
            if epoch != NOT_HELD:
                checks.relied_on(at, who, ("partition", partition, epoch), has)

    def give(call: Takeover) -> None:
        receivers = call.moves.receivers
        for nonce in {
            *receivers,
            *(nonce for nonce, _ in call.enroll),
        } & supervisor.candidate._exits.keys():
            moves = zip(call.moves.partitions, receivers, strict=True)
            checks.given(now(), who, nonce, [p for p, receiver in moves if receiver == nonce])

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
        elif isinstance(effect, CallStore) and effect.call.operation not in asked:
            asked[:] = [effect.call.operation]  # what is repeated was planned before
            give(effect.call)
        perform(effect)

    supervisor.leader.perform = on_effect  # type: ignore[method-assign]


def _tell(who: str, table: Table, checks: Checks, at: float) -> None:
    version = table.version
    owners = [table.owner(p).handler.nonce for p in range(len(table))]
    checks.table_seen(
        at, who, (version.life, version.token, version.number), owners, list(table.epochs)
    )
