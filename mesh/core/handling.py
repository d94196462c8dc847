"""The handler's brain, put together: frames, store replies and `now` come in, frames and orders go out.

Theory of operation. A partition is held from the leader's grant until it is released or lost (ownership);
that span is a Tenure. A call for it runs against memory (calls) and is answered once its commit is
acknowledged (commits); what memory lacks is read from the store (reads); an async or blocking method is
handed to the shell and holds its key until it is back (apart). Each of these is a file of its own and
works on what mesh.core.workings names.

Pure: frames go out through the connection that their calls came from. Batches, reads, runs and messages are
fetched by the shell (`next_batch`, `take_wants`, `take_runs`, `take_messages`), which owns every socket,
task and thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mesh.core.answers import Answers, Counts
from mesh.core.apart import Apart
from mesh.core.cache import Cache
from mesh.core.calls import Calls
from mesh.core.commits import Commits
from mesh.core.expiry import Expiry
from mesh.core.forgetting import Forgetting
from mesh.core.handling_config import HandlingConfig
from mesh.core.history import History
from mesh.core.lease import Lease
from mesh.core.listing import Listing, Listings
from mesh.core.messages import Beat
from mesh.core.outbox import Change, Outbox
from mesh.core.ownership import Ownership
from mesh.core.reading import Load, Reading
from mesh.core.reads import Reads
from mesh.core.records import GrantRef
from mesh.core.retention import Retention
from mesh.core.runs import Runs
from mesh.core.table import Table
from mesh.core.tenure import Home
from mesh.core.tenures import Tenures
from mesh.core.unleased import Unleased
from mesh.core.workings import Workings
from mesh.core.writing import WriteGate
from mesh.entities import Registry
from mesh.specs import Durability

__all__ = ["HandlerCore", "HandlingConfig"]


class HandlerCore:
    """One handler process, from its first grant to its end.

    Args:
        nonce: of this process.
        partitions: of the mesh.
        registry: the entities it runs.
    """

    def __init__(
        self,
        nonce: bytes,
        partitions: int,
        registry: Registry,
        config: HandlingConfig | None = None,
    ) -> None:
        self.nonce = nonce
        self.partitions = partitions
        self.config = config = config or HandlingConfig()
        self.home = Home(
            run_limit_s=config.limit_s,
            max_state_bytes=config.max_state_bytes,
            max_reply_bytes=config.max_reply_bytes,
            lease=Lease(config.lease),
        )
        """What methods get from this handler; the shell adds what only it has."""
        self.health = "ok"
        """What the entities' own checks say, as the shell last heard it."""
        self.async_lag_s = 0.0
        """For how long writes of class "async" have not been on every in-sync node; the shell tells it."""
        self.retention = Retention(config.window_s, config.caller_bytes)
        """What it remembers and for how long; the shell tells it the time."""
        self.runs = Runs(config.threads)
        """Async and blocking methods that wait to be begun, or are under way."""
        self._tenures = Tenures(partitions, self.retention, self.home)
        self._answers = Answers()
        self._outbox = Outbox()
        self._cache = Cache(config.cache_bytes)
        in_memory = self._tenures.in_memory
        self._expiry = Expiry(in_memory, self._cache, registry, self.wall, self._commit)
        self._reading = Reading(
            self._tenures, registry, self._cache, self._expiry, config.max_wants
        )
        self._listings = Listings(self._expiry, lambda: self.grant.life)
        self._forgetting = Forgetting(in_memory, self.retention)
        self._history = History(config.replicas, config.history_bytes)
        workings = Workings(
            nonce,
            config,
            registry,
            self.home,
            self.retention,
            self._tenures,
            self._answers,
            self._outbox,
            self.runs,
            self._cache,
            self._expiry,
            self._reading,
            self._listings,
            WriteGate(),
            Unleased(),
            self._history,
        )
        self._calls = calls = Calls(workings)
        self._apart = apart = Apart(workings, calls)
        self._ownership = ownership = Ownership(workings, calls, apart)
        self._commits = commits = Commits(workings, calls, ownership)
        self._reads = reads = Reads(workings, calls, ownership)

        # What the shell brings goes straight to the part that it concerns; see there.
        self.on_request = calls.on_request
        self.on_table = calls.on_table
        self.on_grant = ownership.on_grant
        self.on_release = ownership.on_release
        self.on_leading = ownership.on_leading
        self.hears = ownership.hears
        """Ask before anything else that a leader says is done."""
        self.on_commit = commits.on_commit
        self.on_renewed = commits.on_renewed
        self.on_failed = commits.on_failed
        self.on_refused = commits.on_refused
        self.on_ran = apart.on_ran
        self.on_load = reads.on_load
        self.on_sweep = reads.on_sweep
        self.on_scan = reads.on_scan
        self.on_listed = reads.on_listed
        self.settle = ownership.settle
        """Call after each round of events."""
        # And so does what it fetches.
        self.next_batch = self._outbox.next_batch
        self.next_first = commits.next_first
        """What a lane has to send before `next_batch`, while `comes_first`."""
        self.waits = self._history.waits
        """Ask for each batch, each time before it is sent."""
        self.send = commits.send
        """Call for each batch, each time that it is sent."""
        self.renewal_is_due = commits.renewal_is_due
        self.renew = commits.renew
        self.take_runs = apart.take_runs
        self.next_sweep = self._reading.next_sweep
        self.next_scan = self._reading.next_scan
        self.take_messages = ownership.take_messages
        self.to_repeat = ownership.to_repeat
        self.held_epochs = self._tenures.packed
        """This process's own list: packed epochs, 4 bytes a partition."""

    def __repr__(self) -> str:
        return (
            f"HandlerCore({self.nonce.hex()}, grant {self.grant.life}.{self.grant.version}, "
            f"{len(self._tenures)} partitions, {self._outbox!r})"
        )

    # ------------------------------------------------------------------- time passes

    def on_timer(self, now: float) -> None:
        """Call about every 20 ms: ends calls that waited too long for an owner, for the store or for their
        turn, and runs that took too long.
        """
        self._apart.on_timer(now)
        self._calls.on_timer(now)
        self._delete(self._forgetting.turn(now))
        self._expiry.turn()

    def on_goodbye(self, session: int) -> None:
        """The client of that session is gone, and all that it ever sent was answered."""
        self._delete(self._forgetting.end(session))

    def _delete(self, forgotten: Sequence[Change]) -> None:
        for change in forgotten:
            self._commit(change)

    def _commit(self, change: Change) -> None:
        """A change that no call waits for."""
        self._answers.pending += 1
        self._outbox.add(change)

    def wall(self) -> float:
        """Unix time, as the shell's clock has it."""
        return self.home.wall()

    # ---------------------------------------------------------------------- how it is

    @property
    def grant(self) -> GrantRef:
        """As the leader last told it."""
        return self._ownership.grant

    @property
    def set_version(self) -> int:
        """The highest of the in-sync set under which a write of this process was acknowledged."""
        return self._commits.set_version

    @property
    def table(self) -> Table | None:
        """The newest that is known."""
        return self._calls.table

    @property
    def revoked(self) -> bool:
        """The grant has ended for good: this process serves nothing any more."""
        return self._tenures.revoked

    @property
    def on_tenure(self) -> Callable[[str, int, int], None]:
        """Told of each partition that is "adopted", "released" or "lost", with its epoch."""
        return self._ownership.on_tenure

    @on_tenure.setter
    def on_tenure(self, told: Callable[[str, int, int], None]) -> None:
        self._ownership.on_tenure = told

    def beat(self) -> Beat:
        """The counts since the start."""
        answers = self._answers
        return Beat(
            self.nonce,
            self.grant.version,
            answers.done,
            answers.entity_errors,
            answers.not_executed,
            answers.unknown,
            sum(tenure.keys for tenure in self._tenures.in_memory.values()),
            self.health,
            self.async_lag_s * 1000,
        )

    @property
    def counts(self) -> Counts:
        """Of its calls; may be read by another thread."""
        a = self._answers
        return Counts(a.pending, a.done, a.entity_errors + a.not_executed + a.unknown)

    @property
    def taken_in(self) -> int:
        """Keys that were made into objects, since the start."""
        return self._cache.taken_in

    @property
    def has_queued(self) -> bool:
        """Some change is in no batch yet."""
        return self._outbox.queued > 0

    def has_queued_of(self, durability: Durability) -> bool:
        """Some change of that class is in no batch yet."""
        return self._outbox.has_queued(durability)

    @property
    def comes_first(self) -> bool:
        """Something has to be sent before anything new."""
        return self._history.is_due

    @property
    def is_behind(self) -> bool:
        """The store may lack what this handler was told that it has: nothing is read from it."""
        return self._history.is_behind

    @property
    def resent(self) -> int:
        """Batches that were acknowledged in an earlier life, and that the primary of this one lacked."""
        return self._history.resent

    @property
    def has_wants(self) -> bool:
        """Some key has to be read from the store, and may be."""
        return self._reading.is_due and not self._history.is_behind

    def take_wants(self) -> list[Load]:
        """Reads that are due, to go to the store in one call."""
        return [] if self._history.is_behind else self._reading.take_wants()

    @property
    def has_listings(self) -> bool:
        """Some partition's keys are to be read from the store, and may be."""
        return self._listings.is_due and not self._history.is_behind

    def next_listing(self) -> Listing | None:
        """The listing whose next page is to be read."""
        return None if self._history.is_behind else self._listings.next()

    @property
    def is_idle(self) -> bool:
        """No call is in progress."""
        return not (self._answers.pending or self._calls.is_any_held)
