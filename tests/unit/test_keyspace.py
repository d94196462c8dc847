"""Where a key lives: the same for ever, spread evenly, within limits."""

import pytest

from mesh.core.keyspace import (
    MAX_KEY_BYTES,
    MAX_PARTITIONS,
    check_partitions,
    key_bytes,
    partition_of,
    stable_hash,
)
from mesh.errors import BadRequest

GOLDEN = [
    # key, hash, partition of 7, 256 and 16,384. They are in users' stores: never change them.
    (b"a", 0x40F89E395B66422F, 2, 47, 559),
    (b"alice", 0x4DEAEC0CCE54DA89, 2, 137, 6793),
    ("zürich".encode(), 0x3725B210CC67CF84, 3, 132, 3972),
    (b"\0", 0x94F6D9CDD1EA8248, 1, 72, 584),
    (b"k" * 512, 0x81C8D321B1C40944, 4, 68, 2372),
    (b"order-17", 0x78E9AE0C8E445BB0, 2, 176, 7088),
]


@pytest.mark.parametrize(("key", "value", "of_7", "of_256", "of_16384"), GOLDEN)
def test_a_key_stays_in_the_partition_it_was_stored_in(key, value, of_7, of_256, of_16384):
    assert stable_hash(key) == value
    places = [partition_of(key, partitions) for partitions in (7, 256, MAX_PARTITIONS)]
    assert places == [of_7, of_256, of_16384]


@pytest.mark.parametrize("pattern", [b"user:%d", b"%020d", b"order-%d-eu"])
def test_keys_that_differ_in_few_bits_spread_evenly(pattern):
    keys, partitions = 64_000, 256
    count = [0] * partitions
    for number in range(keys):
        count[stable_hash(pattern % number) % partitions] += 1
    mean = keys / partitions
    # Chi-square with 255 degrees of freedom: above 360 less than once in 100,000 good hashes.
    assert sum((n - mean) ** 2 / mean for n in count) < 360


def test_a_key_as_text_and_as_its_bytes_is_the_same_key():
    assert key_bytes("zürich") == key_bytes("zürich".encode())


@pytest.mark.parametrize("size", [1, MAX_KEY_BYTES])
def test_keys_of_the_smallest_and_largest_size_are_taken(size):
    assert key_bytes("k" * size) == b"k" * size


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("", "has 0"),
        (b"", "has 0"),
        ("k" * (MAX_KEY_BYTES + 1), "has 513"),
        ("ü" * 257, "has 514"),
        ("\ud800", "lone surrogate"),
        (17, "not int"),
        (None, "not NoneType"),
        (bytearray(b"a"), "not bytearray"),
    ],
)
def test_what_cannot_be_a_key_is_the_callers_mistake(key, says):
    with pytest.raises(BadRequest, match=says) as caught:
        key_bytes(key)
    assert caught.value.executed is False


def test_a_mesh_has_at_least_one_and_at_most_16384_partitions():
    assert check_partitions(1) == 1
    assert check_partitions(MAX_PARTITIONS) == MAX_PARTITIONS == 16_384
    for partitions in (0, -1, MAX_PARTITIONS + 1):
        with pytest.raises(BadRequest, match="1 to 16384"):
            check_partitions(partitions)
