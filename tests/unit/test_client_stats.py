"""A call is counted by what its caller was told."""

from __future__ import annotations

import pytest

from mesh.client.stats import ClientStats, Tally
from mesh.errors import (
    BadRequest,
    DeadlineExceeded,
    EntityError,
    OutcomeUnknown,
    ProtocolError,
    Unavailable,
)


@pytest.mark.parametrize(
    ("error", "count"),
    [
        (EntityError("no", type="ValueError", details=[]), "entity_errors"),
        (ProtocolError("executed, its reply cannot be read", executed=True), "entity_errors"),
        (BadRequest("no"), "not_executed"),
        (Unavailable("no"), "not_executed"),
        (DeadlineExceeded("no"), "not_executed"),
        (OutcomeUnknown("no"), "unknown"),
        (BadRequest("refused, but an earlier attempt may have run", executed=None), "unknown"),
    ],
)
def test_an_error_is_counted_by_what_it_says_of_execution(error, count):
    tally = Tally()
    tally.started = 1
    tally.failed(error)
    assert getattr(tally.stats(), count) == 1
    assert tally.stats().running == 0


def test_the_counts_add_up_with_those_that_run():
    tally = Tally()
    tally.started, tally.ok, tally.cancelled = 10, 6, 1
    assert tally.stats() == ClientStats(10, 6, 0, 0, 0, 1, running=3)
