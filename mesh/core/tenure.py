"""What a handler holds of one partition, from one grant to its end: keys, records, calls that wait.

All of it belongs to one epoch. When the epoch ends the object is dropped whole, so no cache of an earlier
tenure can answer in a later one (dapr/dotnet-sdk#986 is that bug).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

from mesh.context import Caller, Context, Here, Outgoing, Source, here
from mesh.core.dedupe import SessionLog
from mesh.core.lanes import RECORD_TAGS
from mesh.core.lease import Lease
from mesh.core.outbox import Change
from mesh.core.outcomes import Outcome, Records
from mesh.core.parts import Cut, rewritten
from mesh.core.payload import Meta
from mesh.core.retention import Retention
from mesh.core.wire import Request
from mesh.entities import EntitySpec, Method, Registry
from mesh.errors import BadRequest
from mesh.specs import Durability

STATE_PREFIX = b"s"
MAX_VALUE_BYTES = 1024 * 1024
FOREVER = 1.0
"""In place of the time at which a key was changed, where nobody asks for it."""


def state_field(entity: str, key: bytes) -> bytes:
    """Name of a key's state in its partition's hash; entity names hold no NUL, keys may."""
    return _state_prefix(entity) + key


_CLASS_OF: dict[bytes, Durability] = {tag: d for d, tag in RECORD_TAGS.items() if tag}


@cache
def _state_prefix(entity: str) -> bytes:
    return STATE_PREFIX + entity.encode() + b"\0"


def spec_of_field(registry: Registry, field: bytes) -> EntitySpec | None:
    """The entity of the key whose state has that name, where it is served."""
    entity, _, _ = field[len(STATE_PREFIX) :].partition(b"\0")
    return registry.spec(entity.decode(errors="replace"))


class Conn(Protocol):
    """Where a reply goes."""

    def send(self, frame: bytes) -> None:
        """Queue a frame; a connection that is gone ignores it."""
        ...

    def flush(self) -> None:
        """Give what is queued to the kernel now: it arrives even if this process dies the next moment."""
        ...


def _refuse_call(_run: Source, _outgoing: Outgoing) -> Any:
    raise BadRequest(
        "this handler has no client of its own, so its methods cannot call other entities"
    )


def _refuse_plain(outgoing: Outgoing) -> Any:
    name = outgoing.method if isinstance(outgoing.method, str) else outgoing.method.name
    raise BadRequest(
        f"a plain method runs on the handler's loop and cannot wait for {name}: make it async, or "
        f"@mesh.command(blocking=True)"
    )


def _no_time() -> float:
    return 0.0


@dataclass(slots=True)
class Home:
    """What all tenures of one handler share.

    Attributes:
        here: the place of the thread that plain methods run on.
        now: reads the clock, for queries and for a method that asks how much time it has left.
        lease: what covers the answers of queries; of this process as a whole.
        ahead: seconds by which `now` is ahead of `time.monotonic()`, which methods know.
        wall: reads Unix time, for entities that have a ttl.
        call: makes a call for a run; see mesh.context.
        resources: by entity's name what its on_start has made.
        run_limit_s: seconds that an async or blocking method may take which names no limit of its own.
        max_state_bytes: of one key.
        max_reply_bytes: of one call.
        refuses: tells whether a new command for that partition and class is not to be run; None while the
            store takes what is written (mesh.core.writing).
    """

    here: Here = field(default_factory=here)
    now: Callable[[], float] = _no_time
    lease: Lease = field(default_factory=Lease)
    ahead: Callable[[], float] = _no_time
    wall: Callable[[], float] = _no_time
    call: Callable[[Source, Outgoing], Any] = _refuse_call
    resources: dict[str, dict[str, Any]] = field(default_factory=dict)
    run_limit_s: float = 30.0
    max_state_bytes: int = MAX_VALUE_BYTES
    max_reply_bytes: int = MAX_VALUE_BYTES
    refuses: Callable[[int, Durability], bool] | None = None

    def monotonic(self) -> float:
        """`now` as `time.monotonic()` has it."""
        return self.now() - self.ahead()

    def is_leased(self) -> bool:
        """Whether an answer is covered that shows what was read just now, and leaves at once."""
        return self.now() < self.lease.until


Waiter = tuple[Conn, int]
"""Who is to be told how a call ended: a connection, and the call's number among those of its sender."""


class Pending:
    """A request that was admitted: decoded, and on its way to being run."""

    __slots__ = (
        "args",
        "conn",
        "deadline",
        "digest",
        "field",
        "key",
        "kwargs",
        "looked_up",
        "meta",
        "method",
        "request",
        "spec",
        "tenure",
    )

    def __init__(
        self,
        tenure: Tenure,
        conn: Conn,
        request: Request,
        deadline: float,
        spec: EntitySpec,
        method: Method,
        key: bytes,
        args: list[Any],
        kwargs: dict[str, Any],
        meta: Meta,
        digest: bytes,
    ) -> None:
        self.tenure = tenure
        self.conn = conn
        self.request = request
        self.deadline = deadline
        self.spec = spec
        self.method = method
        self.key = key
        self.field = _state_prefix(spec.name) + key
        self.args = args
        self.kwargs = kwargs
        self.meta = meta
        self.digest = digest
        self.looked_up = False

    def context(self, caller: Caller = _refuse_plain) -> Context:
        """See mesh.context.Source."""
        request, tenure, home = self.request, self.tenure, self.tenure.home
        return Context(
            idempotency_key=self.meta.idempotency_key
            or f"{request.session:016x}:{request.counter}",
            entity=self.spec.name,
            method=f"{self.spec.name}.{self.method.name}",
            key_bytes=self.key,
            partition=request.partition,
            epoch=tenure.epoch,
            attempt=request.attempt + 1,
            deadline=self.deadline - home.ahead(),
            metadata=self.meta.metadata,
            resources=home.resources.setdefault(self.spec.name, {}),
            _now=home.monotonic,
            _chain=self.meta.chain,
            _caller=caller,
        )


class Slot:
    """One key in memory: as the commands left it, and as it is acknowledged.

    `blob` is the state after the last command that ran, `acked` the one that every in-sync node has. They
    differ only while commits are in flight; queries then read the acknowledged image. Both are whole states;
    `cut` is how the store has `blob` once all commits that are made have arrived there (mesh.core.parts).

    There is a key once a command has changed it, whatever it was changed to, and until it is deleted. `life`
    tells that of `blob`, `acked_life` of `acked`: 0 is no key, and else when it was last changed, which is
    only known of entities that have a ttl (mesh.core.expiry); what was last changed up to `gone` is over.

    Raises:
        ValueError: what is stored is no state of this entity.
    """

    __slots__ = (
        "acked",
        "acked_life",
        "blob",
        "counted_bytes",
        "cut",
        "extra",
        "gone",
        "image",
        "instance",
        "life",
        "pending",
        "spec",
    )

    def __init__(self, spec: EntitySpec, blob: bytes | None, cut: Cut | None = None) -> None:
        self.spec = spec
        self.cut = cut
        self.acked = self.blob = spec.default_blob if blob is None else blob
        self.acked_life = self.life = 0.0 if blob is None else FOREVER
        self.gone = 0.0
        self.instance: Any = None
        self.extra: dict[str, Any] = {}
        self.image: Any = None
        self.pending = 0
        self.counted_bytes = 0
        self.rebuild()
        if blob is not None:
            # Another version of the class may have written other fields, or in another order. Whether
            # a method changed something is told by comparing bytes, so both sides have to be written
            # by this version; nothing goes to the store for it.
            try:
                self.acked = self.blob = self.encode()
            except TypeError as error:
                raise ValueError(str(error)) from None
            if cut is not None and self.blob != blob:
                self.cut = rewritten(cut, blob, self.blob)

    def rebuild(self) -> None:
        """Make the live instance anew from `blob`: what a command did to it is undone."""
        self.instance, self.extra = self.spec.decode(self.blob)

    def empty(self) -> None:
        """There is no key any more: it starts from the defaults, like one that was never written."""
        self.blob = self.spec.default_blob
        self.cut = None
        self.life = 0.0
        self.rebuild()

    def encode(self) -> bytes:
        """The live instance's bytes."""
        return self.spec.encode(self.instance, self.extra)

    def readable(self) -> Any:
        """An instance that shows only acknowledged state."""
        if self.blob is self.acked or self.blob == self.acked:
            return self.instance
        if self.image is None:
            self.image, _ = self.spec.decode(self.acked)
        return self.image

    def acknowledge(self, blob: bytes, life: float) -> None:
        """A commit with this state is replicated."""
        self.acked_life = life
        if blob is not self.acked:
            self.acked = blob
            self.image = None


class Effect(Change):
    """A command's change, with everything that its acknowledgement has to settle."""

    __slots__ = ("after", "counter", "life", "outcome", "records", "slot", "tenure", "waiters")

    def __init__(
        self,
        tenure: Tenure,
        slot: Slot,
        after: bytes,
        records: Records,
        pending: Pending,
        outcome: Outcome,
        fields: dict[bytes, bytes],
        deleted: list[bytes],
        waiters: list[Waiter],
    ) -> None:
        # Not by way of Change: each command makes one.
        self.durability = slot.spec.durability
        self.partition = tenure.partition
        self.epoch = tenure.epoch
        self.fields = fields
        self.deleted = deleted
        self.size = sum(map(len, fields)) + sum(map(len, fields.values()))
        self.tenure = tenure
        self.slot = slot
        self.after = after
        self.life = slot.life
        self.records = records
        self.counter = pending.request.counter
        self.outcome = outcome
        self.waiters = waiters

    @property
    def digest(self) -> bytes:
        """See Running."""
        return self.outcome.digest


class Tenure:
    """One partition under one epoch.

    Attributes:
        slots: keys in memory, by the name of their field.
        stored: keys as the store has them, by the name of their field: read ahead, and not called yet.
        parts: their large values, by the name of the key's field and their own (mesh.core.parts).
        complete: every stored key is in one of these: a key that is in neither was never written.
        log: outcome records of the class "replicated"; those of the others are in `log_of`.
        warm: every stored outcome record is in memory: an id that is not there is new.
        swept: it was asked for as a whole, which small partitions are read in.
        unreadable: its hash cannot be scanned as things are; each call reads what it needs itself.
        home: what it shares with the others of this handler.
        held: keys that an async or blocking command holds at this moment (mesh.core.runs).
        waiting: for a key that is being loaded or held, the calls that wait for it, in order of arrival.
        release_token: the asker's token while the partition is being given up, else None.
    """

    __slots__ = (
        "_logs",
        "_retention",
        "complete",
        "cursor",
        "epoch",
        "held",
        "home",
        "log",
        "partition",
        "parts",
        "release_token",
        "slots",
        "stored",
        "swept",
        "unreadable",
        "waiting",
        "warm",
    )

    def __init__(
        self,
        partition: int,
        epoch: int,
        retention: Retention | None = None,
        home: Home | None = None,
    ) -> None:
        self.partition = partition
        self.epoch = epoch
        self.home = home or Home()
        self.slots: dict[bytes, Slot] = {}
        self.stored: dict[bytes, bytes] = {}
        self.parts: dict[bytes, dict[str, bytes]] = {}
        self.held: set[bytes] = set()
        self.log = SessionLog(retention)
        self._retention = retention
        self._logs: dict[Durability, SessionLog] = {"replicated": self.log}
        self.complete = True
        self.warm = False
        self.unreadable = False
        self.swept = False
        self.cursor = 0
        self.waiting: dict[bytes, deque[Pending]] = {}
        self.release_token: int | None = None

    def __repr__(self) -> str:
        state = "releasing" if self.release_token is not None else "held"
        return f"Tenure({self.partition}@{self.epoch:#x}, {state}, {self.keys} keys)"

    def log_of(self, durability: Durability) -> SessionLog:
        """The outcome records of that class, which no other class ever deletes or overtakes."""
        log = self._logs.get(durability)
        if log is None:
            log = self._logs[durability] = SessionLog(self._retention, RECORD_TAGS[durability])
        return log

    def logs(self) -> Mapping[Durability, SessionLog]:
        """Those of all classes of which there is any."""
        return self._logs

    def adopt_record(self, name: bytes, blob: bytes) -> None:
        """Take in a stored outcome record; what memory knows already is newer and stays.

        Raises:
            ValueError: it is no record.
        """
        self.log_of(_CLASS_OF.get(name[:1], "replicated")).adopt(name, blob)

    def holds_any(self, prefixes: tuple[bytes, ...]) -> bool:
        """Whether any key in memory has a field that begins with one of these."""
        return any(name.startswith(prefixes) for name in (*self.slots, *self.stored))

    @property
    def keys(self) -> int:
        """How many are in memory."""
        return len(self.slots) + len(self.stored)
