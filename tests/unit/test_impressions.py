"""Clients complain of a handler that is far from the others, and of nobody where they are ill themselves."""

from __future__ import annotations

from typing import Any

import pytest
from unit.client_rig import A, B, C, Client

from mesh.core.impressions import Complaint, Impressions
from mesh.core.messages import Complaints
from mesh.core.wire import Status

D = b"h-4"


def seen(**calls: list[tuple[int, float, bool]]) -> Impressions:
    """Of handlers by name: partition, seconds, failed of each call."""
    impressions = Impressions()
    for name, many in calls.items():
        for partition, span_s, failed in many:
            impressions.answered(name.encode(), partition, span_s, failed=failed)
    return impressions


def many(span_s: float, failed: float = 0.0, partitions: int = 4) -> list[tuple[int, float, bool]]:
    return [(i % partitions, span_s, i < 100 * failed) for i in range(100)]


def about(impressions: Impressions, owned: int = 4) -> list[Complaint]:
    return impressions.conclude(1.0, lambda _nonce: owned)


def test_one_that_is_much_slower_than_the_others_is_complained_of() -> None:
    [one] = about(seen(a=many(0.001), b=many(0.001), c=many(0.010)))
    assert one.nonce == b"c"
    assert one.latency_s == pytest.approx(0.010, rel=0.5)
    assert one.usual_latency_s == pytest.approx(0.001, rel=0.5)
    assert (one.calls, one.failed) == (100, 0.0)


def test_one_that_fails_many_more_of_its_calls_is_complained_of() -> None:
    [one] = about(seen(a=many(0.001, 0.05), b=many(0.001, 0.05), c=many(0.001, 0.5)))
    assert (one.nonce, one.failed, one.usual_failed) == (b"c", 0.5, 0.05)


def test_what_all_of_them_do_is_complained_of_by_nobody() -> None:
    assert about(seen(a=many(0.5, 0.9), b=many(0.5, 0.9), c=many(0.5, 0.9))) == []
    assert about(seen(a=many(0.001), b=many(0.001), c=many(0.0018))) == []


def test_who_sees_all_but_a_few_of_them_ill_is_ill_itself() -> None:
    impressions = seen(a=many(0.001), b=many(0.001), c=many(0.3), d=many(0.9, 0.9))
    assert about(impressions) == []


def test_one_bad_key_is_no_bad_handler() -> None:
    one_partition = [(3, 0.001, True)] * 100
    assert about(seen(a=many(0.001), b=many(0.001), c=one_partition)) == []
    assert about(seen(a=many(0.001), b=many(0.001), c=one_partition), owned=1)


def test_few_calls_say_nothing() -> None:
    few = [(i, 0.5, True) for i in range(4)]
    assert about(seen(a=many(0.001), b=many(0.001), c=few)) == []


def test_a_few_calls_that_had_to_wait_do_not_make_a_handler_slow() -> None:
    waited = [(i % 4, 2.0 if i < 30 else 0.001, False) for i in range(100)]
    assert about(seen(a=many(0.001), b=many(0.001), c=waited)) == []


def test_each_window_is_judged_by_itself() -> None:
    impressions = seen(a=many(0.001), b=many(0.001), c=many(0.010))
    assert about(impressions)
    for nonce in (b"a", b"b", b"c"):
        for _ in range(10):
            impressions.answered(nonce, 0, 0.001, failed=False)
    assert about(impressions) == []


@pytest.mark.parametrize("span_s", [1e-6, 0.0005, 0.003, 0.02, 0.7, 5.0, 4000.0])
def test_a_latency_is_known_within_a_factor_of_two(span_s: float) -> None:
    impressions = seen(a=many(span_s), b=many(100.0 * span_s + 0.02), c=many(span_s))
    [one] = about(impressions)
    assert span_s / 2 - 1e-5 <= one.usual_latency_s <= 2 * span_s + 1e-5


class Calling:
    """A client that calls four handlers, evenly."""

    def __init__(self) -> None:
        self.client = Client()
        self.client.table((A, 1), (B, 1), (C, 1), (D, 1), (A, 1), (B, 1), (C, 1), (D, 1))
        self.client.up(A, B, C, D)

    def run(self, span_s: float, *, slow: bytes = b"", failing: bytes = b"", mute: bytes = b""):
        client = self.client
        end = client.now + span_s
        number = 0
        while client.now < end:
            call = client.call(number % 8)
            owner = client.core.owner(call.partition)
            assert owner is not None
            nonce = owner.handler.nonce
            late_s = 0.05 if nonce == slow else 0.001
            client.later(late_s)
            if nonce != mute:
                fails = nonce == failing and number % 16 < 8
                value: Any = ["Broken", "it fails", {}] if fails else 1
                client.reply(call, Status.ENTITY_ERROR if fails else Status.OK, value)
            client.later(0.01 - late_s if late_s < 0.01 else 0.0)
            number += 1

    @property
    def complaints(self) -> dict[bytes, set[bytes]]:
        """Of whom, and to whom it was said."""
        told: dict[bytes, set[bytes]] = {}
        for to, message in self.client.said:
            assert isinstance(message, Complaints)
            for one in message.about:
                told.setdefault(Complaint(*one).nonce, set()).add(to)
        return told


def test_a_client_of_a_mesh_that_is_well_says_nothing() -> None:
    calling = Calling()
    calling.run(10.0)
    assert calling.client.said == []


@pytest.mark.parametrize("how", ["slow", "failing", "mute"])
def test_a_client_complains_to_another_handler_once_a_second(how: str) -> None:
    calling = Calling()
    calling.run(2.0)
    calling.run(8.0, **{how: B})
    assert calling.complaints.keys() == {B}
    assert B not in calling.complaints[B]
    assert 5 <= len(calling.client.said) <= 8


def test_a_client_that_does_not_get_through_to_a_handler_complains_of_it() -> None:
    calling = Calling()
    calling.run(2.0)
    calling.client.down(C)
    calling.run(4.0, mute=C)
    assert calling.complaints.keys() == {C}


def test_calls_that_were_refused_say_nothing_of_the_handler() -> None:
    calling = Calling()
    client = calling.client
    for number in range(600):
        call = client.call(number % 8)
        refused = number % 8 in (1, 5)
        status = Status.OVERLOADED if refused else Status.OK
        client.reply(call, status, ["full", 0.1] if refused else 1)
        client.later(0.01)
    assert client.said == []
