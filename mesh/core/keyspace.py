"""Where a key lives: partition = stable_hash(key) mod P.

The hash is BLAKE2b (RFC 7693) with an 8-byte digest: the same in every process, on every platform
and in every version of Python (`hash()` is none of these), spread evenly for keys that differ
in few bits (a CRC is not), and in the standard library. Golden values are part of the tests: a change
would send every stored key to another partition.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

from mesh.errors import BadRequest

MAX_KEY_BYTES = 512
MAX_PARTITIONS = 16_384
DEFAULT_PARTITIONS = 256


def key_bytes(key: str | bytes) -> bytes:
    """The bytes that name a key; "a" and b"a" are the same key.

    Raises:
        BadRequest: not a str or bytes, empty, over 512 bytes, or not encodable as UTF-8.
    """
    if isinstance(key, str):
        try:
            raw = key.encode()
        except UnicodeEncodeError:
            raise BadRequest(f"key {key!r} holds a lone surrogate; pass bytes instead") from None
    elif isinstance(key, bytes):
        raw = key
    else:
        raise BadRequest(f"key must be str or bytes, not {type(key).__name__}: {key!r:.80}")
    if not 1 <= len(raw) <= MAX_KEY_BYTES:
        raise BadRequest(f"key must be 1 to {MAX_KEY_BYTES} bytes long, this one has {len(raw)}")
    return raw


def stable_hash(key: bytes) -> int:
    """64-bit hash of a key's bytes."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")


@lru_cache(maxsize=65_536)
def partition_of(key: bytes, partitions: int) -> int:
    """Number of the partition that holds `key`, 0 … partitions - 1."""
    return stable_hash(key) % partitions


def check_partitions(partitions: int) -> int:
    """`partitions` if it can be a mesh's number of partitions."""
    if not 1 <= partitions <= MAX_PARTITIONS:
        raise BadRequest(f"a mesh has 1 to {MAX_PARTITIONS} partitions, not {partitions}")
    return partitions
