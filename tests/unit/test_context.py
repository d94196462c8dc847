"""What a Context does by itself: keys of the calls that a method makes, and what it refuses."""

import pytest

import mesh
from mesh.context import MAX_DERIVED_BYTES, Context, derived
from mesh.errors import BadRequest, DeadlineExceeded


@mesh.entity
class Account:
    @mesh.command
    def add(self, cents: int) -> None: ...


def context(now=lambda: 10.0, key=b"alice", chain=(), idempotency_key="own"):
    made = []
    c = Context(
        idempotency_key=idempotency_key,
        entity="Transfer",
        method="Transfer.run",
        key_bytes=key,
        partition=1,
        epoch=2,
        attempt=1,
        deadline=15.0,
        metadata={},
        resources={},
        _now=now,
        _chain=chain,
        _caller=made.append,
    )
    return c, made


def test_each_call_has_a_key_of_its_own_and_a_second_run_has_the_same():
    runs = []
    for _ in range(2):
        c, made = context()
        for target in ("a", "b", "a"):
            c.call(Account.add, target, 5)
        runs.append([outgoing.idempotency_key for outgoing in made])
    assert runs[0] == runs[1] and len(set(runs[0])) == 3


def test_calls_of_different_calls_have_different_keys():
    assert derived("a", 1) not in (derived("b", 1), derived("a", 2))


@pytest.mark.parametrize("own", ["x" * 250, "ü" * 120])
def test_a_derived_key_stays_short_however_deep_the_calls_go(own):
    keys = {own}
    for _ in range(50):
        own = derived(own, 1)
        assert len(own.encode()) <= MAX_DERIVED_BYTES
        assert own not in keys
        keys.add(own)


def test_a_call_has_no_more_time_than_its_caller():
    c, made = context()
    c.call(Account.add, "a", 5)
    c.call(Account.add, "a", 5, timeout=2.0)
    c.call(Account.add, "a", 5, timeout=60.0)
    assert [outgoing.timeout_s for outgoing in made] == [5.0, 2.0, 5.0]


def test_once_its_time_is_over_a_method_calls_nobody():
    c, made = context(now=lambda: 15.0)
    assert c.seconds_left == 0
    with pytest.raises(DeadlineExceeded, match=r"no time left for calling Account\.add"):
        c.call(Account.add, "a", 5)
    assert not made


@pytest.mark.parametrize("method", [Account.add, "Account.add"])
@pytest.mark.parametrize("key", ["bob", b"bob"])
def test_a_key_that_waits_further_up_is_refused(method, key):
    c, made = context(chain=(("Account", b"bob"),))
    with pytest.raises(BadRequest, match="Account b'bob' -> Transfer b'alice' -> Account b'bob'"):
        c.call(method, key, 5)
    assert not made


def test_who_called_is_passed_on():
    c, made = context(chain=(("Account", b"bob"),))
    c.call(Account.add, "carol", 5)
    assert made[0].chain == (("Account", b"bob"), ("Transfer", b"alice"))


def test_a_key_that_is_no_text_is_whole_in_bytes():
    c, _ = context(key=b"\xff\x00")
    assert c.key_bytes == b"\xff\x00" and c.key.encode(errors="surrogateescape") == b"\xff\x00"
