"""How the store's calls look on the wire: pure packing and reading, no connection.

Every call is one FCALL with one msgpack blob: for 512 commands a blob, flat arguments and
struct.pack differ by less than the runs do inside the server (1.4 to 2.1 ms), and the blob is by
far the cheapest to write here. Only the function library reads what is packed here; the two change
together, under a new version.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, TypeVar

import msgpack

from mesh.core.records import (
    Bid,
    ChangeSet,
    Entry,
    GrantRef,
    Life,
    OpenLife,
    Recorded,
    SetChange,
    Takeover,
    Want,
)
from mesh.core.syncset import InSyncSet
from mesh.store.api import SWEEP_BUDGET, SWEEP_BYTES, SWEEP_MOST
from mesh.store.library import function
from mesh.store.resp import bulk

T = TypeVar("T")
V = TypeVar("V")

ARGUMENT_BYTES = 30_000
"""Blobs are cut into arguments of this size. From 32 KiB on the server reads an argument by itself,
and other clients' writes get between the FCALL and the ROLE behind it, which then asks the replicas
for more than the WAIT waited for: acknowledgements that look short although nothing is missing.
"""

NO_GRANT = 0
"""In place of a grant's index: nobody."""
NOT_ASKED = 0
"""In place of the time at which a set's change was asked about."""


def _epoch(epoch: int) -> bytes:
    return epoch.to_bytes(4, "big")


def _fcall(prefix: bytes, keys: Sequence[bytes], blob: bytes = b"") -> bytes:
    if len(blob) <= ARGUMENT_BYTES:
        cut = [bulk(blob)] if blob else []
    else:
        at = range(0, len(blob), ARGUMENT_BYTES)
        cut = [bulk(blob[start : start + ARGUMENT_BYTES]) for start in at]
    count = b"%d" % len(keys)
    head = b"*%d\r\n%b$%d\r\n%b\r\n" % (3 + len(keys) + len(cut), prefix, len(count), count)
    return b"".join((head, *keys, *cut))


def _prefix(name: str) -> bytes:
    return bulk(b"FCALL") + bulk(function(name))


_COMMIT = _prefix("commit")
_RENEW = _prefix("renew")
_LOAD = _prefix("load")
_SCAN = _prefix("scan")
_SWEEP = _prefix("sweep")
_RECORDED = _prefix("recorded")
_RENEWALS = _prefix("renewals")
_TAKEOVER = _prefix("takeover")
_OPEN_LIFE = _prefix("open_life")
_BID = _prefix("bid")
_CHANGE_SET = _prefix("change_set")

SCAN_PAGE = 128
"""Fields asked of one HSCAN; a value may have 1 MiB."""


@lru_cache(maxsize=1024)
def _grant_key(prefix: bytes, nonce: bytes) -> bytes:
    return bulk(prefix + b"grant:" + nonce.hex().encode())


class Calls:
    """Packs the calls of one mesh. Its keys all begin with `prefix`."""

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix
        self.grants_key = prefix + b"grants"
        self.life_key = prefix + b"life"
        self.leader_key = prefix + b"leader"
        self._life = bulk(self.life_key)
        self._leader = bulk(self.leader_key)
        self._table = bulk(prefix + b"table")
        self._grants = bulk(self.grants_key)
        self._partitions: dict[int, bytes] = {}
        # The server's msgpack is older than the format's type for bytes. One packer for all calls: each
        # new one allocates and frees 256 KiB.
        self._packer = msgpack.Packer(use_bin_type=False)

    def _blob(self, *values: object) -> bytes:
        blob: bytes = self._packer.pack(values)
        return blob

    def _grant(self, nonce: bytes) -> bytes:
        return _grant_key(self._prefix, nonce)

    def _partition(self, partition: int) -> bytes:
        key = self._partitions.get(partition)
        if key is None:
            key = self._partitions[partition] = bulk(self._prefix + b"p:%d" % partition)
        return key

    def _owned(self, grant: GrantRef, partitions: Iterable[int]) -> list[bytes]:
        return [self._life, self._grant(grant.nonce), *map(self._partition, partitions)]

    def commit(
        self, lane: int, grant: GrantRef, seq: int, renewal: int, entries: Sequence[Entry]
    ) -> bytes:
        flat: list[object] = []
        keys = [self._life, self._grant(grant.nonce)]
        for entry in entries:
            fields: list[bytes] = []
            for item in entry.fields.items():
                fields += item
            flat += (entry.partition, _epoch(entry.epoch), fields, entry.deleted)
            keys.append(self._partition(entry.partition))
        number = renewal.to_bytes(8, "big")
        head = _COMMIT if entries else _RENEW
        return _fcall(head, keys, self._blob(grant.life, grant.version, lane, seq, number, flat))

    def load(self, grant: GrantRef, wants: Sequence[Want]) -> bytes:
        flat: list[object] = []
        for want in wants:
            flat += (want.partition, _epoch(want.epoch), want.fields)
        keys = self._owned(grant, (want.partition for want in wants))
        return _fcall(_LOAD, keys, self._blob(grant.life, grant.version, flat))

    def scan(self, grant: GrantRef, partition: int, epoch: int, cursor: int) -> bytes:
        blob = self._blob(
            grant.life, grant.version, partition, _epoch(epoch), b"%d" % cursor, SCAN_PAGE
        )
        return _fcall(_SCAN, self._owned(grant, (partition,)), blob)

    def sweep(self, grant: GrantRef, tenures: Sequence[tuple[int, int]]) -> bytes:
        flat: list[object] = []
        for partition, epoch in tenures:
            flat += (partition, _epoch(epoch))
        keys = self._owned(grant, (partition for partition, _ in tenures))
        return _fcall(
            _SWEEP,
            keys,
            self._blob(grant.life, grant.version, SWEEP_MOST, SWEEP_BYTES, SWEEP_BUDGET, flat),
        )

    def recorded(self) -> bytes:
        return _fcall(_RECORDED, (self._life, self._leader, self._table, self._grants))

    def renewals(self, life: int, nonces: Sequence[bytes]) -> bytes:
        return _fcall(_RENEWALS, [self._life, *map(self._grant, nonces)], b"%d" % life)

    def takeover(self, call: Takeover, others: Iterable[bytes]) -> bytes:
        """`others`: further grants to look at, where a move asserts that nobody holds its
        partition.
        """
        moves = call.moves
        enrolled = (nonce for nonce, _ in call.enroll)
        named = chain(enrolled, call.revoke, moves.givers, moves.receivers, others)
        nonces = [nonce for nonce in dict.fromkeys(named) if nonce is not None]
        index: dict[bytes | None, int] = {nonce: i for i, nonce in enumerate(nonces, start=1)}
        index[None] = NO_GRANT
        epochs = {epoch: _epoch(epoch) for epoch in {*moves.from_epochs, *moves.epochs}}
        columns = (
            list(moves.partitions),
            _column(moves.givers, index),
            _column(moves.from_epochs, epochs),
            _column(moves.receivers, index),
            _column(moves.epochs, epochs),
        )
        blob = self._blob(
            call.operation,
            call.life,
            call.token,
            nonces,
            list(chain.from_iterable((index[nonce], name) for nonce, name in call.enroll)),
            [index[nonce] for nonce in call.revoke],
            columns,
            call.table,
            call.intents,
        )
        keys = [self._life, self._leader, self._table, self._grants, *map(self._grant, nonces)]
        return _fcall(_TAKEOVER, keys, blob)

    def open_life(self, call: OpenLife, nonces: Sequence[bytes]) -> bytes:
        blob = self._blob(
            call.operation,
            call.previous,
            call.number,
            call.token,
            call.partitions,
            call.sync_set.encode(),
            call.sync_set.version,
            nonces,
            NOT_ASKED if call.asked_at_us is None else call.asked_at_us,
            call.max_age_us,
            call.run_id,
        )
        keys = [self._life, self._leader, self._grants, *map(self._grant, nonces)]
        return _fcall(_OPEN_LIFE, keys, blob)

    def bid(self, call: Bid, nonces: Sequence[bytes]) -> bytes:
        blob = self._blob(
            call.operation, call.life, call.token, call.new_token, nonces, *_changed(call.change)
        )
        keys = [self._life, self._leader, self._grants, *map(self._grant, nonces)]
        return _fcall(_BID, keys, blob)

    def change_set(self, call: ChangeSet) -> bytes:
        blob = self._blob(call.operation, call.life, call.token, *_changed(call.change))
        return _fcall(_CHANGE_SET, [self._life, self._leader], blob)


def _changed(change: SetChange | None) -> tuple[bytes, int, int]:
    if change is None:
        return b"", NOT_ASKED, 0
    asked_at_us = NOT_ASKED if change.asked_at_us is None else change.asked_at_us
    return change.sync_set.encode(), asked_at_us, change.max_age_us


def _column(values: Sequence[T], written: Mapping[T, V]) -> list[V] | V:
    """Each as it is written. One for all, where they are all the same: a death has one giver, and often
    one epoch.
    """
    if values and values.count(values[0]) == len(values):
        return written[values[0]]
    return [written[value] for value in values]


def pairs_of(flat: Sequence[Any]) -> zip[tuple[Any, Any]]:
    """(a, b), (c, d) … of a flat list, as the server writes its hashes."""
    return zip(flat[::2], flat[1::2], strict=True)


def read_recorded(reply: Sequence[Any]) -> Recorded:
    """The reply to `recorded`."""
    run_id, life, (token, intents), table, grants = reply
    return Recorded(
        life=read_life(life, token),
        run_id=run_id.decode(),
        table=table or b"",
        intents=intents or b"",
        grants={nonce: handler.decode() for nonce, handler in pairs_of(grants)},
    )


LIFE_FIELDS = ("run_id", "number", "partitions", "opened_from", "set", "history")
"""Of the life's record, as `read_life` wants them."""


def read_life(fields: Sequence[Any], token: Any) -> Life | None:
    """The life's record; None where none was ever opened."""
    run_id, number, partitions, opened_from, sync_set, history = fields
    if not number:
        return None
    return Life(
        run_id=run_id.decode(),
        number=int(number),
        token=int(token),
        partitions=int(partitions),
        opened_from=int(opened_from),
        sync_set=InSyncSet.decode(sync_set),
        history=history.decode() if history else "",
    )


def read_takeover(blob: bytes) -> tuple[dict[bytes, int], dict[bytes, int]]:
    """Versions and renewal numbers in the reply to a takeover."""
    versions, renewals = msgpack.unpackb(blob, raw=True)
    return (
        dict(pairs_of(versions)),
        {nonce: int.from_bytes(number, "big") for nonce, number in pairs_of(renewals)},
    )
