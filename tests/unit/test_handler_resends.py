"""A call under which handlers have died: whoever takes it up says so before anything of a user's is run."""

import pytest
from unit.rigs import KEYS, Answer, Caller

import mesh
from mesh.core.wire import Status
from mesh.entities import Registry

K = KEYS[0]
here: list[Caller] = []
"""Callers whose calls are under way; a method looks at what the last of them has heard so far."""


def heard() -> bool | None:
    return here[-1].taken_up


@mesh.entity
class Witness:
    said: bool | None = None

    @mesh.command
    def command(self) -> bool | None:
        self.said = heard()
        return self.said

    @mesh.query
    def query(self) -> bool | None:
        return heard()


class Listening(Caller):
    def __init__(self) -> None:
        super().__init__()
        here.append(self)


@pytest.fixture
def witness(handler, monkeypatch):
    handler.core._calls._registry = Registry([Witness])
    monkeypatch.setattr("unit.rigs.Caller", Listening)
    handler.warm_up()
    yield handler
    here.clear()


@pytest.mark.parametrize("method", ["command", "query"])
@pytest.mark.parametrize(("deaths", "said"), [(0, None), (1, True), (3, True)])
def test_a_method_runs_once_its_caller_can_know_of_it_where_handlers_died_under_the_call(
    witness, method, deaths, said
):
    caller = witness.call(f"Witness.{method}", K, deaths=deaths)
    witness.flush()
    assert caller.answer == Answer(Status.OK, said)
    assert caller.taken_up is said


def test_arguments_are_not_even_decoded_before_it_is_said(handler):
    caller = handler.call("Account.no_such_method", K, deaths=1)
    assert (caller.status, caller.taken_up) == (Status.BAD_REQUEST, True)


def test_what_the_header_refuses_was_not_taken_up(handler, leader):
    late = handler.call("Account.deposit", K, 1, deaths=1, deadline_ms=0)
    old = handler.call("Account.deposit", K, 1, deaths=1, age_ms=0xFFFFFFFF)
    elsewhere = handler.call("Account.deposit", K, 1, deaths=1, partition=4_000)
    assert [late.status, old.status, elsewhere.status] == [
        Status.EXPIRED,
        Status.UNKNOWN,
        Status.BAD_REQUEST,
    ]
    assert {late.taken_up, old.taken_up, elsewhere.taken_up} == {None}


def test_a_call_that_waits_for_its_partition_to_come_is_taken_up_when_it_has_come(handler, leader):
    epoch = leader.owners[0][1] + 1
    caller = handler.call("Account.deposit", K, 5, deaths=1, epoch=epoch)
    assert caller.taken_up is None
    leader.takeover({0: handler.nonce})
    handler.core.on_grant(leader.grant(handler.nonce), handler.now)
    assert caller.taken_up is True
    handler.flush()
    assert caller.answer == Answer(Status.OK, 5)


def test_a_copy_that_gets_the_recorded_reply_gets_it_all_the_same(handler):
    first = handler.call("Account.deposit", K, 5)
    handler.flush()
    copy = handler.call("Account.deposit", K, 5, counter=1, deaths=1)
    assert first.answer == copy.answer == Answer(Status.OK, 5)
