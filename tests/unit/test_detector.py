"""The ladder: who is suspected, looked at, killed, taken over, and who never is."""

from __future__ import annotations

import pytest

from mesh.core.timing import Timing
from mesh.core.watch_signals import AskPeer, Condemn, Left, OrderKill, Reweigh, Ticked
from tests.unit.watch_rig import (
    BLOCKED,
    BURNING,
    CROWDED,
    DISK,
    FROZEN,
    IDLE,
    POLLING,
    STOPPED,
    THROTTLED,
    Handler,
    Ring,
)


def mesh_of(number: int = 4, **other: object) -> tuple[Ring, list[Handler]]:
    """One handler to a machine, each with its warden."""
    handlers = [Handler(f"h-{i}", warden=f"w-{i}", domain=f"host-{i}") for i in range(number)]
    ring = Ring(*handlers, **other)
    ring.run(2.0)
    assert not ring.orders
    return ring, handlers


def test_nobody_is_ordered_anything_while_all_is_well() -> None:
    ring, _ = mesh_of()
    ring.run(30.0)
    assert not ring.orders
    assert not ring.looks


def test_a_stopped_handler_is_killed_within_half_a_second() -> None:
    ring, (h, *_) = mesh_of()
    stopped_at = ring.now
    h.stops()
    ring.run(2.0)
    [(at, order)] = [(at, o) for at, o in ring.orders if isinstance(o, OrderKill)]
    assert (order.nonce, order.warden, order.condition) == (h.nonce, "w-0", "stopped")
    assert 0.2 < at - stopped_at <= 0.5
    assert not ring.of(Condemn)


def test_a_kill_names_the_sight_it_is_made_of_and_when_it_expires() -> None:
    ring, (h, *_) = mesh_of()
    h.stops()
    ring.run(1.0)
    [order] = ring.of(OrderKill)
    assert order.expires_s == ring.timing.kill_s == 0.5
    assert order.seen_ms == pytest.approx(ring.orders[0][0] * 1000, abs=150)
    assert order.slices == h.slices


def test_a_stop_shorter_than_the_probe_kills_nobody() -> None:
    ring, (h, *_) = mesh_of()
    h.stops()
    ring.run(0.3)
    h.recovers()
    ring.run(2.0)
    assert not ring.evictions


def test_a_kill_that_is_not_proved_in_time_becomes_a_takeover_without_proof() -> None:
    ring, (h, *_) = mesh_of()
    ring.obeys = False
    h.stops()
    ring.run(1.0)
    kills = [at for at, o in ring.orders if isinstance(o, OrderKill)]
    [(condemned_at, condemned)] = [(at, o) for at, o in ring.orders if isinstance(o, Condemn)]
    assert condemned == Condemn(h.nonce, "hang")
    assert ring.timing.proof_s <= condemned_at - kills[0] <= ring.timing.proof_s + 0.1


def test_a_warden_that_found_it_recovered_takes_the_order_back() -> None:
    ring, (h, *_) = mesh_of()
    ring.obeys = False
    h.stops()
    while not ring.of(OrderKill):
        ring.run(0.025)
    h.does(BURNING)  # continued, and in the middle of a long turn
    ring.run(1.0)
    h.recovers()
    ring.run(1.0)
    assert len(ring.of(OrderKill)) == 1
    assert not ring.of(Condemn)


def test_a_proof_that_came_while_the_judge_slept_is_in_time() -> None:
    ring, (h, *_) = mesh_of(reads=False)  # or the store would count as away
    ring.obeys = False
    h.stops()
    while not ring.of(OrderKill):
        ring.run(0.025)
    ring.sleep(3.0)
    ring.step(Ticked())  # before it reads what has come meanwhile
    ring.step(Left(h.nonce))
    ring.run(1.0)
    assert not ring.of(Condemn)


# ------------------------------------------------------------------ counterexamples F7


@pytest.mark.parametrize("thread", [THROTTLED, CROWDED])
@pytest.mark.parametrize("beats", [True, False])
def test_f7a_a_process_without_a_cpu_is_never_evicted(thread: object, beats: bool) -> None:
    """Throttled, behind a FIFO hog, or one of many: its run-delay may be flat, too; it does not renew."""
    ring, (h, *_) = mesh_of()
    h.does(thread, beats=beats, renews=False)
    ring.run(120.0)
    assert not ring.evictions


def test_f7b_the_threads_that_are_looked_at_are_the_loops() -> None:
    """The main thread sleeps in Ray's own code, always; the loop's burns. Its look is what decides."""
    ring, (h, *_) = mesh_of(timing=Timing(method_limit_s=5.0))
    h.does(BURNING, beats=False)
    ring.run(4.5)
    assert not ring.evictions
    ring.run(2.0)
    assert [k.condition for k in ring.of(OrderKill)] == ["burning"]


@pytest.mark.parametrize("beats", [True, False])
def test_f7c_a_loop_that_burns_its_cpu_for_ever_is_killed_at_its_limit(beats: bool) -> None:
    ring, (h, *_) = mesh_of()
    h.does(BURNING, method="Account.spin", beats=beats)
    ring.run(29.0)
    assert not ring.evictions
    ring.run(3.0)
    assert [(k.nonce, k.condition) for k in ring.of(OrderKill)] == [(h.nonce, "burning")]


@pytest.mark.parametrize("thread", [BLOCKED, DISK])
def test_f7c_a_loop_that_sleeps_is_killed_at_its_limit_and_not_before(thread: object) -> None:
    ring, (h, *_) = mesh_of()
    h.does(thread, renews=False)
    ring.run(29.0)
    assert not ring.evictions
    ring.run(3.0)
    assert [k.condition for k in ring.of(OrderKill)] == ["blocked"]


def test_f7d_a_frozen_process_whose_kill_is_not_carried_out_does_not_stall_the_mesh() -> None:
    ring, (h, *_) = mesh_of()
    ring.obeys = False
    h.does(FROZEN, beats=False)
    ring.run(1.0)
    assert [k.condition for k in ring.of(OrderKill)] == ["stopped"]
    assert ring.of(Condemn) == [Condemn(h.nonce, "hang")]


def test_f7e_a_stopped_handler_without_a_warden_is_taken_over_once_its_lease_is_out() -> None:
    ring, (h, *_) = mesh_of()
    ring.lose_warden("w-0")
    stopped_at = ring.now
    h.stops()
    ring.run(1.0)
    assert not ring.evictions
    ring.run(1.0)
    [(at, condemned)] = [(at, o) for at, o in ring.orders if isinstance(o, Condemn)]
    assert condemned == Condemn(h.nonce, "unreachable")
    assert at - stopped_at <= 1.4


def test_f7f_a_handler_that_reaches_everyone_but_the_store_is_taken_over() -> None:
    ring, (h, *_) = mesh_of()
    h.renews = False
    ring.run(2.0)
    assert ring.of(Condemn) == [Condemn(h.nonce, "unreachable")]
    assert not ring.of(OrderKill)


def test_f7f_its_loop_being_late_is_another_reason_why_it_did_not_renew() -> None:
    ring, (h, *_) = mesh_of()
    h.renews, h.lag_ms = False, 400.0
    ring.run(5.0)
    assert not ring.evictions


def test_f7g_a_warden_that_starves_itself_gives_no_verdict() -> None:
    """Its whole machine does: nothing comes in time, but something comes."""
    ring, (h, *_) = mesh_of()
    ring.wardens["w-0"] = 700.0
    h.does(THROTTLED, beats=False, renews=False)
    ring.run(120.0)
    assert not ring.evictions


def test_f7g_nor_does_what_a_late_warden_saw_prove_that_one_is_stopped() -> None:
    ring, (h, *_) = mesh_of()
    ring.wardens["w-0"] = 700.0
    h.does(STOPPED, beats=False)
    ring.run(5.0)
    assert not ring.of(OrderKill)


@pytest.mark.parametrize("number", [2, 3])
def test_f7h_in_a_panic_a_lease_that_ran_out_is_as_good_as_a_proof(number: int) -> None:
    """One of two hosts is more than a third of them, and still is taken over."""
    ring, (h, *_) = mesh_of(number)
    h.does(IDLE, beats=False, answers=False, renews=False)
    ring.lose_warden("w-0")
    ring.run(2.0)
    assert ring.of(Condemn) == [Condemn(h.nonce, "unreachable")]


def test_f7h_in_a_panic_what_peers_say_is_no_proof() -> None:
    ring, (a, b, *_) = mesh_of(4)
    for h in (a, b):
        h.does(IDLE, beats=False, reached=False)
        h.turns, h.answers = True, False
        ring.lose_warden(h.warden)
    ring.run(20.0)
    assert not ring.evictions


# ------------------------------------------------------------------------------ others


def test_a_host_that_is_cut_off_is_taken_over_within_a_lease_and_a_third() -> None:
    ring, (h, *_) = mesh_of()
    cut_at = ring.now
    h.beats = h.answers = h.renews = h.reached = False
    del ring.wardens["w-0"]  # silent; its connection is not broken
    ring.run(3.0)
    [(at, condemned)] = [(at, o) for at, o in ring.orders if isinstance(o, Condemn)]
    assert condemned == Condemn(h.nonce, "unreachable")
    assert at - cut_at <= 1.35


def test_a_handler_that_renews_is_taken_over_only_once_its_peers_do_not_reach_it_either() -> None:
    ring, (h, *_) = mesh_of()
    h.beats = h.answers = h.reached = False
    del ring.wardens["w-0"]
    ring.run(3.0)
    assert len({order.by for order in ring.of(AskPeer)}) >= 2
    assert ring.of(Condemn) == [Condemn(h.nonce, "unreachable")]


def test_a_handler_that_its_peers_reach_keeps_everything_though_the_leader_does_not() -> None:
    ring, (h, *_) = mesh_of()
    h.beats = h.answers = False
    del ring.wardens["w-0"]
    ring.run(30.0)
    assert 20 < len(ring.of(AskPeer)) <= 60, "two of them, once a lease"
    assert not ring.evictions


def test_peers_that_do_not_answer_have_not_said_that_they_do_not_reach_it() -> None:
    ring, (h, *others) = mesh_of()
    h.beats = h.answers = h.reached = False
    del ring.wardens["w-0"]
    for peer in others:
        peer.tells = False
    ring.run(10.0)
    assert ring.of(AskPeer)
    assert not ring.evictions


def test_a_loop_that_answers_probes_needs_no_beats() -> None:
    ring, (h, *_) = mesh_of()
    h.beats = False
    ring.run(60.0)
    assert not ring.evictions
    assert not ring.said("handler_suspect")


def test_while_nobody_can_renew_a_lease_that_ran_out_is_no_evidence() -> None:
    """A store failover takes longer than a lease; some are back a little earlier than others."""
    ring, handlers = mesh_of()
    for h in handlers:
        h.renews = False
    ring.store = "away"
    ring.run(2.5)
    ring.store = "closed"
    ring.run(0.5)
    ring.store = "there"
    for h in handlers[1:]:
        h.renews = True
    ring.run(0.8)
    handlers[0].renews = True
    ring.run(5.0)
    assert not ring.evictions


def test_a_store_that_takes_no_writes_ends_nobodys_lease_for_good() -> None:
    """It can be read, and says the same numbers of everybody."""
    ring, handlers = mesh_of()
    for h in handlers:
        h.renews = False
    ring.run(5.0)
    for h in handlers[1:]:
        h.renews = True
    ring.run(0.8)
    handlers[0].renews = True
    ring.run(5.0)
    assert not ring.evictions


def test_nobody_is_killed_while_the_store_is_away() -> None:
    ring, (h, *_) = mesh_of()
    ring.store = "away"
    ring.run(1.0)
    h.stops()
    ring.run(5.0)
    assert not ring.evictions
    ring.store = "there"
    ring.run(1.0)
    assert [k.nonce for k in ring.of(OrderKill)] == [h.nonce]


def test_what_the_judge_slept_through_counts_for_nobody() -> None:
    ring, _ = mesh_of()
    ring.sleep(5.0)
    ring.run(2.0)
    assert not ring.evictions
    assert not ring.said("handler_suspect")


def test_a_judge_that_is_late_itself_waits_longer() -> None:
    ring, (h, *_) = mesh_of()
    for _ in range(5):  # 0.3 s of each 0.35 s it does not run
        ring.sleep(0.3)
        ring.run(0.05)
    assert ring.detector._judge.stretch >= 3
    h.stops()
    ring.run(0.6)
    assert not ring.evictions
    ring.run(3.0)
    assert [k.nonce for k in ring.of(OrderKill)] == [h.nonce]


def test_a_slow_method_is_told_by_name_once_and_long_before_its_limit() -> None:
    ring, (h, *_) = mesh_of()
    h.does(BURNING, method="Account.report")
    ring.run(2.0)
    h.recovers()
    ring.run(2.0)
    [slow] = ring.said("slow_method")
    assert (slow["handler"], slow["method"], slow["limit_s"]) == ("h-0", "Account.report", 30.0)
    assert slow["seconds"] == pytest.approx(1.0, abs=0.2)
    assert not ring.evictions


def test_a_method_with_a_longer_limit_of_its_own_has_that_long() -> None:
    ring, (h, *_) = mesh_of()
    h.does(BLOCKED, method="Account.report", limit_s=120.0)
    ring.run(100.0)
    assert not ring.evictions
    ring.run(25.0)
    assert ring.of(OrderKill)


def test_time_that_a_loop_waited_for_a_cpu_is_not_its_methods() -> None:
    ring, (h, *_) = mesh_of(timing=Timing(method_limit_s=5.0))
    h.does(BURNING, method="Account.report")
    ring.run(3.0)
    h.thread = THROTTLED
    ring.run(60.0)
    h.thread = BURNING
    ring.run(1.0)
    assert not ring.evictions
    ring.run(2.0)
    assert ring.of(OrderKill)


def test_a_loop_that_another_thread_keeps_from_running_counts_as_burning() -> None:
    """The GIL: it wakes every 5 ms, and sleeps again."""
    ring, (h, *_) = mesh_of(timing=Timing(method_limit_s=5.0))
    h.does(POLLING, beats=False, renews=False, holds_gil=True)
    ring.run(4.5)
    assert not ring.evictions
    ring.run(2.0)
    assert [k.condition for k in ring.of(OrderKill)] == ["burning"]


def test_a_method_that_polls_is_hung_as_one_that_sleeps_while_its_process_beats() -> None:
    ring, (h, *_) = mesh_of(timing=Timing(method_limit_s=5.0))
    h.does(POLLING, renews=False)
    ring.run(4.5)
    assert not ring.evictions
    ring.run(2.0)
    assert ring.of(OrderKill)


def test_a_hang_that_no_warden_can_end_is_taken_over_at_the_limit() -> None:
    ring, (h, *_) = mesh_of(timing=Timing(method_limit_s=5.0))
    ring.lose_warden("w-0")
    h.does(BLOCKED, method="Account.wait")
    ring.run(4.5)
    assert not ring.evictions
    ring.run(2.0)
    assert ring.of(Condemn)[0] == Condemn(h.nonce, "hang")


def test_one_that_is_too_busy_to_renew_is_not_taken_for_cut_off_from_the_store() -> None:
    ring, (h, *_) = mesh_of()
    h.renews = False
    for number in range(200):
        h.lag_ms = 400.0 if number % 8 == 0 else 5.0
        ring.run(0.1)
    assert not ring.evictions
    h.lag_ms = 5.0
    ring.run(2.0)
    assert ring.of(Condemn)[0] == Condemn(h.nonce, "unreachable")


def test_a_starved_handler_loses_its_load_and_gets_it_back() -> None:
    ring, (h, *_) = mesh_of()
    h.does(THROTTLED, beats=False)
    ring.run(5.0)
    assert {(r.nonce, r.why) for r in ring.of(Reweigh)} == {(h.nonce, "starved")}
    assert [r.weight for r in ring.of(Reweigh)] == [0.0]
    h.recovers()
    ring.run(60.0)
    assert [r.weight for r in ring.of(Reweigh)] == [0.0, 0.1, 0.5, 1.0]


def test_a_suspect_is_told_of_and_so_is_its_recovery() -> None:
    ring, (h, *_) = mesh_of()
    h.does(BLOCKED)
    ring.run(1.0)
    assert ring.detector.suspects == {h.nonce}
    h.recovers()
    ring.run(1.0)
    assert [f["state"] for f in ring.said("handler_suspect")] == ["blocked"]
    assert ring.said("handler_recovered") == [{"handler": "h-0"}]
    assert not ring.detector.suspects
