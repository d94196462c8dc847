"""What the store had to say: keys that calls wait for, partitions read ahead, pages of listings."""

from __future__ import annotations

from mesh.core.calls import Calls
from mesh.core.listing import Listing
from mesh.core.ownership import Ownership
from mesh.core.reading import Load
from mesh.core.records import LoadReply, ScanReply, StoreStatus, SweepReply, Unreadable
from mesh.core.tenure import STATE_PREFIX, Tenure
from mesh.core.wire import Status
from mesh.core.workings import Workings


class Reads:
    """Those of one handler that have come back.

    Args:
        workings: of the handler.
        calls: go on once their key is in memory.
        ownership: hears of partitions that the store refuses.
    """

    def __init__(self, workings: Workings, calls: Calls, ownership: Ownership) -> None:
        self._calls = calls
        self._ownership = ownership
        self._tenures = workings.tenures
        self._answers = workings.answers
        self._reading = workings.reading
        self._listings = workings.listings
        self._home = workings.home
        self._unleased = workings.unleased

    def __repr__(self) -> str:
        return f"Reads({self._reading!r}, {self._listings!r})"

    def on_load(self, loads: list[Load], reply: LoadReply | None, now: float) -> None:
        """Reads came back; None: the store could not be asked, the same reads are due again."""
        if reply is not None and reply.status is StoreStatus.REVOKED:
            self._ownership.end()
            return
        if reply is None or reply.status is not StoreStatus.OK:
            self._reading.again(loads)
            return
        for load, values in zip(loads, reply.values, strict=True):
            tenure = load.tenure
            if not self._tenures.has(tenure):
                continue
            if values is None:
                self._ownership.lose(tenure.partition)
                continue
            if isinstance(values, Unreadable):
                tenure.unreadable = True
                reason = f"partition {tenure.partition} cannot be read: {values.reason}"
                self._calls.refuse_waiting(tenure, load.field, Status.UNREADABLE, reason)
                continue
            try:
                if not self._reading.take_in(load, values):
                    continue  # its calls wait for a second read
            except ValueError as error:
                entity, _, key = load.field[len(STATE_PREFIX) :].partition(b"\0")
                reason = f"what is stored of {entity.decode()} {key!r:.80} cannot be read: {error}"
                self._calls.refuse_waiting(tenure, load.field, Status.BAD_REQUEST, reason)
                continue
            self._calls.run_waiting(tenure, load.field, now)

    def on_sweep(self, tenures: list[Tenure], reply: SweepReply, now: float) -> None:
        """Small partitions came whole; the others are left to the scans."""
        if reply.status is StoreStatus.REVOKED:
            self._ownership.end()
        if reply.status is not StoreStatus.OK:
            return
        for tenure, pairs in zip(tenures, reply.pages, strict=True):
            if pairs is not None:
                self.on_scan(tenure, ScanReply(StoreStatus.OK, 0, pairs), now)

    def on_scan(self, tenure: Tenure, reply: ScanReply, now: float) -> None:
        """A page of a partition's hash; what memory has is newer than what the page says."""
        if not self._concerns(tenure, reply.status):
            return
        if reply.unreadable is not None or not self._reading.adopt_page(tenure, reply.pairs):
            tenure.unreadable = True
            return
        tenure.cursor = reply.cursor
        if reply.cursor == 0:
            for field in self._reading.warmed(tenure):
                self._calls.run_waiting(tenure, field, now)

    def on_listed(self, listing: Listing, reply: ScanReply) -> None:
        """A page of a partition's hash came for a listing."""
        pending = listing.pending
        if not self._concerns(pending.tenure, reply.status):
            return  # and so it is due again
        if reply.unreadable is not None:
            if self._listings.end(listing):
                reason = (
                    f"partition {pending.tenure.partition} cannot be read: "
                    f"{reply.unreadable.reason}"
                )
                self._answers.refuse_all([pending], Status.UNREADABLE, reason)
            return
        answer = self._listings.take(listing, reply)
        if answer is None or not self._listings.end(listing):
            return
        if self._home.is_leased():
            self._answers.pending -= 1
            self._answers.reply(pending, answer)
        else:  # from a store, perhaps, that others have left long ago
            self._unleased.add(pending)

    def _concerns(self, tenure: Tenure, status: StoreStatus) -> bool:
        """Whether what was read is of a tenure that goes on; one that the store refuses does not."""
        if status is StoreStatus.REVOKED:
            self._ownership.end()
        if not self._tenures.has(tenure):
            return False
        if status is StoreStatus.CONFLICT:
            self._ownership.lose(tenure.partition)
        return status is StoreStatus.OK
