"""Assignment against laws and a dumb oracle, for any cluster."""

from collections import Counter
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from mesh.core.assignment import place, rebalance, shares

weights_of = st.lists(st.integers(0, 9).map(float), min_size=1, max_size=6).filter(any)
clusters = weights_of.map(lambda ws: {f"h-{i}": w for i, w in enumerate(ws)})


def quota(partitions: int, weights: dict[str, float]) -> dict[str, tuple[int, int]]:
    """Lowest and highest number of partitions that is a fair share, in whole numbers."""
    total = int(sum(weights.values()))
    return {
        h: (partitions * int(w) // total, -(-partitions * int(w) // total))
        for h, w in weights.items()
    }


def fewest_moves(owners: list[str], weights: dict[str, float]) -> int:
    """By trying every way to hand out what rounding leaves over."""
    low = {h: lo for h, (lo, _) in quota(len(owners), weights).items()}
    rounded = [h for h, (lo, hi) in quota(len(owners), weights).items() if lo != hi]
    count = Counter(owners)
    return min(
        sum(max(0, count[h] - low[h] - (h in extra)) for h in weights)
        for extra in combinations(rounded, len(owners) - sum(low.values()))
    )


def lists(owners, weights):
    """The partitions of each handler."""
    return {h: [p for p, owner in enumerate(owners) if owner == h] for h in weights}


@given(st.integers(1, 16_384), clusters)
def test_shares_add_up_and_stay_within_one_of_the_exact_share(partitions, weights):
    got = shares(partitions, weights)
    assert sum(got.values()) == partitions
    for h, (lowest, highest) in quota(partitions, weights).items():
        assert lowest <= got[h] <= highest


@given(st.data(), clusters, st.integers(1, 40))
def test_rebalancing_ends_fair_with_the_fewest_moves_there_are(data, weights, partitions):
    owners = data.draw(
        st.lists(st.sampled_from(sorted(weights)), min_size=partitions, max_size=partitions)
    )
    moves = rebalance(lists(owners, weights), weights)
    assert all(owners[p] != h for p, h in moves.items())
    after = Counter(moves.get(p, owner) for p, owner in enumerate(owners))
    for h, (lowest, highest) in quota(partitions, weights).items():
        assert lowest <= after[h] <= highest
    assert len(moves) == fewest_moves(owners, weights)


@given(st.data(), clusters, st.integers(1, 60))
def test_rebalancing_what_is_balanced_moves_nothing(data, weights, partitions):
    owners = data.draw(
        st.lists(st.sampled_from(sorted(weights)), min_size=partitions, max_size=partitions)
    )
    moves = rebalance(lists(owners, weights), weights)
    after = [moves.get(p, h) for p, h in enumerate(owners)]
    assert rebalance(lists(after, weights), weights) == {}


@given(st.integers(2, 8), st.integers(1, 300), st.data())
def test_survivors_of_a_death_stay_even_within_one(handlers, partitions, data):
    names = [f"h-{i}" for i in range(handlers)]
    even = shares(partitions, dict.fromkeys(names, 1.0))
    dead = data.draw(st.sampled_from(names))
    owned = {h: n for h, n in even.items() if h != dead}
    placed = place(range(even[dead]), owned, dict.fromkeys(owned, 1.0))
    after = [owned[h] + sum(got == h for got in placed.values()) for h in owned]
    assert set(placed) == set(range(even[dead]))
    assert max(after) - min(after) <= 1


alike = st.builds(dict.fromkeys, clusters, st.sampled_from([1.0, 0.1, 3.0]))


@given(clusters | alike, st.integers(0, 60), st.data())
def test_each_orphan_goes_to_the_lowest_load_per_weight(weights, orphans, data):
    count = {h: data.draw(st.integers(0, 40), label=h) for h in weights}
    for chosen in place(range(orphans), dict(count), weights).values():
        load = {h: (count[h] + 1) / w for h, w in weights.items() if w}
        assert chosen == min(load, key=lambda h: load[h]), "the earlier one of several"
        count[chosen] += 1
