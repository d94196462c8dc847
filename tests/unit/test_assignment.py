"""Who gets which partition, by examples; tests/property holds it against an oracle."""

import pytest

from mesh.core.assignment import place, rebalance, shares


def test_shares_follow_the_weights():
    assert shares(100, {"a": 60, "b": 30, "c": 10}) == {"a": 60, "b": 30, "c": 10}
    assert shares(256, {"a": 1, "b": 1, "c": 1}) == {"a": 86, "b": 85, "c": 85}


def test_a_share_that_is_a_whole_number_is_not_rounded_down_by_floating_point():
    weights = {f"h-{i}": 0.1 for i in range(10)}
    assert set(shares(10, weights).values()) == {1}
    assert shares(100, {"a": 0.57, "b": 0.43})["a"] == 57


@pytest.mark.parametrize("weights", [{}, {"a": 0.0}, {"a": 1.0, "b": -1.0}])
def test_shares_without_a_weight_above_zero_are_refused(weights):
    with pytest.raises(ValueError, match="no handler with a weight above 0"):
        shares(8, weights)


@pytest.mark.parametrize("weights", [{}, {"a": 0.0}])
def test_orphans_are_not_placed_where_nobody_can_take_them(weights):
    with pytest.raises(ValueError, match="no handler with a weight above 0"):
        place([1], {"a": 0}, weights)


def lists(owners):
    """The partitions of each handler."""
    return {h: [p for p, owner in enumerate(owners) if owner == h] for h in "abc"}


def test_orphans_go_to_those_with_the_most_headroom():
    placed = place([7, 8, 9], {"a": 5, "b": 3, "c": 4}, {"a": 1, "b": 1, "c": 1})
    assert placed == {7: "b", 8: "b", 9: "c"}


def test_a_handler_of_weight_zero_gets_no_orphans_and_loses_what_it_has():
    assert set(place(range(9), {"a": 0, "b": 0}, {"a": 1, "b": 0}).values()) == {"a"}
    owners = ["c", "c", "c", "a", "b"]
    moves = rebalance(lists(owners), {"a": 1, "b": 1, "c": 0})
    assert set(moves) == {0, 1, 2} and set(moves.values()) == {"a", "b"}


def test_an_even_table_is_left_alone_whoever_has_the_extra_partition():
    for owners in (["a", "a", "b"], ["b", "a", "b"]):
        assert rebalance(lists(owners), {"a": 1, "b": 1}) == {}


def test_nobody_keeps_more_than_a_share_that_is_a_whole_number():
    owners = ["a"] * 4 + ["b", "c"]
    assert len(rebalance(lists(owners), {"a": 2, "b": 1, "c": 1})) == 1


def test_a_joiner_takes_its_share_and_nothing_else_moves():
    owners = ["a", "b"] * 6
    moves = rebalance(lists(owners), {"a": 1, "b": 1, "c": 1})
    assert set(moves.values()) == {"c"}
    assert sorted(owners[p] for p in moves) == ["a", "a", "b", "b"]
