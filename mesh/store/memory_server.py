"""What the function library does, in plain Python: the same checks in the same order.

The contract tests run against both; where they differ, this one is wrong.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b

from mesh.core.lanes import LANES
from mesh.core.records import (
    Bid,
    ChangeSet,
    CommitReply,
    Entry,
    GrantRef,
    Life,
    LoadReply,
    OpenLife,
    Recorded,
    ScanReply,
    SetChange,
    StoreStatus,
    SweepReply,
    Takeover,
    TakeoverReply,
    Unreadable,
    Verdict,
    Want,
)
from mesh.core.syncset import InSyncSet, Role
from mesh.store.api import SWEEP_BUDGET, SWEEP_BYTES, SWEEP_MOST
from mesh.store.memory_grants import Grant, conflict

HISTORY = "0" * 40
"""Of its replication; it never has another."""
SCAN_PAGE = 128
"""Fields in one page of a scan."""

_WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"


def _place(name: bytes) -> int:
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "big") + 1


class MemoryServer:
    """A primary and its replicas. What it holds survives `restart`, as if synced to disk.

    Args:
        replicas: how many follow it; `links` has their names.
    """

    def __init__(self, replicas: int = 2) -> None:
        self.run_id = secrets.token_hex(20)
        self.offset = 0
        self.clock_us = 1_700_000_000_000_000
        """Stands still; a test moves it."""
        self.links = [f"memory:{port}" for port in range(1, replicas + 1)]
        self.paused: dict[str, int] = {}
        """Offsets at which the replicas named here stopped to follow."""
        self.priorities: dict[str, int] = {}
        """Sentinel's, of the replicas that were told another than 100."""
        self.wrong_type: set[int] = set()
        """Partitions whose key another program has made something else than a hash."""
        self.reachable = True
        self.breaks: list[bool] = []
        """For each of the next calls: lose the connection after (True) or before the call."""
        self.life: Life | None = None
        self.table = b""
        self.intents = b""
        self.operation = self.set_operation = b""
        self.reply = TakeoverReply(StoreStatus.OK)
        self.handlers: dict[bytes, str] = {}
        self.grants: dict[bytes, Grant] = {}
        self.partitions: dict[int, dict[bytes, bytes]] = {}

    def restart(self) -> None:
        """Another process with the same data: the life that was open is closed."""
        self.run_id = secrets.token_hex(20)

    def pause(self, link: str) -> None:
        """The replica stays attached and confirms nothing any more."""
        self.paused.setdefault(link, self.offset)

    def resume(self, link: str) -> None:
        """The replica catches up."""
        self.paused.pop(link, None)

    def break_connection(self, *, carried_out: bool) -> None:
        """Whoever calls next loses the connection, before or after the call is carried out."""
        self.breaks.append(carried_out)

    def role(self) -> Role:
        """What ROLE would say."""
        links = [(name, self.paused.get(name, self.offset)) for name in self.links]
        return Role(self.offset, tuple(links))

    def is_open(self, number: int) -> Life | None:
        """The recorded life, if it is this process's and has that number."""
        life = self.life
        return life if life and life.run_id == self.run_id and life.number == number else None

    def grant(self, ref: GrantRef) -> Grant | StoreStatus:
        """The caller's grant, or why it may do nothing."""
        if not self.is_open(ref.life):
            return StoreStatus.CLOSED
        grant = self.grants.get(ref.nonce)
        if grant is None or not grant.active:
            return StoreStatus.REVOKED
        if (grant.life, grant.version) < (ref.life, ref.version):
            return StoreStatus.OLDER
        return grant

    def commit(
        self, lane: int, ref: GrantRef, seq: int, renewal: int, entries: Sequence[Entry]
    ) -> CommitReply:
        grant = self.grant(ref)
        if isinstance(grant, StoreStatus):
            return CommitReply(grant)
        last = grant.seqs[lane]
        if seq > last + 1 and LANES[lane] != "async":
            return CommitReply(StoreStatus.GAP, detail=str(last))
        verdicts = [
            Verdict.APPLIED if grant.holds(entry.partition, entry.epoch) else Verdict.NOT_HELD
            for entry in entries
        ]
        self.offset += 1
        grant.renewal = max(grant.renewal, renewal)
        detail = ""
        if seq <= last:
            failed_seq, failed, failed_detail = grant.failed.get(lane, (0, (), ""))
            if failed_seq == seq:
                detail = failed_detail
                for i, verdict in enumerate(failed):
                    if verdict is Verdict.FAILED:
                        verdicts[i] = verdict
            return CommitReply(StoreStatus.OK, tuple(verdicts), duplicate=True, detail=detail)
        grant.seqs[lane] = seq
        for i, entry in enumerate(entries):
            if verdicts[i] is not Verdict.APPLIED or not (entry.fields or entry.deleted):
                continue
            if entry.partition in self.wrong_type:
                verdicts[i], detail = Verdict.FAILED, _WRONG_TYPE
                continue
            held = self.partitions.setdefault(entry.partition, {})
            held.update(entry.fields)
            for name in entry.deleted:
                held.pop(name, None)
        if detail:
            grant.failed[lane] = (seq, tuple(verdicts), detail)
        return CommitReply(StoreStatus.OK, tuple(verdicts), detail=detail)

    def load(self, ref: GrantRef, wants: Sequence[Want]) -> LoadReply:
        grant = self.grant(ref)
        if isinstance(grant, StoreStatus):
            return LoadReply(grant)
        return LoadReply(StoreStatus.OK, tuple(self._values(grant, want) for want in wants))

    def _values(self, grant: Grant, want: Want) -> tuple[bytes | None, ...] | Unreadable | None:
        if not grant.holds(want.partition, want.epoch):
            return None
        if want.fields and want.partition in self.wrong_type:
            return Unreadable(_WRONG_TYPE)
        return tuple(map(self._fields(want.partition).get, want.fields))

    def scan(self, ref: GrantRef, partition: int, epoch: int, cursor: int) -> ScanReply:
        grant = self.grant(ref)
        if isinstance(grant, StoreStatus):
            return ScanReply(grant)
        if not grant.holds(partition, epoch):
            return ScanReply(StoreStatus.CONFLICT)
        if partition in self.wrong_type:
            return ScanReply(StoreStatus.OK, unreadable=Unreadable(_WRONG_TYPE))
        # The cursor is a place in the order of names' hashes, so that fields which come and go in
        # between never push another one past it.
        held = self._fields(partition)
        ahead = sorted((place, name) for name in held if (place := _place(name)) > cursor)
        page = ahead[:SCAN_PAGE]
        pairs = tuple((name, held[name]) for _, name in page)
        return ScanReply(StoreStatus.OK, page[-1][0] if len(ahead) > SCAN_PAGE else 0, pairs)

    def sweep(self, ref: GrantRef, tenures: Sequence[tuple[int, int]]) -> SweepReply:
        grant = self.grant(ref)
        if isinstance(grant, StoreStatus):
            return SweepReply(grant)
        budget = SWEEP_BUDGET
        pages: list[tuple[tuple[bytes, bytes], ...] | None] = []
        for partition, epoch in tenures:
            fields = self._fields(partition)
            known = grant.holds(partition, epoch) and partition not in self.wrong_type
            size = sum(len(name) + len(value) for name, value in fields.items())
            small = len(fields) <= SWEEP_MOST and size <= SWEEP_BYTES
            if not (known and small) or budget <= 0:
                pages.append(None)
                continue
            budget -= len(fields)
            pages.append(tuple(fields.items()))
        return SweepReply(StoreStatus.OK, tuple(pages))

    def _fields(self, partition: int) -> dict[bytes, bytes]:
        return self.partitions.get(partition, {})

    def takeover(self, call: Takeover) -> TakeoverReply:
        life = self.is_open(call.life)
        if life is None:
            return TakeoverReply(StoreStatus.CLOSED)
        if life.token != call.token:
            return TakeoverReply(StoreStatus.DEPOSED)
        if call.operation == self.operation:
            self.offset += 1
            return self.reply
        problem = conflict(call, life.partitions, self.grants, self.handlers)
        if problem:
            return TakeoverReply(StoreStatus.CONFLICT, detail=problem)

        named = dict.fromkeys(nonce for nonce, _ in call.enroll)
        for nonce, handler in call.enroll:
            self.grants[nonce], self.handlers[nonce] = Grant(), handler
        for nonce in call.revoke:
            if self.grants[nonce].active:
                named[nonce] = None
                self.grants[nonce].active = False
                self.handlers.pop(nonce, None)
        for move in call.moves:
            if move.from_nonce is not None:
                named[move.from_nonce] = None
                self.grants[move.from_nonce].epochs.pop(move.partition, None)
            named[move.to_nonce] = None
            self.grants[move.to_nonce].epochs[move.partition] = move.epoch
        for nonce in named:
            grant = self.grants[nonce]
            grant.version, grant.life = grant.version + 1, call.life
            if not grant.active:
                grant.epochs.clear()
        self.table, self.intents, self.operation = call.table, call.intents, call.operation
        self.offset += 1
        self.reply = TakeoverReply(
            StoreStatus.OK,
            renewals={nonce: self.grants[nonce].renewal for nonce in call.revoke},
            versions={nonce: self.grants[nonce].version for nonce in (*named, *call.revoke)},
        )
        return self.reply

    def open_life(self, call: OpenLife) -> TakeoverReply:
        life = self.life
        if life and call.operation == self.operation and call.token == life.token:
            is_mine = self.is_open(call.number) is not None
            self.offset += is_mine
            return self.reply if is_mine else TakeoverReply(StoreStatus.CLOSED)
        if life and call.token <= life.token:
            return TakeoverReply(StoreStatus.DEPOSED)
        number = life.number if life else 0
        problem = ""
        if call.run_id not in ("", self.run_id):
            problem = f"it was decided for run {call.run_id}, and this is {self.run_id}"
        elif number != call.previous:
            problem = f"life {number} is recorded, not {call.previous}"
        elif call.number <= call.previous:
            problem = f"life {call.number} is not above {call.previous}"
        elif life and life.partitions != call.partitions:
            problem = f"the mesh has {life.partitions} partitions, not {call.partitions}"
        if problem:
            return TakeoverReply(StoreStatus.CONFLICT, detail=problem)
        if call.asked_at_us is not None and self.clock_us - call.asked_at_us > call.max_age_us:
            return TakeoverReply(StoreStatus.OLD)
        for nonce in self.handlers:
            grant = self.grants[nonce]
            grant.version, grant.life = grant.version + 1, call.number
        self.life = Life(
            self.run_id,
            call.number,
            call.token,
            call.partitions,
            life.sync_set.version if life else 0,
            call.sync_set,
            HISTORY,
        )
        self.operation, self.reply = call.operation, self._active_versions()
        self.offset += 1
        return self.reply

    def _active_versions(self) -> TakeoverReply:
        versions = {nonce: self.grants[nonce].version for nonce in self.handlers}
        return TakeoverReply(StoreStatus.OK, versions=versions)

    def bid(self, call: Bid) -> TakeoverReply:
        life = self.is_open(call.life)
        if life is None:
            return TakeoverReply(StoreStatus.CLOSED)
        if call.operation == self.operation and life.token == call.new_token:
            self.offset += 1
            return self.reply
        if life.token != call.token:
            return TakeoverReply(StoreStatus.DEPOSED)
        if call.new_token <= call.token:
            problem = f"token {call.new_token} is not above {call.token}"
            return TakeoverReply(StoreStatus.CONFLICT, detail=problem)
        if call.change is not None:
            refused = self._change_refused(life.sync_set, call.change)
            if refused is not None:
                return refused
            life = replace(life, sync_set=call.change.sync_set)
        self.life = replace(life, token=call.new_token)
        self.operation, self.reply = call.operation, self._active_versions()
        self.offset += 1
        return self.reply

    def change_set(self, call: ChangeSet) -> TakeoverReply:
        life = self.is_open(call.life)
        if life is None:
            return TakeoverReply(StoreStatus.CLOSED)
        if life.token != call.token:
            return TakeoverReply(StoreStatus.DEPOSED)
        if call.operation != self.set_operation:
            refused = self._change_refused(life.sync_set, call.change)
            if refused is not None:
                return refused
            self.life = replace(life, sync_set=call.change.sync_set)
            self.set_operation = call.operation
        self.offset += 1
        return TakeoverReply(StoreStatus.OK)

    def _change_refused(self, before: InSyncSet, change: SetChange) -> TakeoverReply | None:
        after, problem = change.sync_set, ""
        if after.version != before.version + 1:
            problem = f"set {before.version} is recorded, {after.version} is not the next"
        elif after.durability != before.durability:
            problem = f"the durability is {before.durability}, not {after.durability}"
        elif after.durability == "replicated" and not after.members:
            problem = "no member would be left"
        elif after.asks_less_than(before):
            if change.asked_at_us is None:
                problem = "it asks for less, and does not say since when that is known to be safe"
            elif self.clock_us - change.asked_at_us > change.max_age_us:
                return TakeoverReply(StoreStatus.OLD)
        return TakeoverReply(StoreStatus.CONFLICT, detail=problem) if problem else None

    def recorded(self) -> Recorded:
        return Recorded(self.life, self.run_id, self.table, self.intents, dict(self.handlers))

    def renewals(self, life: int, nonces: Sequence[bytes]) -> dict[bytes, int] | None:
        if not self.is_open(life):
            return None
        return {nonce: self.grants[nonce].renewal for nonce in nonces if nonce in self.grants}
