"""The real code with one mechanism taken out, in this process, and back in afterwards.

with MUTANTS["poison limit"].applied():
    ...                                   # every mesh that is simulated here lacks it
"""

from __future__ import annotations

from sim.edits import LUA, Mutant, mutant

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
_SOME_LEFT = (
    "mesh.core.moving:due_moves",
    "orphans += table.partitions_of(member.row.nonce)",
    "orphans += table.partitions_of(member.row.nonce)[1:]",
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
    "a short WAIT is accepted": mutant(
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
        faults=30,
        grave=(),
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
    "all of a dead process's partitions move": mutant(_SOME_LEFT),
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
    # -------------------------------------------------------------------------------------------- handover
    "settled before a release, and the epoch check": mutant(_SETTLED, _HELD),
    "a released epoch stays released, twice": mutant(_RELEASED, _COMPARED),
    # ----------------------------------------------------------------------------- leases, leaders, the store
    "lease wait out": mutant(
        ("mesh.core.waits:Waits.over", "if end <= now", "if end < math.inf"),
        grave=("cut host and client",),
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
    "life check": mutant(
        (
            LUA,
            (
                "if life[1] == run_id() and tonumber(life[2]) == number"
                " and life[4] == (own_history or history()) then"
            ),
            "if true then",
        ),
        grave=("kill primary", "cut primary with a replica", "stop primary"),
    ),
    "cached set": mutant(
        ("mesh.store.confirming:Seen.decoded", "if blob != self.blob:", "if not self.blob:"),
        grave=("stop replica twice",),
    ),
    "shrink without a majority": mutant(
        ("mesh.core.storeproofs:down", "if seen.is_majority(", "if any("),
        grave=("cut in two",),
    ),
    "an old shrink": mutant(
        (LUA, "if age_us(asked_at_us) > max_age_us then\n    return { 'old' }\n  end\nend", "end"),
        grave=("kill replica far from the leader",),
    ),
    "a table accepted with a hole": mutant(
        _SOME_LEFT,
        ("mesh.core.table:Table.changed", "if held[index]:", "if False:"),
    ),
    # ---------------------------------------------------------------------------------------------- clients
    "unknown after a broken attempt": mutant(
        ("mesh.core.calling:ClientCore.on_down", "call.maybe = True", "pass"),
        kinds=("kill", "last words", "drop", "cut", "pause"),
        faults=20,
        grave=(),
    ),
    "unknown while in flight": mutant(
        (
            "mesh.core.verdicts:too_late",
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
