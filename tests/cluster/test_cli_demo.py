"""`mesh demo`, the main job, as its users have it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from running import Run

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


def test_the_demo_kills_handlers_and_comes_to_its_verdict(run: Run) -> None:
    words = run("demo", "--handlers", "2", "--kills", "1").stdout
    assert "SIGKILL h-0" in words
    assert "nothing is left behind" in words
    assert "0 failed, 0 lost, 0 doubled" in words
    assert words.splitlines()[-1].startswith("verdict: every call was answered")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--kills", "0"], "--kills must be 1 or more"), (["--handlers", "1"], "has to survive")],
)
def test_a_demo_of_nothing_is_refused(
    arguments: list[str], says: str, fails: Callable[..., str]
) -> None:
    assert says in fails("demo", *arguments)
