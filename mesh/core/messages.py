"""Control messages between supervisor, handlers, wardens and tools: typed, named, flat.

Each is a frozen dataclass, and on the wire a msgpack array of its name and fields. Every message of a
leader carries its token; receivers refuse lower ones (counterexamples F9).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

import msgpack

from mesh.core.wire import Kind, pack_frame, unpack_envelope
from mesh.errors import ProtocolError

PAIRS_A_MESSAGE = 512
"""Most (partition, epoch) pairs in one message: within the wire's limit on a message's elements."""


def in_parts(pairs: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """The pairs, as many at a time as one message may carry."""
    for at in range(0, len(pairs), PAIRS_A_MESSAGE):
        yield pairs[at : at + PAIRS_A_MESSAGE]


class Message:
    """Base: registers its subclasses by name."""

    _known: ClassVar[dict[str, type[Message]]] = {}

    def __init_subclass__(cls) -> None:
        Message._known[cls.__name__] = cls

    def frame(self, kind: Kind = Kind.CONTROL) -> bytes:
        """The whole frame."""
        # Fields are plain: none of them has to be copied, as dataclasses.astuple would.
        fields = [getattr(self, name) for name in self.__match_args__]  # type: ignore[attr-defined]
        return pack_frame(kind, msgpack.packb((type(self).__name__, *fields)))


def unpack_message(body: bytes) -> Message:
    """Read a control message.

    Raises:
        ProtocolError: malformed, of an unknown name, or with other fields than its name has, be it in
            number or in type: receivers keep what they are told, and would fail on it long after.
    """
    value = unpack_envelope(body)
    if not isinstance(value, list) or not value or not isinstance(value[0], str):
        raise ProtocolError(f"not a control message: {value!r:.80}")
    cls = Message._known.get(value[0])
    if cls is None:
        raise ProtocolError(f"unknown control message {value[0]!r:.80}")
    checks = _checks(value[0])
    if len(value) - 1 > len(checks):
        raise ProtocolError(f"malformed {value[0]}: {len(value) - 1} fields, it has {len(checks)}")
    for field, (name, fits) in zip(value[1:], checks, strict=False):
        if not fits(field):
            raise ProtocolError(f"malformed {value[0]}: {name} is {field!r:.80}")
    try:
        return cls(*value[1:])
    except TypeError as error:
        raise ProtocolError(f"malformed {value[0]}: {error}") from error


@cache
def _checks(message: str) -> list[tuple[str, Callable[[Any], bool]]]:
    """For each field of that message its name, and what tells whether a value is of its type."""
    cls: Any = Message._known[message]
    hints = get_type_hints(cls)
    return [(name, _check(hints[name])) for name in cls.__match_args__]


def _check(hint: Any) -> Callable[[Any], bool]:
    origin, inner = get_origin(hint), [_check(h) for h in get_args(hint)]
    if hint is Any:
        return lambda _: True
    if origin is UnionType:
        return lambda value: any(fits(value) for fits in inner)
    if origin is list:
        [fits] = inner
        return lambda value: isinstance(value, list) and all(map(fits, value))
    if origin is tuple:
        return lambda value: (
            isinstance(value, list)
            and len(value) == len(inner)
            and all(fits(v) for fits, v in zip(inner, value, strict=True))
        )
    if hint is float:
        return lambda value: type(value) in (int, float)
    return lambda value: type(value) is hint


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """First on every connection, from the side that opened it."""

    mesh: str
    role: str
    token: str = ""
    nonce: bytes = b""


@dataclass(frozen=True, slots=True)
class Welcome(Message):
    """The answer to a hello: who answers. The table follows in a frame of its own, once there is one."""

    mesh: str
    role: str
    id: str
    nonce: bytes
    partitions: int


@dataclass(frozen=True, slots=True)
class Refused(Message):
    """The connection ends here, and why. `auth` tells a wrong token from other mistakes."""

    reason: str
    auth: bool = False


@dataclass(frozen=True, slots=True)
class Register(Message):
    """A handler process offers itself, or comes back after a broken connection.

    `held` is its own list: packed epochs, 4 bytes a partition, 0 where it holds nothing. `set_version`: the
    highest version of the in-sync set under which any of its writes was acknowledged.
    """

    id: str
    nonce: bytes
    host: str
    port: int
    pid: int
    warden: str
    weight: float
    region: str | None
    zone: str | None
    life: int
    grant_version: int
    held: bytes
    set_version: int = 0


@dataclass(frozen=True, slots=True)
class Grant(Message):
    """The leader tells a process what its grant holds. `epochs` is the whole packed array."""

    token: int
    nonce: bytes
    life: int
    version: int
    active: bool
    epochs: bytes


@dataclass(frozen=True, slots=True)
class Adopted(Message):
    """A handler took up the grant of that version."""

    nonce: bytes
    life: int
    version: int


@dataclass(frozen=True, slots=True)
class Release(Message):
    """The leader asks a handler to give up partitions: pairs of (partition, epoch)."""

    token: int
    partitions: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Released(Message):
    """Settled and given up for good; `token` is the asker's. What it does not hold is `not_held`."""

    nonce: bytes
    token: int
    partitions: list[tuple[int, int]]
    not_held: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Dropped(Message):
    """A handler lost partitions that nobody asked it for (the store refused their batch, or their read).

    Repeated with each beat until its grant has changed: the leader gives it new epochs.
    """

    nonce: bytes
    partitions: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Missing(Message):
    """The store lacks batches that it had acknowledged to a handler, which has them no more, either.

    It ends: what it would write next does not follow on what is there.

    Attributes:
        partitions: how many it held.
    """

    nonce: bytes
    life: int
    partitions: int


@dataclass(frozen=True, slots=True)
class Beat(Message):
    """A handler's counts, once a second."""

    nonce: bytes
    grant_version: int
    done: int
    entity_errors: int
    not_executed: int
    unknown: int
    keys: int
    health: str = "ok"
    async_lag_ms: float = 0.0
    """What it has written of class "async" is on every in-sync node but for the last so many."""


@dataclass(frozen=True, slots=True)
class Stop(Message):
    """The leader asks a process to end in good order."""

    token: int


@dataclass(frozen=True, slots=True)
class Goodbye(Message):
    """A client closes, and all that it ever sent for this session was answered: forget the session."""

    session: int


Complained = tuple[bytes, int, float, float, float, float]
"""A mesh.core.impressions.Complaint, as it travels."""


@dataclass(frozen=True, slots=True)
class Complaints(Message):
    """What a client sees of handlers that are far from the others; it says so to one of the others."""

    about: list[Complained]


@dataclass(frozen=True, slots=True)
class ClientSays(Message):
    """A handler passes on to the leader what a client complains of.

    `by` names the machine of the client, as the handler sees it, and `among` how many machines of clients are
    connected there: what several clients on one machine see may be that machine's doing.
    """

    by: str
    among: int
    about: list[Complained]


@dataclass(frozen=True, slots=True)
class WardenHere(Message):
    """A warden reports for work, with the nonces of the handler processes it watches."""

    id: str
    node: str
    pid: int
    watching: list[bytes]


@dataclass(frozen=True, slots=True)
class Exited(Message):
    """A warden's proof, of `ago_ms` before it was sent: that process of that handler executes nothing any
    more.
    """

    nonce: bytes
    handler: str
    ago_ms: float


@dataclass(frozen=True, slots=True)
class Leading(Message):
    """A supervisor leads by this token, in this life. Said on every link to a handler, a warden or another
    supervisor when that begins, and first on each new one. A handler answers with `Register`.
    """

    token: int
    life: int
    id: str


@dataclass(frozen=True, slots=True)
class LeaderBeat(Message):
    """The leader of that token is there; to the other supervisors, ten times a second.

    `set_version` is that of the in-sync set under which the store acknowledges in that life: a later leader
    takes no node for complete whose own record is older.
    """

    token: int
    life: int
    set_version: int


@dataclass(frozen=True, slots=True)
class SupervisorHere(Message):
    """A supervisor introduces itself to another one, on the link that it has made."""

    id: str
    host: str
    port: int
    pid: int


@dataclass(frozen=True, slots=True)
class Happened(Message):
    """An event, from supervisor to supervisor, so that what one has recorded outlives it.

    `origin` is the process that recorded it, and `number` its count there; `event` is JSON. `is_past`: of
    before this link was made.
    """

    origin: bytes
    number: int
    event: bytes
    is_past: bool


@dataclass(frozen=True, slots=True)
class Ask(Message):
    """A tool's question to the leader: `what` with arguments; answered by `Answer` of the same number."""

    number: int
    what: str
    args: list[Any]


@dataclass(frozen=True, slots=True)
class Answer(Message):
    """The reply to `Ask`; `error` is empty where it went well."""

    number: int
    error: str
    value: Any
