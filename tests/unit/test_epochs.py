"""Epochs: ordered, packed into a grant, never given out twice."""

from array import array

import pytest

from mesh.core.epochs import (
    MAX_COUNTER,
    MAX_LIFE,
    NOT_HELD,
    differing,
    epoch_of,
    format_epoch,
    life_of,
    next_epoch,
    pack_epochs,
    unpack_epochs,
)


def test_an_epoch_of_a_later_life_is_above_every_epoch_of_an_earlier_one():
    assert epoch_of(2, 1) > epoch_of(1, MAX_COUNTER)
    assert epoch_of(1, 1) > NOT_HELD


def test_the_successor_within_a_life_counts_on_and_a_new_life_starts_at_one():
    assert next_epoch(epoch_of(3, 7), 3) == epoch_of(3, 8)
    assert next_epoch(epoch_of(3, 7), 4) == epoch_of(4, 1)
    assert next_epoch(epoch_of(3, 7), 9) == epoch_of(9, 1)
    assert next_epoch(NOT_HELD, 1) == epoch_of(1, 1)


def test_a_life_that_is_over_gives_no_epochs():
    with pytest.raises(ValueError, match=r"3\.7 is newer than life 2"):
        next_epoch(epoch_of(3, 7), 2)


def test_a_life_that_is_used_up_says_so_instead_of_running_into_the_next_one():
    with pytest.raises(OverflowError, match=r"1\.65535"):
        next_epoch(epoch_of(1, MAX_COUNTER), 1)
    assert next_epoch(epoch_of(1, MAX_COUNTER), 2) == epoch_of(2, 1)


@pytest.mark.parametrize(("life", "counter"), [(0, 1), (1, 0), (MAX_LIFE + 1, 1), (1, 1 << 16)])
def test_halves_out_of_range_are_refused(life, counter):
    with pytest.raises(ValueError, match="out of range"):
        epoch_of(life, counter)


def test_people_read_life_and_counter():
    assert format_epoch(epoch_of(12, 345)) == "12.345"
    assert life_of(epoch_of(12, 345)) == 12


def test_a_grant_holds_epochs_big_endian_four_bytes_each():
    packed = pack_epochs([NOT_HELD, epoch_of(1, 2), epoch_of(MAX_LIFE, MAX_COUNTER)])
    assert packed == bytes.fromhex("00000000 00010002 ffffffff")
    assert list(unpack_epochs(packed)) == [0, epoch_of(1, 2), 0xFFFFFFFF]


def test_a_grant_that_was_cut_short_is_refused():
    with pytest.raises(ValueError, match="bytes length not a multiple"):
        unpack_epochs(b"\0\0\0")


@pytest.mark.parametrize("apart", [[], [0], [4], [1, 2], [0, 1, 2, 3, 4]])
def test_two_lists_differ_where_any_byte_does(apart):
    one = array("I", [NOT_HELD, epoch_of(1, 1), epoch_of(1, 256), 0xFFFFFFFF, 7])
    for bit in (0, 9, 31):
        other = array("I", [e ^ (1 << bit) if p in apart else e for p, e in enumerate(one)])
        assert differing(one, other) == apart == differing(other, one)
