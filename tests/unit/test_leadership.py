"""When a supervisor bids for the lead, and when it lets it be."""

from __future__ import annotations

import pytest

from mesh.core.leadership import (
    BeatHeard,
    BeginToLead,
    BidFailed,
    BidTopped,
    BidWon,
    Deposed,
    GiveUpBid,
    Leadership,
    LeadershipConfig,
    LeadingHeard,
    LinkLost,
    Looked,
    MakeBid,
    Missed,
    Role,
    StandDown,
)

SILENCE_S = 0.7
LATER_S = 0.3
"""Later than this after it was due, a look says nothing of the leader."""


def standby(rank: int = 0, *, token: int = 3) -> Leadership:
    """One that has heard at 0.0 that s-9 leads."""
    one = Leadership(LeadershipConfig(rank))
    one.step(LeadingHeard(token, 1, "s-9"), 0.0)
    return one


def leader(*, token: int = 4, now: float = 1.0) -> Leadership:
    one = standby()
    one.step(LinkLost("s-9"), 0.9)
    one.step(Looked(), 0.95)
    assert one.step(BidWon(token, 1), now) == [BeginToLead(token, 1)]
    return one


def bids_at(one: Leadership) -> float:
    """When it would bid if nothing more happened."""
    assert one.due is not None
    return one.due


def test_a_standby_that_hears_its_leader_never_bids():
    one = standby()
    for tenth in range(1, 100):
        now = tenth / 10
        assert one.step(BeatHeard(3), now) == []
        assert bids_at(one) > now + 0.5
        assert one.step(Looked(), now) == []


def test_a_silent_leader_is_bid_over_after_the_silence():
    one = standby()
    one.step(BeatHeard(3), 0.5)
    assert one.step(Looked(), 0.5 + SILENCE_S - 0.01) == []
    effects = one.step(Looked(), 0.5 + SILENCE_S)
    assert effects == [Missed("s-9", "it is silent"), MakeBid(3)]
    assert one.role is Role.BIDDING


def test_a_broken_connection_is_bid_over_within_milliseconds():
    one = standby()
    one.step(BeatHeard(3), 0.5)
    assert one.step(LinkLost("s-9"), 0.55) == []
    assert bids_at(one) == pytest.approx(0.57)
    effects = one.step(Looked(), bids_at(one))
    assert effects == [Missed("s-9", "its connection broke"), MakeBid(3)]


def test_a_leader_whose_connection_alone_broke_stays_if_it_answers_at_once():
    one = standby()
    one.step(LinkLost("s-9"), 0.5)
    one.step(LeadingHeard(3, 1, "s-9"), 0.51)
    assert one.step(Looked(), 0.52) == []
    assert bids_at(one) > 1.2


def test_the_connection_to_another_standby_means_nothing():
    one = standby()
    one.step(LinkLost("s-2"), 0.5)
    assert bids_at(one) == SILENCE_S


def test_standbys_bid_one_after_the_other():
    ranks = [standby(rank) for rank in range(3)]
    for one in ranks:
        one.step(LinkLost("s-9"), 0.5)
    assert [bids_at(one) for one in ranks] == pytest.approx([0.52, 0.57, 0.62])


def test_who_hears_of_the_winner_before_its_turn_does_not_bid():
    second = standby(rank=1)
    second.step(LinkLost("s-9"), 0.5)
    second.step(LeadingHeard(4, 1, "s-0"), 0.53)
    assert second.step(Looked(), 0.57) == []
    assert (second.leader, second.token) == ("s-0", 4)


def test_a_bid_that_was_topped_waits_for_the_winner_and_then_bids_over_his_token():
    one = standby()
    one.step(LinkLost("s-9"), 0.5)
    one.step(Looked(), 0.53)
    assert one.step(BidTopped(4), 0.54) == []
    assert one.role is Role.STANDBY
    assert bids_at(one) > 0.54 + SILENCE_S
    assert one.step(Looked(), bids_at(one)) == [MakeBid(4)]


def test_two_that_cannot_hear_each_other_bid_ever_later():
    one, now, waits = leader(), 1.0, []
    for token in range(5, 15, 2):
        assert one.step(Deposed(), now) == [StandDown("another leads, says the store")]
        waits.append(bids_at(one) - now)
        now = bids_at(one)
        assert one.step(Looked(), now) == [MakeBid(None)]
        one.step(BidWon(token, 1), now)
    assert waits == pytest.approx([2 * SILENCE_S, 4 * SILENCE_S, *[8 * SILENCE_S] * 3])


def test_patience_begins_anew_once_a_leader_is_heard():
    one = leader()
    one.step(Deposed(), 1.1)
    one.step(LeadingHeard(5, 1, "s-1"), 1.2)
    assert bids_at(one) == pytest.approx(1.2 + SILENCE_S)


def test_a_bid_that_nobody_took_is_made_again():
    one = standby()
    one.step(LinkLost("s-9"), 0.5)
    one.step(Looked(), 0.53)
    one.step(BidFailed(), 0.6)
    assert one.step(Looked(), bids_at(one)) == [MakeBid(3)]


def test_a_leader_that_comes_back_before_anybody_had_the_store_is_followed_again():
    one = standby()
    one.step(LinkLost("s-9"), 0.5)
    one.step(Looked(), 0.53)
    one.step(BidFailed(), 0.6)
    one.step(BeatHeard(3), 0.65)
    assert one.leader == "s-9"
    assert one.step(Looked(), 0.75) == []


def test_a_leader_that_hears_of_a_higher_token_stands_down():
    one = leader(token=4)
    assert one.step(LeadingHeard(5, 1, "s-1"), 2.0) == [StandDown("s-1 leads by token 5")]
    assert (one.role, one.leader, one.token) == (Role.STANDBY, "s-1", 5)


@pytest.mark.parametrize("token", [2, 3])
def test_a_leader_does_not_listen_to_a_lower_token(token):
    one = leader(token=4)
    assert one.step(LeadingHeard(token, 1, "s-9"), 2.0) == []
    assert one.role is Role.LEADER


def test_beats_of_a_leader_that_was_deposed_keep_nobody_from_bidding():
    one = standby(token=4)
    for tenth in range(1, 7):
        one.step(BeatHeard(3), tenth / 10)
        one.step(LeadingHeard(3, 1, "s-8"), tenth / 10)
    assert one.leader == "s-9"
    assert one.step(Looked(), SILENCE_S) == [Missed("s-9", "it is silent"), MakeBid(4)]


def test_a_bid_that_is_won_late_is_not_taken_up_under_a_higher_token():
    one = standby()
    one.step(LinkLost("s-9"), 0.5)
    one.step(Looked(), 0.53)
    one.step(LeadingHeard(5, 1, "s-1"), 0.6)
    assert one.step(BidWon(4, 1), 0.61) == []
    assert (one.role, one.leader) == (Role.STANDBY, "s-1")


def test_a_bid_that_was_won_while_the_old_leader_came_back_counts():
    one = standby()
    one.step(LinkLost("s-9"), 0.5)
    one.step(Looked(), 0.53)
    one.step(LeadingHeard(3, 1, "s-9"), 0.54)
    assert one.step(BidWon(4, 1), 0.55) == [BeginToLead(4, 1)]


def test_a_leader_that_has_opened_the_next_life_begins_anew_there():
    one = leader(token=4)
    assert one.step(BidWon(5, 2), 3.0) == [BeginToLead(5, 2)]
    assert (one.role, one.token, one.life) == (Role.LEADER, 5, 2)


def bidder() -> Leadership:
    one = standby(token=3)
    one.step(LinkLost("s-9"), 0.5)
    assert MakeBid(3) in one.step(Looked(), bids_at(one))
    return one


@pytest.mark.parametrize("said", [LeadingHeard(4, 1, "s-1"), BeatHeard(3)])
def test_a_bid_is_given_up_once_somebody_says_that_he_leads(said):
    one = bidder()
    assert one.step(said, 0.7) == [GiveUpBid()]
    assert one.role is Role.STANDBY
    assert bids_at(one) > 1.3


def test_a_bid_goes_on_whatever_a_deposed_leader_says():
    one = bidder()
    assert one.step(BeatHeard(2), 0.7) == []
    assert one.role is Role.BIDDING


def test_one_that_was_stopped_itself_reads_what_was_said_meanwhile_before_it_bids():
    one = standby()
    woken = SILENCE_S + LATER_S + 5.0
    assert one.step(Looked(), woken) == []
    one.step(BeatHeard(3), woken + 0.001)
    assert one.step(Looked(), woken + 0.02) == []
    assert bids_at(one) > woken + 0.6


def test_one_that_was_stopped_and_finds_nothing_said_bids():
    one = standby()
    one.step(Looked(), 6.0)
    assert one.step(Looked(), bids_at(one)) == [Missed("s-9", "it is silent"), MakeBid(3)]


def test_one_that_comes_up_alone_bids_over_whatever_is_on_record():
    one = Leadership(LeadershipConfig(rank=2))
    one.stand_by(10.0)
    assert bids_at(one) == pytest.approx(10.0 + SILENCE_S + 2 * 0.05)
    assert one.step(Looked(), bids_at(one)) == [MakeBid(None)]


def test_one_that_was_not_told_to_stand_by_bids_for_nothing():
    one = Leadership(LeadershipConfig())
    assert one.due is None
    assert one.step(Looked(), 1000.0) == []


def test_one_that_comes_up_beside_a_leader_does_not_bid():
    one = Leadership(LeadershipConfig())
    one.stand_by(0.0)
    one.step(LeadingHeard(7, 2, "s-1"), 0.2)
    assert one.step(Looked(), SILENCE_S) == []
    assert (one.leader, one.token, one.life) == ("s-1", 7, 2)


def test_a_leader_and_a_bidder_need_not_look():
    assert leader().due is None
    one = standby()
    one.step(Looked(), bids_at(one))
    assert one.due is None


def test_a_silence_that_one_late_beat_would_break_is_refused():
    with pytest.raises(
        ValueError, match=r"silence_s 0\.2 must be at least three times beat_s 0\.1"
    ):
        LeadershipConfig(silence_s=0.2)
