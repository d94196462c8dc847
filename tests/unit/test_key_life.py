"""A key is there from the first change to it until it is deleted."""

import msgpack
import pytest
from unit.keys_rig import Carts, Clock, answer, stored
from unit.rigs import KEYS, PARTITIONS, lease_for_good

import mesh
from mesh.core.handling import HandlerCore
from mesh.core.tenure import state_field
from mesh.core.wire import Status
from mesh.entities import Registry

K = KEYS[0]
FIELD = state_field("KV", K.encode())


@pytest.fixture
def handler(server, leader):
    return Carts(server, Clock()).owns_all(leader)


def heir_of(handler, server, leader):
    return Carts(server, Clock(), handler.nonce + b"+").owns_all(leader, instead_of=handler)


def test_a_key_back_at_its_defaults_is_there_and_in_the_store(server, leader, handler):
    handler.does("KV.put", K, "a")
    handler.does("KV.put", K, None)
    assert stored(server) == {FIELD: msgpack.packb({"value": None})}
    assert handler.does("KV.~exists", K) is True
    assert heir_of(handler, server, leader).does("KV.~exists", K) is True


def test_a_state_back_at_its_defaults_keeps_them_when_a_later_version_has_others(
    server, leader, handler
):
    @mesh.entity(name="Account")
    class Later:
        balance: int = 100
        history: list[str] = []  # noqa: RUF012 - defaults are copied for each key

        @mesh.query
        def read(self) -> int:
            return self.balance

    handler.does("Account.deposit", K, 5)
    handler.does("Account.deposit", K, -5)
    heir = Carts(server, Clock(), b"h-2")
    heir.core = lease_for_good(HandlerCore(b"h-2", PARTITIONS, Registry([Later])))
    heir.owns_all(leader, instead_of=handler)
    assert heir.does("Account.read", K) == 0
    assert heir.does("Account.read", KEYS[1]) == 100


@pytest.mark.parametrize(
    ("method", "args"), [("KV.put", [None]), ("KV.cas", [1, 2]), ("Account.withdraw", [5])]
)
def test_a_command_that_changes_nothing_or_fails_creates_no_key(server, handler, method, args):
    handler.does(method, K, *args)
    assert handler.does(f"{method.partition('.')[0]}.~exists", K) is False
    assert stored(server) == {}


def test_a_query_creates_no_key(handler):
    assert handler.does("KV.get", K) is None
    assert handler.does("KV.~exists", K) is False


def test_what_is_not_acknowledged_is_not_there_yet_and_not_gone_yet(handler):
    handler.warm_up()
    handler.call("KV.put", K, 1)
    batch = handler.send()
    assert answer(handler.call("KV.~exists", K)) is False
    handler.deliver(batch)
    assert answer(handler.call("KV.~exists", K)) is True
    handler.call("KV.~delete", K)
    batch = handler.send()
    assert answer(handler.call("KV.~exists", K)) is True
    assert answer(handler.call("KV.get", K)) == 1
    handler.deliver(batch)
    assert answer(handler.call("KV.~exists", K)) is False
    assert answer(handler.call("KV.get", K)) is None


def test_delete_says_whether_there_was_a_key_and_leaves_nothing_but_its_record(server, handler):
    handler.does("KV.put", K, 1)
    assert handler.does("KV.~delete", K) is True
    assert handler.does("KV.get", K) is None
    assert handler.does("KV.~delete", K) is False
    assert {name[:1] for name in server.partitions[0]} == {b"o"}


def test_state_and_record_of_a_deletion_are_one_commit(handler):
    handler.does("KV.put", K, 1)
    handler.call("KV.~delete", K)
    handler.load()
    [entry] = handler.send().entries
    assert FIELD in entry.deleted and [name[:1] for name in entry.fields] == [b"o"]


def test_a_deletion_counts_with_the_commands_around_it_in_order(server, leader, handler):
    handler.warm_up()
    steps = [("put", 5), ("~delete",), ("incr", 2), ("~delete",), ("~delete",), ("incr", 3)]
    callers = [handler.call(f"KV.{method}", K, *args) for method, *args in steps]
    handler.flush()
    assert [answer(caller) for caller in callers] == [None, True, 2, True, False, 3]
    assert heir_of(handler, server, leader).does("KV.get", K) == 3


def test_a_resend_of_a_deletion_gets_the_recorded_reply_and_deletes_nothing(handler):
    handler.does("KV.put", K, 1)
    assert handler.does("KV.~delete", K, counter=50) is True
    handler.does("KV.put", K, 2)
    assert handler.does("KV.~delete", K, counter=50) is True
    assert handler.does("KV.get", K) == 2


def test_a_deleted_key_starts_from_the_defaults(handler):
    handler.does("Account.deposit", K, 5)
    handler.does("Account.~delete", K)
    assert handler.does("Account.deposit", K, 1) == 1


def test_kv_delete_deletes_the_key_and_returns_nothing(server, handler):
    handler.does("KV.put", K, 1)
    assert handler.does("KV.delete", K) is None
    assert handler.does("KV.~exists", K) is False and stored(server) == {}


def test_a_key_that_is_not_in_memory_is_looked_for_in_the_store(server, leader, handler):
    handler.does("KV.put", K, 1)
    heir = heir_of(handler, server, leader)
    assert heir.does("KV.~exists", K) is True
    heir = heir_of(heir, server, leader)
    assert heir.does("KV.~delete", K) is True
    assert stored(server) == {}


def test_what_every_entity_has_is_in_no_list_of_its_methods(handler):
    caller = handler.call("KV.nonsense", K)
    assert caller.status is Status.BAD_REQUEST and "~" not in answer(caller)


@pytest.mark.parametrize("method", ["KV.~delete", "KV.~exists"])
def test_a_key_is_needed_for_what_is_of_one_key(handler, method):
    payload = msgpack.packb([method, b"", []])
    caller = handler.call(method, K, payload=payload)
    assert caller.status is Status.BAD_REQUEST and "a key is 1 to 512 bytes" in answer(caller)
