"""What is usual among several is what the others have."""

from __future__ import annotations

from random import Random
from statistics import median

from mesh.core.peers import most_ill, usual


def test_the_usual_is_the_median_of_all_others() -> None:
    dice = Random(7)
    for number in range(2, 12):
        values = {bytes([i]): float(dice.randrange(5)) for i in range(number)}
        for nonce, found in usual(values).items():
            assert found == median(v for n, v in values.items() if n != nonce)


def test_one_alone_has_nothing_that_is_usual() -> None:
    assert usual({}) == usual({b"a": 1.0}) == {}


def test_a_third_may_be_ill_or_one_and_never_the_only_one() -> None:
    assert [most_ill(number) for number in (0, 1, 2, 3, 5, 6, 9)] == [0, 0, 1, 1, 1, 2, 3]
