"""A call as its caller gave it, checked and written down; and what its caller gets in the end.

Both clients begin and end calls here, in whatever thread the caller is in. What is wrong with a call is said
before anything is sent; its options are the same however it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mesh.client.outcome import Outcome
from mesh.codec import PLAIN_CODEC, Codec
from mesh.core.call import Result
from mesh.core.calling import DEFAULT_PRIORITY
from mesh.core.keyspace import key_bytes
from mesh.core.payload import NO_META, Meta, check_idempotency_key, pack_call
from mesh.core.wire import Status
from mesh.entities import EntitySpec, MethodRef, spec_of
from mesh.errors import BadRequest, EntityError, MeshError, ProtocolError

Plain = None | bool | int | float | str | bytes
"""What metadata holds."""
DEFAULT_TIMEOUT_S = 10.0
MAX_TIMEOUT_S = 86_400.0
"""How long a handler keeps what it needs to recognise a call that is sent again."""
MAX_PAYLOAD_BYTES = 2 * 1024 * 1024
MAX_PRIORITY = 255
BY_NAME = (
    "; called by name, it is not known which types the entity declares: call through the class"
)


class Prepared(NamedTuple):
    """All that the client's core has to know of a call, and what its reply is read with."""

    key: bytes
    payload: bytes
    timeout: float
    priority: int
    idempotency_key: str | None
    codec: Codec
    reads: Callable[[Prepared, Result, Known], Any]
    """Makes what the caller gets of how the call ended: `read`, or `read_outcome`."""
    partition: int = -1
    """Of a call that is for a whole partition, and has no key."""


Known = Callable[[Prepared], dict[str, Any]]


def meta_of(idempotency_key: str | None, metadata: Mapping[str, Any] | None) -> Meta:
    """What goes along with a call that has these options.

    Raises:
        BadRequest: the key is not text of 1 to 256 bytes.
    """
    if idempotency_key is None and not metadata:
        return NO_META
    if idempotency_key is not None:
        check_idempotency_key(idempotency_key)
    return Meta(idempotency_key or "", metadata=metadata or {})


def asking(idempotency_key: str) -> Meta:
    """What goes along with a question for the outcome of the call under that key.

    Raises:
        BadRequest: the key is not text of 1 to 256 bytes.
    """
    check_idempotency_key(idempotency_key)
    return Meta(idempotency_key, asks=True)


def prepare(
    method: MethodRef[..., Any] | str,
    key: str | bytes,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    timeout: float,
    priority: int | None,
    meta: Meta,
) -> Prepared:
    """Check a call and write it down.

    Raises:
        BadRequest: what can be seen without asking the mesh.
    """
    own = meta.idempotency_key or None
    named: Any = method
    try:
        raw = key_bytes(key)
        spec: EntitySpec | None = None
        if isinstance(method, MethodRef):
            if not meta.asks:
                method.method.check(args, kwargs)
            spec = spec_of(method.owner)
            name, codec = f"{spec.name}.{method.method.name}", spec.codec
        elif isinstance(named, str) and "." in named:
            name, codec = named, PLAIN_CODEC
        else:
            raise BadRequest(f'method must be Entity.method or "Entity.method", not {method!r:.80}')
        if priority is None:
            priority = DEFAULT_PRIORITY if spec is None or spec.priority is None else spec.priority
        _check_options(timeout, priority)
        payload = _pack(codec, name, raw, args, kwargs, meta)
    except MeshError as error:
        error.idempotency_key = own
        raise
    reads = read_outcome if meta.asks else read
    return Prepared(raw, payload, timeout, priority, own, codec, reads)


def prepare_listing(name: str, partition: int, args: tuple[Any, ...], timeout: float) -> Prepared:
    """Write down a call for a whole partition.

    Raises:
        BadRequest: an option is out of range.
    """
    _check_options(timeout, DEFAULT_PRIORITY)
    payload = _pack(PLAIN_CODEC, name, b"", args, {}, NO_META)
    return Prepared(b"", payload, timeout, DEFAULT_PRIORITY, None, PLAIN_CODEC, read, partition)


def _pack(
    codec: Codec,
    name: str,
    key: bytes,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    meta: Meta,
) -> bytes:
    along = b"" if meta is NO_META else meta.encode()
    try:
        payload = pack_call(codec, name, key, args, kwargs, along)
    except (TypeError, ValueError) as error:
        hint = BY_NAME if codec is PLAIN_CODEC else ""
        raise BadRequest(f"arguments of {name} cannot be sent: {error}{hint}") from None
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise BadRequest(
            f"arguments of {name} take {len(payload)} bytes, the limit is {MAX_PAYLOAD_BYTES}"
        )
    return payload


def _check_options(timeout: Any, priority: Any) -> None:
    try:
        fits = 0 < timeout <= MAX_TIMEOUT_S  # not true of nan
    except TypeError:
        fits = False
    if not fits:
        raise BadRequest(
            f"timeout must be above 0 seconds and up to {MAX_TIMEOUT_S:g}, not {timeout!r}"
        )
    if type(priority) is not int or not 0 <= priority <= MAX_PRIORITY:
        raise BadRequest(
            f"priority is a whole number from 0 to {MAX_PRIORITY}, not {priority!r:.80}"
        )


def read(prepared: Prepared, result: Result, known: Known) -> Any:
    """What the caller gets.

    Args:
        known: what an error says beside its message.

    Raises:
        MeshError: what the call ended in; a ProtocolError where its end cannot be read.
    """
    error = result.error
    try:
        if error is None:
            return prepared.codec.unpack(result.payload)
        if isinstance(error, EntityError):
            # Still as the handler wrote them: the core knows no codec.
            packed: Any = error.details
            error.details = prepared.codec.unpack(packed)
    except ValueError as cause:
        what = "reply" if error is None else f"error ({error.message})"
        text = f"the call was executed, its {what} cannot be decoded: {cause}"
        raise ProtocolError(text, executed=True, **known(prepared)) from cause
    raise error


def read_outcome(prepared: Prepared, result: Result, known: Known) -> Outcome[Any]:
    """What `client.outcome` returns.

    Raises:
        MeshError: why it is not known.
    """
    try:
        return Outcome(executed=True, _reply=read(prepared, result, known))
    except EntityError as error:
        return Outcome(executed=True, _error=error)
    except MeshError as error:
        if result.status == Status.RULED_OUT:
            return Outcome(executed=False, _error=error)
        raise
