"""The real code with one mechanism taken out, in this process, and back in afterwards.

    with MUTANTS["poison limit"].applied():
        ...                                   # every mesh that is simulated here lacks it

A mutant is a few replacements of text: in the source of a function, which is compiled anew and put in the
place of the old one's code, so that everybody who holds the function has the mutant; or in the store's
function library, which each simulated node loads. A text that is not there once is an error: the code has
changed, and the mutant would test nothing.
"""

from __future__ import annotations
import __future__

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from types import CodeType, FunctionType
from typing import Any

from mesh.store import library

LUA = "the function library"


class NotThere(AssertionError):
    """What a mutant replaces is not in the code any more."""


@dataclass(frozen=True)
class Edit:
    """One replacement.

    Attributes:
        where: "package.module:Class.method", "package.module:function", or LUA.
        old: a text that is there exactly once.
    """

    where: str
    old: str
    new: str

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Have it, for as long as the block lasts.

        Raises:
            NotThere: the text is not there, or more than once.
        """
        with self._in_library() if self.where == LUA else self._in_function():
            yield

    def _replaced(self, source: str) -> str:
        if (times := source.count(self.old)) != 1:
            raise NotThere(f"{self.where}: {self.old!r} is there {times} times, not once")
        return source.replace(self.old, self.new)

    @contextmanager
    def _in_library(self) -> Iterator[None]:
        before = library.source
        source = self._replaced(before())
        library.source = lambda: source  # type: ignore[assignment]
        try:
            yield
        finally:
            library.source = before

    @contextmanager
    def _in_function(self) -> Iterator[None]:
        function = find(self.where)
        before = function.__code__
        source = _SOURCES.get(before)
        if source is None:
            source = inspect.getsource(function)
        source = self._replaced(source)
        code = _compiled(source, function)
        _SOURCES[code] = source
        function.__code__ = code
        try:
            yield
        finally:
            function.__code__ = before


_SOURCES: dict[CodeType, str] = {}
"""Of code that a mutant has made: another edit of it goes on from there."""


def find(where: str) -> FunctionType:
    """The function of that name.

    Raises:
        NotThere: there is none.
    """
    module, _, path = where.partition(":")
    found: Any = import_module(module)
    for name in path.split("."):
        if name not in vars(found):
            raise NotThere(f"there is no {where}: {found!r} has no {name!r}")
        found = vars(found)[name]
    if isinstance(found, property):
        found = found.fget
    found = inspect.unwrap(getattr(found, "__func__", found))
    assert isinstance(found, FunctionType), f"{where} is {found!r}"
    return found


def _compiled(source: str, function: FunctionType) -> CodeType:
    flags = __future__.annotations.compiler_flag
    if source.startswith(" "):
        source = f"if True:\n{source}"  # a method as it stands in its class
    module = compile(source, f"<mutant of {function.__qualname__}>", "exec", flags, True)
    for code in module.co_consts:
        if isinstance(code, CodeType) and code.co_name == function.__name__:
            if code.co_freevars != function.__code__.co_freevars:
                raise NotThere(f"{function.__qualname__} closes over other variables")
            return code
    raise NotThere(f"the source of {function.__qualname__} does not define it")


@dataclass(frozen=True)
class Mutant:
    """One mechanism taken out, or one together with what else covers for it.

    Attributes:
        edits: how.
        drawn: what plans are to have, where those of every seed hardly ever come to it.
    """

    edits: tuple[Edit, ...]
    drawn: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Have it, for as long as the block lasts."""
        with ExitStack() as edits:
            for edit in self.edits:
                edits.enter_context(edit.applied())
            yield


def mutant(*edits: tuple[str, str, str], **drawn: Any) -> Mutant:
    return Mutant(tuple(Edit(*edit) for edit in edits), drawn)


_HELD = (
    LUA,
    "local held = epoch ~= NOT_HELD and slot(epochs, entries[at]) == epoch",
    "local held = true",
)
_ACTIVE = (LUA, "if state ~= 'active' then\n    return 'revoked'", "if false then")
_SETTLED = (
    "mesh.core.ownership:Ownership.settle",
    "self._outbox.is_settled(partition) and not self._runs.of(tenure)",
    "True",
)
_LOAD_HELD = (
    LUA,
    "if epoch == NOT_HELD or slot(epochs, wants[at]) ~= epoch then",
    "if false then",
)
_SWEEP_HELD = (LUA, "slot(epochs, wants[at]) == wants[at + 1] then", "true then")
_SCAN_HELD = (
    LUA,
    "if epoch == NOT_HELD or slot(epochs, partition) ~= epoch then",
    "if false then",
)
_RELEASED = (
    "mesh.core.ownership:Ownership.on_grant",
    "if epoch > tenures.released.get(partition, NOT_HELD):",
    "if epoch:",
)
_COMPARED = (
    "mesh.core.tenures:Tenures.compare",
    "return differing(before, epochs)",
    "return differing(self.epochs, epochs)",
)
_LEADER_WAITS = (
    "mesh.core.supervision:Supervision._on_store",
    "if not reply.acknowledged:",
    "if False:",
)

MUTANTS: dict[str, Mutant] = {
    # -------------------------------------------------------------------------------------------- commits
    "grant check: epoch and revoked": mutant(_HELD, _ACTIVE),
    "sequence check: again": mutant((LUA, "if seq <= last then", "if false then")),
    "two lanes reorder one partition": mutant(
        (
            "mesh.core.outbox:Outbox.next_batch",
            "[p for p in queues if p not in busy]",
            "list(queues)",
        )
    ),
    "reply before the commit": mutant(
        (
            "mesh.core.calls:Calls._step",
            "self._outbox.add(made)\n",
            (
                "self._outbox.add(made)\n"
                "            for conn, counter in made.waiters:\n"
                "                outcome = made.outcome\n"
                "                conn.send(pack_reply(counter, outcome.status, outcome.payload))\n"
                "            made.waiters.clear()\n"
            ),
        )
    ),
    "reply before the acknowledgement": mutant(
        ("mesh.core.commits:Commits.on_commit", "if not reply.acknowledged:", "if False:")
    ),
    "the WAIT is not judged": mutant(
        (
            "mesh.core.syncset:is_acknowledged",
            "if before is None or after is None:",
            "if True:\n        return True\n    if before is None or after is None:",
        )
    ),
    "a count for members": mutant(
        (
            "mesh.core.syncset:is_acknowledged",
            "    members = current.members\n",
            (
                "    if before is not None and after is not None:\n"
                "        enough = [n for n, offset in after.links if offset >= before.offset]\n"
                "        return len(enough) >= len(current.members)\n"
                "    members = current.members\n"
            ),
        )
    ),
    "a query sees what is acknowledged": mutant(
        (
            "mesh.core.tenure:Slot.readable",
            "if self.blob is self.acked or self.blob == self.acked:",
            "if True:",
        )
    ),
    # --------------------------------------------------------------------------------------------- memory
    "unacknowledged keys are not evicted": mutant(
        ("mesh.core.cache:Cache._evict", "if slot.pending or ", "if ")
    ),
    "what memory has is newer than a page": mutant(
        ("mesh.core.reading:Reading.adopt_page", "if name not in tenure.slots and not", "if not")
    ),
    # ------------------------------------------------------------------------------------- exactly one effect
    "outcome record: asked": mutant(("mesh.core.execution:step", "if seen is _NEW:", "if True:")),
    "outcome record: written": mutant(
        (
            "mesh.core.running:_effect",
            "fields, deleted = records.write(counter, outcome)",
            "records.write(counter, outcome)\n    fields, deleted = {}, []",
        )
    ),
    "records dropped on takeover": mutant(
        ("mesh.core.reading:Reading.take_wants", "if not tenure.warm:", "if False:"),
        (
            "mesh.core.reading:Reading.adopt_page",
            "tenure.adopt_record(name, value)",
            "pass",
        ),
    ),
    "copies of a running call join it": mutant(
        ("mesh.core.dedupe:Session.check", "if running is not None:", "if False:"),
        kinds=("give up", "drop", "pause replica", "slow"),
    ),
    "settled ids are refused": mutant(
        ("mesh.core.dedupe:Session.check", "if counter < self.watermark:", "if False:"),
        kinds=("give up", "slow"),
    ),
    "a caller's key stands for the call": mutant(
        ("mesh.core.execution:step", "if own:\n        records: ", "if False:\n        records: ")
    ),
    "a record under a key is kept": mutant(
        ("mesh.core.callerkeys:KeyedCall.check", "if blob is not None:", "if False:")
    ),
    # -------------------------------------------------------------------------------------------- takeovers
    "takeover acknowledged before told": mutant(_LEADER_WAITS),
    "takeover told before it is made": mutant(
        (
            "mesh.core.planning:Planning.plan",
            "return [self._call(table, joining, gone, moves, asks, now)]",
            (
                "import dataclasses\n"
                "        effects = [self._call(table, joining, gone, moves, asks, now)]\n"
                "        for nonce in a.takeovers.current.changed:\n"
                "            member = a.members[nonce]\n"
                "            if member.gone_at is None and member.enrolled:\n"
                "                early = dataclasses.replace(member, version=member.version + 1)\n"
                "                effects.append(a.telling.grant(early, table))\n"
                "        return effects"
            ),
        )
    ),
    "load before the grant": mutant(
        (
            "mesh.core.planning:Planning.plan",
            "return [self._call(table, joining, gone, moves, asks, now)]",
            (
                "import dataclasses\n"
                "        effects = [self._call(table, joining, gone, moves, asks, now)]\n"
                "        for nonce in a.takeovers.current.changed:\n"
                "            member = a.members[nonce]\n"
                "            if member.gone_at is None and member.enrolled:\n"
                "                effects.append(a.telling.grant(member, table))\n"
                "        return effects"
            ),
        ),
        _LOAD_HELD,
        _SWEEP_HELD,
        _SCAN_HELD,
    ),
    "a new epoch for each tenure": mutant(
        (
            "mesh.core.moving:due_moves",
            "newer = {epoch: next_epoch(epoch, life) for epoch in set(epochs)}",
            "newer = {epoch: epoch for epoch in set(epochs)}",
        )
    ),
    "all of a dead process's partitions move": mutant(
        (
            "mesh.core.moving:due_moves",
            "orphans += table.partitions_of(member.row.nonce)",
            "orphans += table.partitions_of(member.row.nonce)[1:]",
        )
    ),
    # -------------------------------------------------------------------------------------------- handover
    "settled before a release, and the epoch check": mutant(_SETTLED, _HELD),
    "a released epoch stays released, twice": mutant(_RELEASED, _COMPARED),
    # ----------------------------------------------------------------------------- leases, leaders, the store
    "a grant taken from the table": mutant(
        (
            "mesh.node:Node._on_table",
            "self._core.on_table(Table.decode(body), now)",
            (
                "table = Table.decode(body)\n"
                "        self._core.on_table(table, now)\n"
                "        version = table.version\n"
                "        if table.row(self.nonce) is not None:\n"
                "            self._core.on_grant(Grant(version.token, self.nonce, version.life,\n"
                "                self._core.grant.version, True, table.epochs_of(self.nonce)), now)"
            ),
        ),
        grave=("cut host", "stop handler"),
    ),
    # ---------------------------------------------------------------------------------------------- clients
    "unknown after a broken attempt": mutant(
        ("mesh.core.calling:ClientCore.on_down", "call.maybe = True", "pass")
    ),
    "unknown while in flight": mutant(
        (
            "mesh.core.calling:ClientCore._too_late",
            "if call.maybe or call.conn is not None:",
            "if call.maybe:",
        )
    ),
    "no older table": mutant(
        (
            "mesh.client.aio:AsyncClient._on_table",
            "if self._core.table is not None and",
            "if False and",
        ),
        (
            "mesh.core.calling:ClientCore.on_table",
            "if self.table is not None and table.version <= self.table.version:",
            "if False:",
        ),
    ),
    "redirect to a stale owner, sent": mutant(
        (
            "mesh.core.calls:Calls._redirect",
            "if owner.nonce == self._nonce or epoch < request.epoch:",
            "if owner.nonce == self._nonce:",
        ),
        ("mesh.core.calls:Calls._redirect", "if epoch <= max(known):", "if False:"),
    ),
    "redirect to a stale owner, sent and followed": mutant(
        (
            "mesh.core.calls:Calls._redirect",
            "if owner.nonce == self._nonce or epoch < request.epoch:",
            "if owner.nonce == self._nonce:",
        ),
        ("mesh.core.calls:Calls._redirect", "if epoch <= max(known):", "if False:"),
        (
            "mesh.core.calling:ClientCore._learn",
            "if known is not None and redirect.epoch <= known.epoch:",
            "if False:",
        ),
    ),
    "poison limit": mutant(
        ("mesh.core.calling:ClientCore._send", "if self._may_be_poison(call, nonce):", "if False:"),
        poison=True,
        kinds=("kill", "pause", "starve", "pause replica", "chop"),
        faults=4,
    ),
}
"""What is taken out, or what is not asked for any more, by the mechanism's name (tests/MUTANTS.md)."""

COVERED: dict[str, Mutant] = {
    "a dead process stays dead": mutant(
        (
            "mesh.core.attendance:Attendance.on_registered",
            "if members.is_proven(r.nonce):",
            "if False:",
        ),
        kinds=("kill", "last words"),
        faults=30,
        length_s=2.0,
    ),
    "an operation is known again": mutant(
        (
            LUA,
            (
                "if leader[2] == operation then\n"
                "    redis.call('HINCRBY', keys[2], 't', 1)"
                " -- makes the WAIT behind it wait, on a new connection too\n"
                "    return { 'ok', set, leader[3] }"
            ),
            "if false then\n    return { 'ok', set, leader[3] }",
        )
    ),
    "life check": mutant(
        (
            LUA,
            "if life[1] == run_id() and tonumber(life[2]) == number then\n    return life[3]",
            "if true then\n    return life[3]",
        ),
        grave=("cut primary", "cut primary with a replica", "stop primary"),
    ),
    "lease wait out": mutant(
        ("mesh.core.waits:Waits.over", "if end <= now", "if end < math.inf"),
        grave=("cut host and client",),
        keys=2,
        faults=0,
    ),
    "clock read before state": mutant(
        (
            "mesh.core.execution:_step_query",
            "if home.now() >= home.lease.until:",
            "if home.lease._last_at >= home.lease.until:",
        ),
        grave=("stop handler", "cut host"),
    ),
    "renewal counted before its acknowledgement": mutant(
        (
            "mesh.core.commits:Commits.renew",
            "self._lease.sent(self._renewal, now)",
            "self._lease.sent(self._renewal, now)\n        self._lease.acknowledged(self._renewal)",
        ),
        grave=("cut host from store", "cut host"),
    ),
    "token unchecked on a message": mutant(
        ("mesh.core.ownership:Ownership.hears", "if token < self._token:", "if False:"),
        (
            "mesh.node:Node._on_supervisor",
            "elif not self._leaders.leads(conn):",
            "elif False:",
        ),
        grave=("stop leader in a takeover",),
    ),
    "cached set": mutant(
        ("mesh.store.confirming:Seen.decoded", "if blob != self.blob:", "if not self.blob:"),
        grave=("kill replica", "stop replica"),
    ),
    "shrink without a majority": mutant(
        ("mesh.core.storeproofs:down", "if seen.is_majority(", "if any("),
        grave=("cut primary", "cut primary with a replica"),
    ),
    "an old shrink": mutant(
        (LUA, "if age_us(asked_at_us) > max_age_us then", "if false then"),
        grave=("cut primary", "cut primary with a replica"),
    ),
    "a table accepted with a hole": mutant(
        (
            "mesh.core.learned:recorded_members",
            "return [*active, *ended]",
            "return [*active]",
        ),
        grave=("kill leader", "kill supervisors"),
    ),
    "grant check: epoch": mutant(_HELD),
    "grant check: revoked": mutant(_ACTIVE),
    "sequence check: gap": mutant(
        (LUA, "if seq > last + 1 and lane ~= ASYNC_LANE then", "if false then")
    ),
    "watermark with the drop": mutant(
        (
            "mesh.core.dedupe:Session.due_drops",
            "return {watermark_field(self.number, self._tag): mark}, deleted",
            "return {}, deleted",
        )
    ),
    "loading under the grant": mutant(_LOAD_HELD, _SWEEP_HELD, _SCAN_HELD),
    "settled before a release": mutant(_SETTLED),
    "a released epoch stays released": mutant(_RELEASED),
    "a grant is compared with the one before": mutant(_COMPARED),
    "MAYBE is remembered": mutant(
        (
            "mesh.core.calling:ClientCore.on_reply",
            "call.maybe = call.maybe or status == Status.MAYBE",
            "pass",
        )
    ),
    "redirect, sent": mutant(
        ("mesh.core.calls:Calls._redirect", "if self.table is None:", "if True:")
    ),
    "redirect, followed": mutant(
        (
            "mesh.core.calling:ClientCore._learn",
            "if known is not None and redirect.epoch <= known.epoch:",
            "if True:",
        )
    ),
    "no old page over a newer write": mutant(
        ("mesh.core.reading:Reading._read_ahead", "if not tenure.complete:", "if False:"),
    ),
    "no late read over a newer write": mutant(
        (
            "mesh.core.reading:Reading.take_in",
            "if not queue or queue[0] not in load.calls:",
            "if not queue:",
        ),
    ),
}
"""What no seed finds: something else covers for it, or nothing that is simulated yet comes to it
(tests/MUTANTS.md says what).
"""
