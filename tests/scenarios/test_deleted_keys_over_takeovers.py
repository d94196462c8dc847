"""Keys are deleted, or past their time, while their owners die: what is gone stays gone, and is told once."""

from typing import Any

import msgpack
import pytest
from scenarios.world import World
from unit.keys_rig import TTL_S, Carts, Clock, stored
from unit.rigs import KEYS

K = KEYS[0]


class Shop(World):
    """The same world, whose handlers serve carts."""

    def __init__(self) -> None:
        super().__init__()
        self.clocks = [Clock(), Clock()]
        for handler, clock in zip((self.o1, self.o2), self.clocks, strict=True):
            handler.core = Carts(self.server, clock, handler.nonce).core
        self.tell(self.o1, self.o2)
        self.publish()

    def pass_by(self, seconds: float) -> None:
        for clock in self.clocks:
            clock.wall += seconds

    def next_owner(self) -> None:
        """o1 dies, and o2 serves what it had."""
        self.cut(self.o1)
        self.take_over()
        self.tell(self.o2)
        self.publish()

    def does(self, method: str, *args: Any) -> Any:
        """The world's client calls o1, and waits for the end."""
        _, ended = self.call(method, K, *args)
        self.settle(self.o1, self.o2)
        return value(ended)


def value(ended: list[Any]) -> Any:
    [one] = ended
    assert one.error is None, one.error
    return msgpack.unpackb(one.payload)


@pytest.fixture
def world():
    return Shop()


def test_a_deletion_whose_handler_died_before_it_answered_is_told_as_it_was(world):
    world.does("KV.put", 1)
    _, ended = world.call("KV.~delete", K)
    world.arrive(world.o1)
    world.o1.flush()  # committed, and nobody hears of it
    world.next_owner()
    world.settle(world.o2)
    assert value(ended) is True, "there was one, though there is none any more"
    assert stored(world.server) == {}


def test_a_deletion_whose_handler_died_before_it_was_committed_is_made_by_the_next_one(world):
    world.does("KV.put", 1)
    _, ended = world.call("KV.~delete", K)
    world.arrive(world.o1)
    world.batch(world.o1)
    world.next_owner()
    world.settle(world.o2)
    assert value(ended) is True
    assert world.value(world.o2, K) is None


def test_what_was_written_after_a_deletion_is_not_deleted_by_a_late_copy_of_it(world):
    world.does("KV.put", 1)
    _, ended = world.call("KV.~delete", K)
    world.arrive(world.o1)
    packet = world.batch(world.o1)
    world.next_owner()
    world.settle(world.o2)
    assert value(ended) is True
    world.does("KV.put", 2)
    world.o1.deliver(packet)
    assert world.value(world.o2, K) == 2


def test_a_deleted_key_stays_deleted_at_the_next_owner(world):
    world.does("KV.put", 1)
    assert world.does("KV.~delete") is True
    world.next_owner()
    assert world.does("KV.~exists") is False
    assert world.does("KV.~delete") is False


@pytest.mark.parametrize("warm", [True, False])
def test_the_time_of_the_last_change_outlives_its_owner(world, warm):
    world.does("Cart.add")
    world.pass_by(TTL_S - 1)
    world.next_owner()
    if warm:
        world.o2.warm_up()
    assert world.does("Cart.read") == 1
    world.pass_by(1)
    assert world.does("Cart.read") == 0
    assert world.does("Cart.~exists") is False


def test_a_deletion_for_age_by_an_owner_that_lost_the_key_takes_nothing_away(world):
    """Its clock is ahead, its commit late: the key is another's, who has changed it since."""
    world.does("Cart.add")
    world.clocks[0].wall += TTL_S
    world.o1.core.on_timer(world.now)
    packet = world.batch(world.o1)
    world.take_over(revoke=False)
    world.tell(world.o2)
    world.publish()
    assert world.does("Cart.add") == 2
    assert world.o1.deliver(packet)
    assert world.does("Cart.read") == 2


def test_an_owner_that_dies_while_it_deletes_for_age_leaves_that_to_the_next(world):
    world.does("Cart.add")
    world.pass_by(TTL_S)
    world.o1.core.on_timer(world.now)
    world.batch(world.o1)
    world.next_owner()
    world.o2.warm_up()
    assert len(stored(world.server)) == 1
    world.o2.core.on_timer(world.now)
    world.o2.flush()
    assert stored(world.server) == {}
