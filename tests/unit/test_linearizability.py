"""Histories that are known to be good, and bad, and what is said of them.

A history is drawn as its text (mesh.testing.history_text) without the times: a line for each begin and end.
"""

import pytest

import mesh
from mesh.errors import SetupError
from mesh.testing.history import End
from mesh.testing.history_text import parse
from mesh.testing.linearizability import check
from mesh.testing.models import KV, AppendList, Counter, Register


@mesh.entity(name="Purse")
class Purse:
    balance: int = 0

    @mesh.command
    def deposit(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    @mesh.command
    async def withdraw(self, amount: int) -> int:
        if amount > self.balance:
            raise ValueError(f"only {self.balance}")
        self.balance -= amount
        return self.balance

    @mesh.query
    def read(self) -> int:
        return self.balance


@mesh.entity(name="Napper")
class Napper:
    done: int = 0

    @mesh.command
    async def nap(self) -> None:
        import asyncio

        await asyncio.sleep(1)


def history(drawing, *entities):
    """`a1 KV.get('k')` begins a's call 1, `a1 -> 5` ends it."""
    text = []
    for at, line in enumerate(drawing.strip().splitlines(), 1):
        who, what = line.split(maxsplit=1)
        text.append(f"{at}.0  {who[0]}  #{ord(who[0])}{who[1:]}  {what}")
    return parse("\n".join(text), *entities)


def judged(drawing, *entities, **limits):
    return check(history(drawing, *entities), *entities, **limits)


def refused(drawing, *entities):
    """The one counterexample."""
    judgement = judged(drawing, *entities)
    assert not judgement.ok and not judgement.gave_up
    [found] = judgement.counterexamples
    return found


# ------------------------------------------------------------------------------------------------- good ones


@pytest.mark.parametrize(
    "drawing",
    [
        pytest.param("a1 KV.get('k')\na1 -> None", id="nothing was written"),
        pytest.param(
            """
            a1 KV.put('k', 1)
            b1 KV.get('k')
            b1 -> 1
            c1 KV.get('k')
            c1 -> 1
            a1 -> None
            """,
            id="a write is seen before it has ended",
        ),
        pytest.param(
            """
            a1 KV.put('k', 1)
            b1 KV.put('k', 2)
            c1 KV.get('k')
            c1 -> 2
            d1 KV.get('k')
            d1 -> 1
            b1 -> None
            a1 -> None
            """,
            id="two writes at once, in either order",
        ),
        pytest.param(
            """
            a1 KV.put('k', 1)
            a1 unknown OutcomeUnknown('no verdict')
            b1 KV.get('k')
            b1 -> None
            c1 KV.get('k')
            c1 -> 1
            """,
            id="an unknown one takes effect long after its caller was told so",
        ),
        pytest.param(
            """
            a1 KV.incr('k')
            a1 unknown OutcomeUnknown('no verdict')
            b1 KV.incr('k')
            b1 -> 1
            b2 KV.get('k')
            b2 -> 1
            """,
            id="an unknown one never takes effect",
        ),
        pytest.param(
            """
            a1 KV.incr('k')
            b1 KV.incr('k')
            b1 -> 2
            """,
            id="one that still runs has taken effect",
        ),
        pytest.param(
            """
            a1 KV.incr('k')
            a1 cancelled
            b1 KV.incr('k')
            b1 -> 2
            """,
            id="one that was cancelled has taken effect",
        ),
        pytest.param(
            """
            a1 KV.incr('k')
            a1 not executed Overloaded('later')
            b1 KV.incr('k')
            b1 -> 1
            """,
            id="not executed, and it was not",
        ),
        pytest.param(
            """
            a1 KV.put('k', 1)
            a1 executed ProtocolError('cannot be read')
            b1 KV.get('k')
            b1 -> 1
            """,
            id="executed, though its reply cannot be read",
        ),
        pytest.param(
            """
            a1 KV.put('k', 'text')
            a1 -> None
            a2 KV.incr('k')
            a2 raised TypeError("incr needs whole numbers, this is 'text' + 1")
            a3 KV.get('k')
            a3 -> 'text'
            """,
            id="an error of the entity is an outcome, and changes nothing",
        ),
        pytest.param(
            """
            a1 exists(KV, 'k')
            a1 -> False
            a2 KV.put('k', None)
            a2 -> None
            a3 exists(KV, 'k')
            a3 -> False
            a4 KV.put('k', 0)
            a4 -> None
            a5 KV.put('k', None)
            a5 -> None
            a6 exists(KV, 'k')
            a6 -> True
            a7 delete(KV, 'k')
            a7 -> True
            a8 delete(KV, 'k')
            a8 -> False
            a9 KV.get('k')
            a9 -> None
            """,
            id="a key is there once it was changed, until it is deleted",
        ),
        pytest.param(
            """
            a1 KV.put('k', 3)
            a1 -> None
            a2 KV.delete('k')
            a2 -> None
            a3 exists(KV, 'k')
            a3 -> False
            """,
            id="a method that deletes",
        ),
        pytest.param(
            """
            a1 KV.incr('k', idempotency_key='x')
            a1 unknown OutcomeUnknown('no verdict')
            a2 KV.incr('k', idempotency_key='x')
            a2 -> 1
            b1 KV.incr('k')
            b1 -> 2
            a3 KV.incr('k', idempotency_key='x')
            a3 -> 1
            """,
            id="one effect of all calls under one idempotency key",
        ),
        pytest.param(
            """
            a1 KV.incr('k')
            b1 KV.put('other', 5)
            b1 -> None
            a1 -> 1
            """,
            id="keys have nothing to do with one another",
        ),
    ],
)
def test_what_can_have_been_one_call_at_a_time_is_accepted(drawing):
    judgement = judged(drawing)
    assert judgement.ok, judgement


def test_an_entity_is_its_own_model_with_its_errors_and_async_methods():
    judgement = judged(
        """
        a1 Purse.deposit('k', 5)
        b1 Purse.withdraw('k', 7)
        a1 -> 5
        b1 raised ValueError('only 5')
        b2 Purse.withdraw('k', amount=2)
        b2 -> 3
        """,
        Purse,
    )
    assert judgement.ok, judgement


def test_the_built_in_models_need_not_be_named():
    assert judged(
        """
        a1 Register.write('k', 1)
        b1 Register.cas('k', 1, 2)
        a1 -> None
        b1 -> True
        a2 Register.read('k')
        a2 -> 2
        a3 Counter.incr('k')
        a3 -> 1
        a4 Counter.read('k')
        a4 -> 1
        a5 AppendList.append('k', 'x')
        a5 -> 1
        a6 AppendList.read('k')
        a6 -> ['x']
        """
    ).ok
    assert {cls.__name__ for cls in (KV, Register, Counter, AppendList)} == {
        "KV",
        "Register",
        "Counter",
        "AppendList",
    }


# -------------------------------------------------------------------------------------------------- bad ones


def test_a_stale_read_is_found():
    found = refused("""
        a1 KV.put('k', 1)
        a1 -> None
        a2 KV.put('k', 2)
        a2 -> None
        b1 KV.get('k')
        b1 -> 1
    """)
    assert found.operation.method == "get"
    assert found.states == ("value=2",)
    assert "answered from an older state" in found.hint


def test_a_lost_update_is_found():
    found = refused("""
        a1 KV.incr('k')
        a1 -> 1
        b1 KV.incr('k')
        b1 -> 1
    """)
    assert found.operation.client == "b"
    assert found.states == ("value=1",)
    assert "#1" in found.hint and "lost after it was acknowledged" in found.hint


def test_a_double_effect_is_found():
    found = refused("""
        a1 KV.incr('k')
        a1 -> 1
        b1 KV.get('k')
        b1 -> 2
    """)
    assert found.operation.client == "b"
    assert "#1" in found.hint and "twice" in found.hint


def test_a_double_effect_of_an_unknown_call_is_found():
    found = refused("""
        a1 KV.incr('k')
        a1 unknown OutcomeUnknown('no verdict')
        b1 KV.get('k')
        b1 -> 2
    """)
    assert "#1" in found.hint and "twice" in found.hint


def test_a_not_executed_one_that_took_effect_is_found():
    found = refused("""
        a1 KV.put('k', 1)
        a1 not executed Overloaded('later')
        b1 KV.get('k')
        b1 -> 1
    """)
    assert found.operation.client == "b"
    assert "#1" in found.hint and "had taken effect" in found.hint


def test_reads_in_another_order_than_the_writes_are_found():
    found = refused("""
        a1 KV.append('k', 'x')
        a1 -> 1
        a2 KV.append('k', 'y')
        a2 -> 2
        b1 KV.items('k')
        b1 -> ['y', 'x']
    """)
    assert found.operation.method == "items"


def test_a_value_that_went_back_for_another_reader_is_found():
    """Two readers one after the other, while the write is under way."""
    found = refused("""
        a1 KV.put('k', 1)
        b1 KV.get('k')
        b1 -> 1
        c1 KV.get('k')
        c1 -> None
        a1 -> None
    """)
    assert found.operation.client == "c"


def test_an_effect_of_an_unknown_call_before_it_began_is_found():
    assert (
        refused("""
        b1 KV.get('k')
        b1 -> 1
        a1 KV.put('k', 1)
        a1 unknown OutcomeUnknown('no verdict')
    """).operation.client
        == "b"
    )


def test_an_unknown_call_has_one_effect_only():
    assert (
        refused("""
        a1 KV.put('k', 1)
        a1 unknown OutcomeUnknown('no verdict')
        b1 KV.get('k')
        b1 -> 1
        b2 KV.put('k', 2)
        b2 -> None
        b3 KV.get('k')
        b3 -> 2
        b4 KV.get('k')
        b4 -> 1
    """).operation.call
        == "KV.get('k')"
    )


def test_another_error_than_the_entitys_is_found():
    found = refused(
        """
        a1 Purse.withdraw('k', 1)
        a1 raised ValueError('only 5')
        """,
        Purse,
    )
    assert found.states == ("no such key",)


def test_a_reply_of_another_type_is_another_reply():
    assert refused("""
        a1 KV.put('k', 1)
        a1 -> None
        a2 KV.get('k')
        a2 -> True
    """)


def test_two_answers_under_one_idempotency_key_are_found():
    found = refused("""
        a1 KV.incr('k', idempotency_key='x')
        a1 -> 1
        a2 KV.incr('k', idempotency_key='x')
        a2 -> 2
    """)
    assert "under one idempotency key" in found.hint and "-> 1" in found.hint


def test_a_key_that_is_there_though_it_was_deleted_is_found():
    assert refused("""
        a1 KV.put('k', 1)
        a1 -> None
        a2 delete(KV, 'k')
        a2 -> True
        a3 exists(KV, 'k')
        a3 -> True
    """)


# ------------------------------------------------------------------------------ what is said, and limits


def test_a_counterexample_is_the_shortest_prefix_and_can_be_read():
    found = refused("""
        a1 KV.put('k', 1)
        b1 KV.put('k', 2)
        a1 -> None
        b1 -> None
        c1 KV.get('k')
        d1 KV.incr('k')
        c1 -> 3
        d1 -> 3
        d2 KV.get('k')
        d2 -> 77
    """)
    assert found.operation.client == "d", "c may have read what d had incremented"
    assert str(found).splitlines() == [
        "KV 'k': no order of the calls explains #5 d: KV.get('k') -> 77",
        "    before it the key could only be: value=3",
        "    1.000000 - 3.000000 s  #1 a: KV.put('k', 1) -> None",
        "    2.000000 - 4.000000 s  #2 b: KV.put('k', 2) -> None",
        "    5.000000 - 7.000000 s  #3 c: KV.get('k') -> 3",
        "    6.000000 - 8.000000 s  #4 d: KV.incr('k') -> 3",
        "    9.000000 - 10.000000 s  #5 d: KV.get('k') -> 77",
    ]


def test_what_ended_later_is_not_part_of_the_counterexample():
    found = refused("""
        a1 KV.incr('k')
        b1 KV.get('k')
        b1 -> 5
        a1 -> 1
        a2 KV.incr('k')
        a2 -> 2
    """)
    assert [o.client for o in found.prefix] == ["a", "b"]
    assert "#1 a: KV.incr('k') running" in str(found)


def test_every_key_is_judged_and_only_the_bad_ones_are_named():
    judgement = judged(
        """
        a1 KV.get('k')
        a1 -> 1
        a2 KV.get('l')
        a2 -> None
        a3 Purse.read('k')
        a3 -> 2
    """,
        Purse,
    )
    assert [(c.entity, c.key) for c in judgement.counterexamples] == [("KV", b"k"), ("Purse", b"k")]


def test_too_many_steps_are_neither_good_nor_bad_and_said():
    begins = "\n".join(f"a{i} KV.put('k', {i})" for i in range(12))
    ends = "\n".join(f"a{i} -> None" for i in range(12))
    judgement = judged(f"{begins}\nb1 KV.get('k')\nb1 -> 77\n{ends}", max_steps=100)
    assert not judgement.ok and not judgement.counterexamples
    assert "gave up on 13 operations after 101 steps" in str(judgement)


def test_an_entity_or_method_that_is_not_known_is_the_users_mistake():
    with pytest.raises(SetupError, match="name the class Purse"):
        check(history("a1 Purse.read('k')\na1 -> 0", Purse))
    with pytest.raises(SetupError, match="has no such method"):
        judged("a1 KV.read('k')\na1 -> 0")
    with pytest.raises(SetupError, match="waits for something"):
        judged("a1 Napper.nap('k')\na1 -> None", Napper)


def test_a_question_after_an_earlier_call_is_no_operation_on_the_key():
    one = history("a1 KV.incr('k', idempotency_key='x')\na1 unknown OutcomeUnknown('?')")
    asked = one.begin("a", "KV.~outcome", "k", ("incr", "x"))
    one.returned(asked, False)
    one.settle(one.operations[0], End.NOT_EXECUTED)
    assert check(one).ok
    one.returned(one.begin("b", "KV.get", "k"), 1)
    assert "had taken effect" in check(one).counterexamples[0].hint


def test_thousands_of_calls_of_one_key_take_no_search_where_replies_tell_the_order():
    text = []
    for i in range(2000):
        text.append(f"{'abcdefghij'[i % 10]}{i} KV.incr('k')")
        if i >= 9:
            text.append(f"{'abcdefghij'[(i - 9) % 10]}{i - 9} -> {i - 8}")
    assert judged("\n".join(text), max_steps=2100).ok
