"""The scenarios that are written as text beside this file, each over several seeds of delays."""

from pathlib import Path

import pytest

from mesh.testing.sim.scenario import play
from mesh.testing.sim.script import read

TEXTS = sorted(Path(__file__).parent.glob("*.txt"))
SEEDS = range(1, 4)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_it_goes_as_it_is_written(path):
    script = read(path.read_text())
    for seed in SEEDS:
        result = play(script, seed)
        assert result.ok, f"{script.name}\n{result.report()}"


def told(text, seed=1):
    """What is said of a scenario that does not go as it is written."""
    result = play(read(f"# A mistake\n\n{text}\n\nthen every promise holds\n"), seed)
    [violation] = result.violations
    assert violation.what == "the scenario goes as it is written"
    return violation.evidence


@pytest.mark.parametrize(
    ("text", "evidence"),
    [
        ("a: Counter.incr('k') -> 2", "line 3: a: Counter.incr('k') -> 2: it ended: #1 a:"),
        ("a: Counter.incr('k')", "a call is written with its end"),
        ("a begins Counter.incr('k')\n1 s pass\na has not ended", "it has ended: #1 a:"),
        ("a ends -> 1", "a has begun no call"),
        ("wait until db-1 is the primary", "it was not so that db-1 is the primary within 30 s"),
        ("A is the primary\nB is a replica\nthe in-sync set is B", "it is ['db-1', 'db-2']"),
        ("a loss is reported", "this was reported: []"),
        ("L1 is the leader\nL2 is a standby", "there is no standby that has no name yet"),
        ("kill o1", "there is no 'o1'"),
        (
            "o1 owns 'k'\no2 is another handler\no3 is another handler",
            "no handler that has no name",
        ),
        (
            "o1 owns 'k'\nwait until 'k' has another owner than o1",
            "it was not so that 'k' has another owner than o1 within 30 s",
        ),
        ("o1 owns 'k'\no1 owns nothing", "o1 owns the partitions ["),
        ("o1 owns 'k'\nkill o1\no2 replaces o1\no2 owns 'k'\no1 owns 'k'", "'k' belongs to"),
        (
            "o1 owns 'k'\nas soon as the store carries out a commit of o1:\n    kill o1",
            "this has not happened: line 4",
        ),
    ],
)
def test_what_does_not_go_as_it_is_written_is_said_with_its_line(text, evidence):
    assert evidence in told(text)


def test_a_scenario_replays_exactly():
    script = read(TEXTS[0].read_text())
    one, other = play(script, 3), play(script, 3)
    assert (one.digest, str(one.trace)) == (other.digest, str(other.trace))
    assert play(script, 4).digest != one.digest
