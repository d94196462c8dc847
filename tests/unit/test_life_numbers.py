"""A life's number: lives are in order, and no two openings share one."""

from __future__ import annotations

import pytest

from mesh.core.epochs import format_epoch, next_epoch
from mesh.core.life_numbers import DRAW_BITS, MAX_COUNT, count_of, next_life

MOST = (1 << DRAW_BITS) - 1


def test_it_is_above_every_number_of_a_lower_count():
    assert next_life(next_life(0, MOST), 0) > next_life(0, MOST) > next_life(0, 0) > MAX_COUNT


def test_two_openings_behind_the_same_life_differ_and_count_the_same():
    one, other = next_life(next_life(0, 5), 1), next_life(next_life(0, 5), 2)
    assert one != other and count_of(one) == count_of(other) == 2


def test_a_store_of_before_there_were_draws_goes_on_counting():
    assert count_of(7) == 7 and count_of(next_life(7, MOST)) == 8


def test_epochs_have_the_count_of_their_life():
    life = next_life(2, 0xABCDEF)
    assert format_epoch(next_epoch(next_epoch(0, life), life)) == "3.2"


def test_it_is_exact_where_numbers_are_doubles():
    assert int(float(next_life(MAX_COUNT - 1, MOST))) == next_life(MAX_COUNT - 1, MOST)


def test_lives_that_are_used_up_and_draws_that_are_too_large_are_refused():
    with pytest.raises(OverflowError, match="life 65535"):
        next_life(MAX_COUNT, 1)
    with pytest.raises(ValueError, match="draw"):
        next_life(1, MOST + 1)
