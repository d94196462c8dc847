"""Listing a partition: every key that is there all the time is returned, from memory or from the store."""

import random

import msgpack
import pytest
from unit.keys_rig import TTL_S, Carts, Clock, answer
from unit.rigs import KEYS

from mesh.core import listing
from mesh.core.handling import HandlingConfig
from mesh.core.keyspace import partition_of
from mesh.core.records import GrantRef
from mesh.core.wire import Status
from mesh.store.memory_server import SCAN_PAGE

K = KEYS[0]
ENOUGH = [key for key in map("k{}".format, range(4000)) if partition_of(key.encode(), 4) == 0]
MANY = ENOUGH[: SCAN_PAGE + 50]
"""With the records of their calls, three pages of the store."""
SMALL = HandlingConfig(cache_bytes=8_000)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def handler(server, leader, clock):
    return Carts(server, clock).owns_all(leader)


@pytest.fixture
def filled(handler):
    for key in MANY:
        handler.call("KV.put", key, key)
    handler.call("Cart.add", K)
    handler.flush()
    return handler


def heir_of(handler, server, leader, clock, **options):
    heir = Carts(server, clock, handler.nonce + b"+", **options)
    return heir.owns_all(leader, instead_of=handler)


def ask(handler, limit=1000, prefix=b"", position=b"", entity="KV", **header):
    args = [prefix, position, limit]
    payload = msgpack.packb([f"{entity}.~keys", b"", args])
    return handler.call(f"{entity}.~keys", K, payload=payload, **header)


def page(handler, *args, **kwargs):
    """Keys of a page, the position to go on from, and how often the store was read for it."""
    caller = ask(handler, *args, **kwargs)
    reads = 0
    while handler.list_once():
        reads += 1
    keys, position = answer(caller)
    return [key.decode() for key in keys], position, reads


def all_pages(handler, limit, between=lambda: None, **kwargs):
    """All keys, one page after the other, with something that happens in between."""
    found, position = [], b""
    for _ in range(10_000):
        keys, position, _ = page(handler, limit, position=position, **kwargs)
        assert len(keys) <= limit
        found += keys
        if not position:
            return found
        between()
    raise AssertionError("it never comes to its end")


def test_a_partition_in_memory_is_listed_without_the_store(filled):
    filled.warm_up()
    keys, position, reads = page(filled)
    assert (sorted(keys), position, reads) == (sorted(MANY), b"", 0)
    assert filled.core.is_idle


@pytest.mark.parametrize("warm", [True, False], ids=["memory", "store"])
@pytest.mark.parametrize("limit", [1, 7, 128, 129, 1000])
def test_pages_of_any_size_bring_each_key_once_while_nothing_happens(filled, warm, limit):
    if warm:
        filled.warm_up()
    assert sorted(all_pages(filled, limit)) == sorted(MANY)
    assert filled.core.is_idle


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("warm", [True, False], ids=["memory", "store"])
def test_keys_that_come_and_go_push_no_other_out_of_the_listing(filled, warm, seed):
    dice = random.Random(seed)
    if warm:
        filled.warm_up()
    new = iter(ENOUGH[len(MANY) :])
    others = dice.sample(MANY, 100)

    def happens():
        for _ in range(dice.randrange(4)):
            filled.call("KV.put", next(new), 1)
        if others and dice.random() < 0.8:
            filled.call("KV.~delete", others.pop())
        filled.flush()

    stay = set(MANY) - set(others)
    assert stay <= set(all_pages(filled, 10, happens))


@pytest.mark.parametrize("warm", [True, False], ids=["memory", "store"])
def test_a_prefix_and_an_entity_choose(filled, warm):
    if warm:
        filled.warm_up()
    assert sorted(all_pages(filled, 9, prefix=b"k1")) == sorted(
        key for key in MANY if key.startswith("k1")
    )
    assert page(filled, entity="Cart")[0] == [K]
    assert page(filled, entity="Account")[0] == []
    assert page(filled, prefix=b"none")[:2] == ([], b"")


@pytest.mark.parametrize("warm", [True, False], ids=["memory", "store"])
def test_what_is_not_acknowledged_is_not_listed_yet(handler, warm):
    if warm:
        handler.warm_up()
    handler.call("KV.put", K, 1)
    handler.load()
    batch = handler.send()
    handler.store.commit_at_once(0, handler.core.grant, batch.seq, 1, batch.entries)
    assert page(handler)[0] == [], "the primary has it, and perhaps nobody else"
    handler.deliver(batch)
    assert page(handler)[0] == [K]
    handler.does("KV.~delete", K)
    assert page(handler)[0] == []


@pytest.mark.parametrize("where", ["memory", "ahead", "store"])
def test_a_key_past_its_time_is_not_listed(server, leader, filled, clock, where):
    handler = filled
    if where != "store":
        handler = heir_of(filled, server, leader, clock)
        handler.warm_up()
    if where == "memory":
        handler.does("Cart.read", K)
    if where == "store":
        handler = heir_of(filled, server, leader, clock)
    assert page(handler, entity="Cart")[0] == [K]
    clock.wall += TTL_S
    assert page(handler, entity="Cart")[0] == []


def test_keys_that_were_evicted_are_listed(server, leader, clock):
    handler = Carts(server, clock, config=SMALL).owns_all(leader)
    handler.warm_up()
    for key in MANY:
        handler.does("KV.put", key, 1)
    keys, _, reads = page(handler)
    assert sorted(keys) == sorted(MANY) and reads > 2


def test_a_large_partition_is_listed_from_the_store(filled, monkeypatch):
    filled.warm_up()
    monkeypatch.setattr(listing, "MOST_IN_MEMORY", 100)
    keys, position, reads = page(filled)
    assert (sorted(keys), position) == (sorted(MANY), b"") and reads > 2


def test_a_call_that_finds_little_returns_with_what_it_has(filled, monkeypatch):
    monkeypatch.setattr(listing, "MOST_SCANS", 2)
    keys, position, reads = page(filled)
    assert reads == 2 and position and len(keys) < len(MANY)
    while position:
        more, position, _ = page(filled, position=position)
        keys += more
    assert sorted(keys) == sorted(MANY)


def test_a_listing_goes_on_at_the_next_owner_where_it_was(server, leader, filled, clock):
    keys, position, _ = page(filled, 100)
    heir = heir_of(filled, server, leader, clock)
    rest, position, _ = page(heir, 1000, position=position)
    assert sorted(keys + rest) == sorted(MANY) and position == b""


@pytest.mark.parametrize("warm", [True, False], ids=["memory", "store"])
def test_a_position_of_another_primary_begins_anew(filled, warm):
    """Its cursors mean nothing there."""
    _, position, _ = page(filled, 100)
    if warm:
        filled.warm_up()
    life = filled.core.grant.life
    filled.core._ownership.grant = GrantRef(filled.nonce, life + 1, 1)
    kind, of_life, *rest = msgpack.unpackb(position)
    assert (kind, of_life) == (b"s", life)
    filled.core._ownership.grant = GrantRef(filled.nonce, life, filled.core.grant.version)
    position = msgpack.packb([kind, life + 1, *rest])
    assert sorted(page(filled, position=position)[0]) == sorted(MANY)


def test_a_position_in_memory_that_is_not_complete_any_more_begins_anew(
    server, leader, filled, clock
):
    filled.warm_up()
    _, position, _ = page(filled, 100)
    heir = heir_of(filled, server, leader, clock)
    assert sorted(page(heir, position=position)[0]) == sorted(MANY)


def test_a_page_that_is_another_one_when_it_is_read_again_passes_nothing_over(filled):
    """A hash that shrank: the same cursor covers more than it did."""
    keys, position, _ = page(filled, 10)
    kind, life, cursor, expected, last = msgpack.unpackb(position)
    again = msgpack.packb([kind, life, cursor, expected + 1, last])
    assert set(keys) <= set(page(filled, position=again)[0])
    assert not set(keys) & set(page(filled, position=position)[0])


def test_calls_that_wait_for_the_store_take_turns(filled):
    slow, quick = ask(filled), ask(filled, 10)
    filled.list_once()
    filled.list_once()
    assert slow.answer is None and len(answer(quick)[0]) == 10


def test_a_listing_whose_partition_moves_on_is_for_the_next_owner(filled, leader):
    caller = ask(filled)
    leader.takeover({0: b"h-2"}, enroll=[b"h-2"])
    filled.list_once()
    assert caller.status is Status.NOT_READY
    assert filled.core.is_idle and not filled.core.has_listings


def test_a_listing_under_way_waits_for_no_release(filled, leader):
    ask(filled)
    filled.core.on_release(leader.release(0))
    filled.flush()
    assert not filled.core.has_listings
    assert filled.core.held_epochs()[:4] == bytes(4)


def test_a_listing_whose_deadline_passes_is_told_so(filled):
    caller = ask(filled, deadline_ms=50)
    filled.now += 0.06
    filled.core.on_timer(filled.now)
    assert caller.status is Status.EXPIRED
    assert not filled.list_once() and filled.core.is_idle


def test_a_partition_that_is_no_hash_is_told_to_whoever_lists_it(filled, server):
    server.wrong_type.add(0)
    caller = ask(filled)
    filled.list_once()
    assert caller.status is Status.UNREADABLE and filled.core.is_idle


@pytest.mark.parametrize(
    "args",
    [
        ["text", b"", 1],
        [b"p" * 513, b"", 1],
        [b"", b"", 0],
        [b"", b"", 1001],
        [b"", b"", True],
        [b"", "", 1],
        [b"", b"\xc1", 1],
        [b"", msgpack.packb(1), 1],
        [b"", msgpack.packb([b"m", 1]), 1],
        [b"", msgpack.packb([b"x", b""]), 1],
        [b"", b"x" * 2000, 1],
        [b"", msgpack.packb([b"s", 1, -1, 0, b""]), 1],
        [b"", b""],
    ],
)
def test_arguments_that_are_none_are_refused(handler, args):
    caller = handler.call("KV.~keys", K, payload=msgpack.packb(["KV.~keys", b"", args]))
    assert caller.status is Status.BAD_REQUEST
    assert handler.core.is_idle and not handler.core.has_listings
