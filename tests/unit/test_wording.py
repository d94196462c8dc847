"""Events in words: every kind that a supervisor records, and one that nobody has heard of."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

import mesh.core
from mesh.wording import _WORDS, in_words, level_of

FAILOVER = {
    "kind": "failover",
    "at": 1.0,
    "handler": "h-2",
    "pid": 812,
    "cause": "exit",
    "partitions": 64,
    "phases_ms": {"detect": 1.0, "decide": 0.5, "fence": 4.0, "publish": 0.5, "ready": 1.25},
}


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (
            FAILOVER,
            (
                "h-2 (pid 812) is dead, cause: exit; others have taken over its 64 partitions, in "
                "7.2 ms (detect 1.0, decide 0.5, fence 4.0, publish 0.5, ready 1.2)"
            ),
        ),
        (
            {"kind": "handover", "to": ["h-0", "h-1"], "partitions": 1, "took_ms": 7.4},
            "1 partition moved to h-0, h-1, as planned, in 7 ms",
        ),
        (
            {"kind": "leading", "supervisor": "s-0", "life": 2, "token": 5},
            "s-0 leads the mesh (life 2 of the store, token 5)",
        ),
        (
            {"kind": "warden_lost", "warden": "w-0", "node": "n", "reason": "reset"},
            "warden w-0 on n is gone (reset); until one is back, a death there is noticed more slowly",
        ),
        (
            {"kind": "handler_suspect", "handler": "h-0", "state": "blocked"},
            (
                "h-0 neither shows that its loop turns nor answers a probe (blocked); it keeps "
                "everything, and is looked at"
            ),
        ),
        ({"kind": "handler_recovered", "handler": "h-0"}, "the loop of h-0 turns again"),
        (
            {"kind": "handler_killed", "handler": "h-0", "state": "stopped"},
            "the loop of h-0 is stopped: its warden is told to kill it",
        ),
        (
            {
                "kind": "handler_weight",
                "handler": "h-0",
                "weight": 0.0,
                "why": "gray",
                "sign": "errors",
            },
            "h-0 is to hold a share of weight 0 from now on, gray: errors",
        ),
        (
            {
                "kind": "slow_method",
                "handler": "h-0",
                "method": "A.b",
                "seconds": 1.04,
                "limit_s": 30.0,
            },
            (
                "A.b has kept h-0 for 1.0 s, in which it serves nothing else; its limit is 30 s. Make it "
                "async, or blocking=True"
            ),
        ),
        (
            {"kind": "handler_start_failed", "handler": "h-0", "reason": "no module\n  bank"},
            "h-0 could not be started and is tried again: no module / bank",
        ),
        (
            {"kind": "new_kind", "at": 1.0, "who": ["a", "b"], "ms": {"x": 1}},
            "new_kind  who a, b  ms x 1",
        ),
        ({"kind": "failover", "at": 1.0, "handler": "h-0"}, "failover  handler h-0"),
    ],
)
def test_an_event_is_one_sentence(event, words):
    assert in_words(event) == words


def test_every_kind_that_is_recorded_has_words():
    """Read out of the sources: a kind that is added without words would be told by its fields."""
    root = Path(mesh.core.__file__).parent.parent
    sources = [*root.glob("core/*.py"), *root.glob("supervisor/*.py")]
    pattern = re.compile(r"(?:Record|\.record)\(\s*\"(\w+)\"")
    recorded = {kind for path in sources for kind in pattern.findall(path.read_text())}
    assert recorded
    assert recorded <= _WORDS.keys()


def test_what_needs_somebody_weighs_more_than_what_does_not():
    assert level_of(FAILOVER) == logging.WARNING
    assert level_of({"kind": "handler_start_failed"}) == logging.ERROR
    assert level_of({"kind": "handler_started"}) == logging.INFO
    assert level_of({"kind": "new_kind"}) == logging.INFO
