"""`mesh.context()`: what a running method may know of its call, and its way to other entities.

A plain method runs in one go on its handler's loop, so all that it pays is an assignment: the handler leaves
what it runs in the place of its thread (`here`), and a Context is made of it when somebody asks. An async
method is suspended and resumed among others: its task carries the same in a ContextVar, and so do the
tasks that it starts. A blocking one has its thread's place to itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Protocol

from mesh.errors import BadRequest, DeadlineExceeded
from mesh.methods import MethodRef

MAX_DERIVED_BYTES = 200
"""Of an idempotency key made of another one; a longer one is hashed."""

Caller = Callable[["Outgoing"], Any]
"""Makes a call for a method: an awaitable for an async one, the reply for a blocking one."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A call that a method makes.

    Attributes:
        timeout_s: until the deadline of the call that it belongs to, at most.
        idempotency_key: the same each time that its method runs.
        chain: (entity, key) of the calls that it comes from, the outermost first.
    """

    method: MethodRef[..., Any] | str
    key: str | bytes
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    timeout_s: float
    idempotency_key: str
    chain: tuple[tuple[str, bytes], ...]


@dataclass(eq=False, slots=True)
class Context:
    """One run of a method, as the method sees it.

    Attributes:
        idempotency_key: of this call: the same for all its attempts and runs, and for no other call. Pass
            it on to whatever is outside the mesh.
        entity: name of the entity.
        method: "Entity.method".
        key: of the entity, as text; `key_bytes` is exact where a key is none.
        partition: that the key belongs to.
        epoch: of the owner's tenure: a higher one is a later owner.
        attempt: 1 for the caller's first, 2 for its first resend, ...
        deadline: when its caller stops waiting, on `time.monotonic()` of this machine.
        metadata: whatever the caller gave along.
        resources: what this entity's on_start has put there, in this handler.
    """

    idempotency_key: str
    entity: str
    method: str
    key_bytes: bytes
    partition: int
    epoch: int
    attempt: int
    deadline: float
    metadata: Mapping[str, Any]
    resources: dict[str, Any]
    _now: Callable[[], float] = field(repr=False)
    _chain: tuple[tuple[str, bytes], ...] = field(repr=False)
    _caller: Caller = field(repr=False)
    _made: int = field(default=0, repr=False)

    @property
    def key(self) -> str:
        """The key as text; what is no UTF-8 in it is kept as lone surrogates."""
        return self.key_bytes.decode(errors="surrogateescape")

    @property
    def seconds_left(self) -> float:
        """Until the deadline; never below 0."""
        return max(0.0, self.deadline - self._now())

    def call(
        self,
        method: MethodRef[..., Any] | str,
        key: str | bytes,
        /,
        *args: Any,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """Call another entity: `await` it in an async method; in a blocking one it returns the reply.

        It has an idempotency key of its own, made of this call's and of how many calls this run has made
        before: should this method run again, its calls are recognised as those made before. There are no
        transactions across keys: what it did stays when this method fails.

        Args:
            method: `Account.deposit`, or its name.
            key: str or bytes, 1 to 512 bytes.
            args: the method's positional arguments; kwargs its keyword arguments.
            timeout: seconds; until this call's own deadline, which is the most, by default.

        Raises:
            BadRequest: this method is a plain one, or the key is one that this call, or a call that it came
                from, holds: it would wait for ever.
            DeadlineExceeded: this call's own deadline has passed.
        """
        raw = key.encode() if isinstance(key, str) else key
        name = method if isinstance(method, str) else method.name
        target = name.partition(".")[0], raw
        chain = (*self._chain, (self.entity, self.key_bytes))
        if target in chain:
            path = " -> ".join(f"{entity} {held!r:.80}" for entity, held in (*chain, target))
            raise BadRequest(f"{name} would wait for ever for its own end: {path}")
        left = self.seconds_left
        if not left:
            raise DeadlineExceeded(f"{self.method} has no time left for calling {name}")
        self._made += 1
        return self._caller(
            Outgoing(
                method,
                key,
                args,
                kwargs,
                left if timeout is None else min(left, timeout),
                derived(self.idempotency_key, self._made),
                chain,
            )
        )


def derived(idempotency_key: str, ordinal: int) -> str:
    """The idempotency key of the call that is the `ordinal`-th of the call with that key."""
    key = f"{idempotency_key}/{ordinal}"
    blob = key.encode(errors="surrogatepass")
    return key if len(blob) <= MAX_DERIVED_BYTES else blake2b(blob, digest_size=16).hexdigest()


class Source(Protocol):
    """Something that runs: what a Context is made of."""

    def context(self) -> Context:
        """The context of this run."""
        ...


class Here:
    """A thread's place for what runs on it at this moment."""

    __slots__ = ("source",)

    def __init__(self) -> None:
        self.source: Source | None = None


class _Place(threading.local):
    def __init__(self) -> None:
        self.here = Here()


_place = _Place()
task_source: ContextVar[Source | None] = ContextVar("mesh_source", default=None)
"""What runs in this task, where that is an async method."""


def here() -> Here:
    """The place of the thread that asks."""
    return _place.here


def context() -> Context:
    """What the running method may know of its call.

    Raises:
        BadRequest: called outside a method that a handler runs.
    """
    source = _place.here.source or task_source.get()
    if source is None:
        raise BadRequest(
            "mesh.context() is for commands and queries while a handler runs them; "
            "there is none here"
        )
    return source.context()
