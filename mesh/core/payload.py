"""What a request says beside its header: [method, key, args], [.., kwargs] or [.., kwargs, meta].

The whole of it is written by the codec of the called entity. A handler reads the method's name where it
stands, at the front, and so knows whose codec reads the rest, arguments of declared types included: one
pass, and no bytes within bytes. (Measured: 0.1 µs dearer than plain msgpack with a fixed layout; arguments
nested as bytes of their own cost 0.5 µs.)

`meta` is what does not belong to the arguments: the caller's idempotency key and metadata, and the calls that
this one came from. It is written by itself and stands last, so that the digest, which tells whether two
calls of one id are the same call, leaves it out: a retry may bear another trace id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import msgpack

from mesh.codec import PLAIN_CODEC, Codec
from mesh.core.callerkeys import NO_ARGUMENTS, caller_digest
from mesh.core.keyspace import MAX_KEY_BYTES
from mesh.entities import EntitySpec, Method, Registry
from mesh.errors import BadRequest
from mesh.methods import BuiltIn

MAX_META_BYTES = 16 * 1024
MAX_METADATA = 16
MAX_METADATA_BYTES = 4096
MAX_IDEMPOTENCY_KEY_BYTES = 256
MAX_CHAIN = 32
"""Calls inside calls: so deep a chain is a mistake, and each of them holds its key."""
_PLAIN = (type(None), bool, int, float, str, bytes)
_READ_META = PLAIN_CODEC.reader(MAX_CHAIN * 2)


@dataclass(frozen=True, slots=True)
class Meta:
    """What goes along with a call.

    Attributes:
        idempotency_key: the caller's own; empty where there is none.
        asks: it only asks how the call under that key ended, and rules it out where there was none.
        metadata: whatever the caller gave, plain values by name.
        chain: (entity, key) of the calls that this one came from, the outermost first.
    """

    idempotency_key: str = ""
    asks: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)
    chain: tuple[tuple[str, bytes], ...] = ()

    def encode(self) -> bytes:
        """Bytes of it; empty where there is nothing to say.

        Raises:
            BadRequest: metadata that cannot be sent, or over a limit.
        """
        _check(self)
        parts: dict[str, Any] = {}
        if self.idempotency_key:
            parts["k"] = self.idempotency_key
        if self.asks:
            parts["asks"] = True
        if self.metadata:
            parts["metadata"] = dict(self.metadata)
        if self.chain:
            parts["chain"] = [list(link) for link in self.chain]
        if not parts:
            return b""
        try:
            blob = PLAIN_CODEC.pack(parts)
            metadata_bytes = len(PLAIN_CODEC.pack(parts.get("metadata", {})))
        except (TypeError, ValueError) as error:
            raise BadRequest(f"metadata cannot be sent: {error}") from None
        if metadata_bytes > MAX_METADATA_BYTES:
            raise BadRequest(
                f"metadata takes {metadata_bytes} bytes, the limit is {MAX_METADATA_BYTES}"
            )
        if len(blob) > MAX_META_BYTES:
            raise BadRequest(
                f"what goes along with a call takes {len(blob)} bytes, "
                f"the limit is {MAX_META_BYTES}"
            )
        return blob

    @classmethod
    def decode(cls, blob: bytes) -> Meta:
        """Read it; what this version does not know is passed over.

        Raises:
            BadRequest: malformed, or over a limit.
        """
        if len(blob) > MAX_META_BYTES:
            raise BadRequest(f"meta of {len(blob)} bytes is over the limit of {MAX_META_BYTES}")
        try:
            parts = _READ_META(blob)
            meta = cls(
                parts.get("k", ""),
                parts.get("asks") is True,
                parts.get("metadata", {}),
                tuple((entity, key) for entity, key in parts.get("chain", ())),
            )
        except (ValueError, TypeError, AttributeError) as error:
            raise BadRequest(f"meta cannot be decoded: {error!r:.200}") from None
        _check(meta)
        return meta


NO_META = Meta()


def check_idempotency_key(own: Any) -> None:
    """Refuse what a caller's key cannot be.

    Raises:
        BadRequest: not text, empty, too long, or not encodable as UTF-8.
    """
    if type(own) is str:
        size = len(own.encode(errors="replace"))
        if 1 <= size <= MAX_IDEMPOTENCY_KEY_BYTES and own.encode(errors="ignore").decode() == own:
            return
    raise BadRequest(
        f"an idempotency key is text of 1 to {MAX_IDEMPOTENCY_KEY_BYTES} bytes in UTF-8, "
        f"not {shown(own)}"
    )


def _check(meta: Meta) -> None:
    if meta.idempotency_key != "":
        check_idempotency_key(meta.idempotency_key)
    metadata: Any = meta.metadata
    if not isinstance(metadata, Mapping) or len(metadata) > MAX_METADATA:
        raise BadRequest(
            f"metadata is a dict of up to {MAX_METADATA} entries, not {shown(metadata)}"
        )
    for name, value in metadata.items():
        if type(name) is not str or type(value) not in _PLAIN:
            raise BadRequest(
                f"metadata holds None, bool, int, float, str or bytes by name, "
                f"not {shown(name)}: {shown(value)}"
            )
    chain: Any = meta.chain
    if len(chain) > MAX_CHAIN:
        raise BadRequest(f"{len(chain)} calls inside one another, the limit is {MAX_CHAIN}")
    for entity, key in chain:
        if type(entity) is not str or type(key) is not bytes:
            raise BadRequest(f"a chain is of (entity, key), not {shown((entity, key))}")


Decoded = tuple[EntitySpec, Method, bytes, list[Any], dict[str, Any], Meta, bytes]
"""A request's payload, read: entity, method, key, args, kwargs, meta, and the digest of method, key and
arguments, by which a command is recognised (a query has none). A plain tuple, since each call makes one.
"""


def pack_call(
    codec: Codec,
    name: str,
    key: bytes,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    meta: bytes = b"",
) -> bytes:
    """A request's payload; `meta` as Meta.encode wrote it.

    Raises:
        TypeError: an argument of a type that the codec does not know.
        ValueError: an argument beyond a limit.
    """
    if meta:
        return codec.pack([name, key, list(args), dict(kwargs), meta])
    if kwargs:
        return codec.pack([name, key, list(args), dict(kwargs)])
    return codec.pack([name, key, list(args)])


def unpack_call(payload: bytes, registry: Registry, most: int) -> Decoded:
    """Read a request's payload, which may be anybody's.

    Args:
        most: elements of any one list, dict, tuple or set in it.

    Raises:
        BadRequest: malformed, over a limit, of an unknown method, or with arguments that it does not take.
    """
    found = registry.at_front(payload)
    if found is None:
        found = _look_for(payload, registry, most)
    spec, method = found
    try:
        value = spec.codec.reader(most)(payload)
    except ValueError as error:
        raise BadRequest(f"arguments cannot be decoded: {error!s:.300}") from None
    size = len(value) if type(value) is list else 0
    if size == 3:
        _, key, args = value
        kwargs: dict[str, Any] = {}
    elif size in (4, 5):
        key, args, kwargs = value[1:4]
    else:
        raise _malformed(value)
    if type(args) is not list or type(kwargs) is not dict:
        raise _malformed(value)
    if type(key) is not bytes or not 1 <= len(key) <= MAX_KEY_BYTES:
        _allow_no_key(key, method)
    if size == 5:
        blob = value[4]
        if type(blob) is not bytes:
            raise _malformed(value)
        meta = Meta.decode(blob)
        digest = _digest_without(payload, len(blob), kwargs)
        if meta.idempotency_key:
            digest = caller_digest(method.name, NO_ARGUMENTS if meta.asks else digest)
    else:
        meta = NO_META
        digest = b"" if method.query else blake2b(payload, digest_size=8).digest()
    if not meta.asks:
        method.check(args, kwargs)
    elif method.query or not meta.idempotency_key:
        raise BadRequest(f"nothing is recorded of {method.function.__qualname__} without a key")
    return spec, method, key, args, kwargs, meta, digest


def _allow_no_key(key: Any, method: Method) -> None:
    """A listing is for a whole partition."""
    if method.built_in is not BuiltIn.KEYS or key != b"":
        raise BadRequest(f"a key is 1 to {MAX_KEY_BYTES} bytes, not {shown(key)}")


def _look_for(payload: bytes, registry: Registry, most: int) -> tuple[EntitySpec, Method]:
    """The method of a payload that does not begin with the name of one: say what is wrong with it."""
    try:
        value = msgpack.unpackb(
            payload,
            strict_map_key=False,
            ext_hook=lambda _code, _data: None,
            max_array_len=most,
            max_map_len=most,
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise BadRequest(f"arguments cannot be decoded: {error!r:.200}") from None
    if type(value) is not list or not 3 <= len(value) <= 5 or type(value[0]) is not str:
        raise _malformed(value)
    return registry.find(value[0])


def _digest_without(payload: bytes, meta_bytes: int, kwargs: dict[str, Any]) -> bytes:
    """As if the call had been sent without meta, and without kwargs where there are none."""
    header = 2 if meta_bytes < 1 << 8 else 3
    end = len(payload) - meta_bytes - header
    if not kwargs:
        end -= 1
    short = (b"\x94" if kwargs else b"\x93") + payload[1:end]
    return blake2b(short, digest_size=8).digest()


def _malformed(value: Any) -> BadRequest:
    return BadRequest(f"a request is [method, key, args, kwargs, meta], not {shown(value)}")


def shown(value: Any) -> str:
    """A stranger's value for an error message; Python refuses to write down a number of 5,000 digits."""
    try:
        return f"{value!r:.120}"
    except Exception:  # noqa: BLE001 - whatever its __repr__ raises
        return f"a {type(value).__name__}"
